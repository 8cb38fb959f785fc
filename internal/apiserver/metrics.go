package apiserver

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	endpointmetrics "k8s.io/apiserver/pkg/endpoints/metrics"
	componentmetrics "k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/restclient" // requests to other servers
	"k8s.io/component-base/metrics/prometheus/slis"
	_ "k8s.io/component-base/metrics/prometheus/version"   // kubernetes_build_info
	_ "k8s.io/component-base/metrics/prometheus/workqueue" // the controllers' queues

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
)

// metrics are the server's own, under upstream's names.
type metrics struct {
	requests, watchEvents       *prometheus.CounterVec
	terminated                  *prometheus.CounterVec
	duration, sli               *prometheus.HistogramVec
	longRunning                 *prometheus.GaugeVec
	attempts, decisions         *prometheus.CounterVec
	authenticated, refused      prometheus.Counter
	allowed, denied, undecided  prometheus.Counter
	inflightRead, inflightWrite atomic.Int64
	series                      sync.Map // seriesKey → *series
}

// seriesKey holds the labels that the requests of one series share.
type seriesKey struct {
	verb, group, version, resource, subresource, scope string
	dryRun                                             bool
}

// series holds the metrics of the requests of one key, so that they are looked
// up once.
type series struct {
	duration, sli prometheus.Observer
	byCode        sync.Map // int → prometheus.Counter
}

func newMetrics(reg *prometheus.Registry, cat *catalogue.Catalogue, s store.Store) *metrics {
	labels := []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		requests: counter("apiserver_request_total", "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.", append(labels[:len(labels):len(labels)], "code")...),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_request_duration_seconds",
			Help:    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
		}, labels),
		sli: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_request_sli_duration_seconds",
			Help:    "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
			Buckets: []float64{0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 6, 8, 10, 15, 20, 30, 45, 60},
		}, []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}),
		longRunning: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests",
			Help: "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
		}, []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}),
		watchEvents: counter("apiserver_watch_events_total", "Number of events sent in watch clients", "group", "version", "resource"),
		terminated:  counter("apiserver_terminated_watchers_total", "Counter of watchers closed due to unresponsiveness broken by resource type.", "group", "resource"),
		attempts:    counter("authentication_attempts", "Counter of authenticated attempts.", "result"),
		decisions:   counter("authorization_attempts_total", "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.", "result"),
	}
	m.authenticated, m.refused = m.attempts.WithLabelValues("success"), m.attempts.WithLabelValues("failure")
	m.allowed, m.denied, m.undecided = m.decisions.WithLabelValues("allowed"), m.decisions.WithLabelValues("denied"), m.decisions.WithLabelValues("no-opinion")
	inflight := func(kind string, n *atomic.Int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apiserver_current_inflight_requests", Help: "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
			ConstLabels: prometheus.Labels{"request_kind": kind},
		}, func() float64 { return float64(n.Load()) })
	}
	reg.MustRegister(m.requests, m.duration, m.sli, m.longRunning, m.watchEvents, m.terminated, m.attempts, m.decisions,
		inflight("readOnly", &m.inflightRead), inflight("mutating", &m.inflightWrite), &objects{cat, s})
	return m
}

// objects counts the stored objects when metrics are collected.
type objects struct {
	cat   *catalogue.Catalogue
	store store.Store
}

var objectsDesc = prometheus.NewDesc("apiserver_resource_objects", "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.", []string{"group", "resource"}, nil)

// Describe implements prometheus.Collector.
func (o *objects) Describe(ch chan<- *prometheus.Desc) { ch <- objectsDesc }

// Collect implements prometheus.Collector.
func (o *objects) Collect(ch chan<- prometheus.Metric) {
	seen := map[schema.GroupResource]bool{}
	for _, row := range o.cat.Rows() {
		gr := row.GroupVersionResource.GroupResource()
		if row.NotStored || seen[gr] {
			continue
		}
		seen[gr] = true
		ch <- prometheus.MustNewConstMetric(objectsDesc, prometheus.GaugeValue, float64(o.store.Count(row.Prefix(""))), gr.Group, gr.Resource)
	}
}

var metricVerbs = map[string]string{"get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETECOLLECTION"}

// key returns the key of the series that counts the request.
func (r *call) key() seriesKey {
	i := r.info
	k := seriesKey{verb: metricVerbs[i.Verb], group: i.APIGroup, version: i.APIVersion, resource: i.Resource, subresource: i.Subresource, dryRun: strings.Contains(r.req.URL.RawQuery, "dryRun=All")}
	switch {
	case !i.IsResourceRequest:
		k.verb, k.subresource = method(r.req.Method), nonResource(i.Path)
		return k
	case i.Name != "" || i.Verb == "create":
		k.scope = "resource"
	case i.Namespace != "":
		k.scope = "namespace"
	default:
		k.scope = "cluster"
	}
	switch {
	case i.Subresource != "" && r.connects():
		k.verb = "CONNECT"
	case k.verb == "PATCH" && r.req.Header.Get("Content-Type") == "application/apply-patch+yaml":
		k.verb = "APPLY"
	}
	return k
}

