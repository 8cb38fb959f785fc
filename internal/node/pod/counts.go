package pod

import (
	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/node/podspec"
)

// counts are the kubelet's metrics of how many pods and containers the node has.
type counts struct{ *Manager }

// Counts returns the metrics of how many pods and containers the node has.
func (m *Manager) Counts() prometheus.Collector { return counts{m} }

func count(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("kubelet_"+name, help, labels, nil)
}

var (
	runningPods       = count("running_pods", "Number of pods that have a running pod sandbox")
	runningContainers = count("running_containers", "Number of containers currently running", "container_state")
	desiredPods       = count("desired_pods", "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.", "static")
	activePods        = count("active_pods", "The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.", "static")
	mirrorPods        = count("mirror_pods", "The number of mirror pods the kubelet will try to create (one per admitted static pod)")
	workingPods       = count("working_pods", "Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod is desired, orphaned, or runtime only (also orphaned), and whether the pod is static. An orphaned pod has been removed from local configuration or force deleted in the API and consumes resources that are not otherwise visible.",
		"lifecycle", "config", "static")
	ephemeralContainers = count("managed_ephemeral_containers", "Current number of ephemeral containers in pods managed by this kubelet.")
	pendingResizes      = count("pod_pending_resizes", "Number of pending resizes for pods.", "reason")
	resizesInProgress   = count("pod_in_progress_resizes", "Number of in-progress resizes for pods.")
)

// Describe implements prometheus.Collector.
func (counts) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{runningPods, runningContainers, desiredPods, activePods, mirrorPods, workingPods, ephemeralContainers, pendingResizes, resizesInProgress} {
		out <- d
	}
}

// stage is where a worker is in the life of its pod.
type stage struct {
	pod               *v1.Pod
	lifecycle, config string
	static            string // "true", or "" for a pod of the API
}

// stages returns where all workers are.
func (m *Manager) stages() (out []stage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
		s := stage{w.snapshot(), "sync", "desired", ""}
		w.mu.Lock()
		gone := w.gone
		w.mu.Unlock()
		if gone {
			s.config = "orphan"
		}
		switch {
		case w.ending.over():
			s.lifecycle = "terminated"
		case gone, s.pod.DeletionTimestamp != nil, w.ending.imposed.Load() != nil, podspec.Terminal(s.pod.Status.Phase):
			s.lifecycle = "terminating"
		}
		if w.isStatic {
			s.static = "true"
		}
		out = append(out, s)
	}
	return out
}

// Collect implements prometheus.Collector.
func (c counts) Collect(out chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, n int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	both := func() map[string]int { return map[string]int{"": 0, "true": 0} }
	running, mirrors, ephemerals, resizing := 0, 0, 0, 0
	desired, active := both(), both()
	states := map[string]int{"running": 0, "exited": 0, "created": 0, "unknown": 0}
	working := map[[3]string]int{}
	for _, lifecycle := range []string{"sync", "terminating", "terminated"} {
		for _, config := range []string{"desired", "orphan"} {
			working[[3]string{lifecycle, config, ""}], working[[3]string{lifecycle, config, "true"}] = 0, 0
		}
	}
	waiting := map[string]int{"deferred": 0, "infeasible": 0}
	for _, s := range c.stages() {
		working[[3]string{s.lifecycle, s.config, s.static}]++
		if s.config == "desired" {
			desired[s.static]++
		}
		if !podspec.Terminal(s.pod.Status.Phase) {
			active[s.static]++
			if s.static != "" && s.config == "desired" {
				mirrors++
			}
		}
		if s.pod.Status.Phase == v1.PodRunning {
			running++
		}
		ephemerals += len(s.pod.Spec.EphemeralContainers)
		for i := range s.pod.Status.Conditions {
			switch cond := &s.pod.Status.Conditions[i]; {
			case cond.Type == v1.PodResizeInProgress:
				resizing++
			case cond.Type == v1.PodResizePending && cond.Reason == v1.PodReasonDeferred:
				waiting["deferred"]++
			case cond.Type == v1.PodResizePending:
				waiting["infeasible"]++
			}
		}
		for _, l := range [][]v1.ContainerStatus{s.pod.Status.InitContainerStatuses, s.pod.Status.ContainerStatuses, s.pod.Status.EphemeralContainerStatuses} {
			for i := range l {
				switch st := &l[i].State; {
				case st.Running != nil:
					states["running"]++
				case st.Terminated != nil:
					states["exited"]++
				case l[i].ContainerID != "":
					states["created"]++
				}
			}
		}
	}
	put(runningPods, running)
	put(mirrorPods, mirrors)
	put(ephemeralContainers, ephemerals)
	put(resizesInProgress, resizing)
	for state, n := range states {
		put(runningContainers, n, state)
	}
	for static := range desired {
		put(desiredPods, desired[static], static)
		put(activePods, active[static], static)
	}
	for labels, n := range working {
		put(workingPods, n, labels[:]...)
	}
	for reason, n := range waiting {
		put(pendingResizes, n, reason)
	}
}
