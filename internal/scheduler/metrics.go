package scheduler

import (
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the scheduler's, under upstream's names.
type metrics struct {
	attempts           *prometheus.CounterVec
	attemptDuration    *prometheus.HistogramVec
	algorithmDuration  prometheus.Histogram
	podAttempts        prometheus.Histogram
	sli                *prometheus.HistogramVec
	preemptionAttempts prometheus.Counter
	preemptionVictims  prometheus.Histogram
	unschedulable      *prometheus.GaugeVec
	incoming           *prometheus.CounterVec
}

// newMetrics registers the metrics with reg, which may be nil.
func newMetrics(reg prometheus.Registerer, s *Scheduler) *metrics {
	latency := prometheus.ExponentialBuckets(0.001, 2, 15)
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "scheduler_schedule_attempts_total",
			Help: "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
		}, []string{"result", "profile"}),
		attemptDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "scheduler_scheduling_attempt_duration_seconds", Buckets: latency,
			Help: "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
		}, []string{"result", "profile"}),
		algorithmDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scheduler_scheduling_algorithm_duration_seconds", Buckets: latency, Help: "Scheduling algorithm latency in seconds",
		}),
		podAttempts: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scheduler_pod_scheduling_attempts", Buckets: prometheus.ExponentialBuckets(1, 2, 5), Help: "Number of attempts to successfully schedule a pod.",
		}),
		sli: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "scheduler_pod_scheduling_sli_duration_seconds", Buckets: prometheus.ExponentialBuckets(0.01, 2, 20),
			Help: "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
		}, []string{"attempts"}),
		preemptionAttempts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "scheduler_preemption_attempts_total", Help: "Total preemption attempts in the cluster till now",
		}),
		preemptionVictims: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scheduler_preemption_victims", Buckets: prometheus.ExponentialBuckets(1, 2, 7), Help: "Number of selected preemption victims",
		}),
		unschedulable: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "scheduler_unschedulable_pods",
			Help: "The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule and so this metric have meaning only when broken down by plugin.",
		}, []string{"plugin", "profile"}),
		incoming: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "scheduler_queue_incoming_pods_total", Help: "Number of pods added to scheduling queues by event and queue type.",
		}, []string{"queue", "event"}),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.attempts, m.attemptDuration, m.algorithmDuration, m.podAttempts, m.sli, m.preemptionAttempts, m.preemptionVictims, m.unschedulable, m.incoming)
	for _, queue := range []string{"active", "backoff", "unschedulable", "gated"} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "scheduler_pending_pods", ConstLabels: prometheus.Labels{"queue": queue},
			Help: "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.",
		}, func() float64 { return float64(s.queue.pending()[queue]) }))
	}
	for _, kind := range []string{"nodes", "pods", "assumed_pods"} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "scheduler_cache_size", ConstLabels: prometheus.Labels{"type": kind}, Help: "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
		}, func() float64 { return float64(s.snapshot.size()[kind]) }))
	}
	return m
}

// Results of an attempt.
const (
	scheduled     = "scheduled"
	unschedulable = "unschedulable"
	failure       = "error"
)

// attempted observes the end of an attempt that began at begin.
func (s *Scheduler) attempted(result string, begin time.Time) {
	s.metrics.attempts.WithLabelValues(result, s.SchedulerName).Inc()
	s.metrics.attemptDuration.WithLabelValues(result, s.SchedulerName).Observe(s.Clock.Since(begin).Seconds())
}

// placed observes a pod that is bound.
func (s *Scheduler) placed(w *waiter, begin time.Time) {
	s.attempted(scheduled, begin)
	s.metrics.podAttempts.Observe(float64(w.attempts))
	attempts := strconv.Itoa(w.attempts)
	if w.attempts > 15 {
		attempts = "16+"
	}
	s.metrics.sli.WithLabelValues(attempts).Observe(s.Clock.Since(w.added).Seconds())
}

// refusals counts a pod in, or out, of the pods refused by the plugins.
func (s *Scheduler) refusals(by sets.Set[string], n float64) {
	for plugin := range by {
		s.metrics.unschedulable.WithLabelValues(plugin, s.SchedulerName).Add(n)
	}
}