// connects reports whether the request opens a connection (exec, attach,
// port-forward, proxy).
func (r *call) connects() bool {
	row := r.s.Catalogue.Lookup(r.info.APIGroup, r.info.APIVersion, r.info.Resource)
	return row != nil && slices.ContainsFunc(row.Subresources, func(s api.Subresource) bool {
		return s.Name == r.info.Subresource && len(s.Methods) > 0
	})
}

// method returns the label for a request's method. Unknown methods share one
// label, so that clients cannot add labels.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead:
		return http.MethodGet
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect:
		return m
	}
	return endpointmetrics.OtherRequestMethod
}

// nonResource returns the label for a path. Paths that are not served share one,
// so that clients cannot add labels.
func nonResource(path string) string {
	switch path {
	case "/healthz", "/livez", "/readyz", "/metrics", "/version", "/api", "/apis", "/openapi/v2", "/openapi/v3":
		return path
	}
	return ""
}

func (m *metrics) of(k seriesKey) *series {
	if s, ok := m.series.Load(k); ok {
		return s.(*series)
	}
	s := &series{
		duration: m.duration.WithLabelValues(k.verb, dryRunLabel(k.dryRun), k.group, k.version, k.resource, k.subresource, k.scope, component),
		sli:      m.sli.WithLabelValues(k.verb, k.group, k.version, k.resource, k.subresource, k.scope, component),
	}
	kept, _ := m.series.LoadOrStore(k, s)
	return kept.(*series)
}

const component = "apiserver"

func dryRunLabel(dry bool) string {
	if dry {
		return "All"
	}
	return ""
}

// begin counts a request as being served, and returns the gauge to decrease at
// its end.
func (m *metrics) begin(r *call) *atomic.Int64 {
	n := &m.inflightRead
	switch r.info.Verb {
	case "get", "list", "watch":
	default:
		if r.info.IsResourceRequest {
			n = &m.inflightWrite
		}
	}
	n.Add(1)
	return n
}

func (m *metrics) observe(r *call, took time.Duration) {
	if r.info.IsResourceRequest && r.row == nil {
		return // resources that are not served have no series of their own: clients could invent any number
	}
	k := r.key()
	s := m.of(k)
	c, ok := s.byCode.Load(r.code)
	if !ok {
		c, _ = s.byCode.LoadOrStore(r.code, m.requests.WithLabelValues(k.verb, dryRunLabel(k.dryRun), k.group, k.version, k.resource, k.subresource, k.scope, component, strconv.Itoa(r.code)))
	}
	c.(prometheus.Counter).Inc()
	if k.verb != "WATCH" && k.verb != "CONNECT" {
		observe(s.duration, took.Seconds(), r.traced)
		s.sli.Observe(took.Seconds())
	}
}

// observe adds an observation, with its place in a distributed trace as an exemplar, if it
// has one.
func observe(o prometheus.Observer, v float64, at trace.Context) {
	e, ok := o.(prometheus.ExemplarObserver)
	if !ok || !at.IsValid() || at.Unsampled {
		o.Observe(v)
		return
	}
	e.ObserveWithExemplar(v, prometheus.Labels{"trace_id": at.TraceID.String(), "span_id": at.SpanID.String()})
}

func (m *metrics) watching(r *call, n float64) {
	k := r.key()
	m.longRunning.WithLabelValues(k.verb, k.group, k.version, k.resource, k.subresource, k.scope, component).Add(n)
}

// seen returns the counter of the events of a row's watches.
func (m *metrics) seen(row *api.Resource) prometheus.Counter {
	return m.watchEvents.WithLabelValues(row.Group, row.Version, row.Resource)
}

// identified counts an authentication, and whether it failed.
func (m *metrics) identified(u user.Info, err error) {
	switch {
	case err != nil:
		m.refused.Inc()
	case u.GetName() != user.Anonymous:
		m.authenticated.Inc()
	}
}

// serveMetrics serves the server's own metrics and those of upstream's
// libraries, to clients that ask for OpenMetrics with exemplars.
func (r documents) serveMetrics() error {
	r.code = http.StatusOK
	all := prometheus.Gatherers{r.s.Metrics, legacyregistry.DefaultGatherer}
	promhttp.HandlerFor(without(all, r.s.HiddenMetrics), promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true}).ServeHTTP(r.w, r.req)
	return nil
}

// without returns g without the named metrics.
func without(g prometheus.Gatherer, names []string) prometheus.Gatherer {
	if len(names) == 0 {
		return g
	}
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		all, err := g.Gather()
		return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return slices.Contains(names, f.GetName()) }), err
	})
}

// registerSLIs makes the process's registry of the results of health checks.
var registerSLIs = sync.OnceValue(func() componentmetrics.KubeRegistry {
	slis.Register(slis.Registry)
	return slis.Registry
})

// serveSLIs serves the results of health checks, for scraping at a high rate
// (KEP-3466).
func (r documents) serveSLIs() error {
	r.code = http.StatusOK
	componentmetrics.HandlerFor(registerSLIs(), componentmetrics.HandlerOpts{ErrorHandling: componentmetrics.ContinueOnError}).ServeHTTP(r.w, r.req)
	return nil
}
