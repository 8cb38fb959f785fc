package cluster

import (
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/apiserver/controlplane"
)

// TestMetrics asks for what upstream's dashboards and alerts are made of.
func TestMetrics(t *testing.T) {
	c := boot(t, Options{Options: controlplane.Options{Listen: "127.0.0.1:0", NoDrain: true}, NoScheduler: true})
	// A user that is not exempt has the priority levels read.
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := c.Certs.ClientCert("u", nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.CertData, cfg.KeyData = pair.Cert, pair.Key
	if _, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Fatalf("a list by nobody in particular: %v", err)
	}
	// No component reads limit ranges one by one: the requests are the test's.
	const path = "/api/v1/namespaces/default/limitranges"
	for _, r := range [][3]string{{"POST", path, `{"apiVersion":"v1","kind":"LimitRange","metadata":{"name":"a"}}`}, {"GET", path + "/a", ""}, {"GET", path + "/b", ""}, {"GET", path, ""},
		{"POST", path + "?dryRun=All", `{"apiVersion":"v1","kind":"LimitRange","metadata":{"name":"c"}}`}, {"GET", "/healthz", ""}, {"GET", "/no/such/path", ""},
		{"BREW", "/coffee", ""}, {"GET", path + "/a/nosuchpart", ""}} {
		ask(c, r[0], r[1], r[2])
	}
	w := ask(c, "GET", "/metrics", "")
	text := w.Body.String()
	if w.Code != http.StatusOK {
		t.Fatal(text)
	}
	for _, want := range []string{
		`apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="limitranges",scope="resource",subresource="",verb="POST",version="v1"} `,
		`apiserver_request_total{code="201",component="apiserver",dry_run="All",group="",resource="limitranges",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="limitranges",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="limitranges",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="",scope="",subresource="/healthz",verb="GET",version=""} 1`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="",scope="",subresource="",verb="other",version=""} 1`,
		`apiserver_request_sli_duration_seconds_bucket{component="apiserver",group="",resource="limitranges",scope="namespace",subresource="",verb="LIST",version="v1",le="0.05"} `,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="limitranges",scope="namespace",subresource="",verb="LIST",version="v1"} `,
		`apiserver_current_inflight_requests{request_kind="mutating"} `, `apiserver_resource_objects{group="",resource="limitranges"} `,
		`authorization_attempts_total{result="allowed"} `, `apiserver_flowcontrol_nominal_limit_seats{priority_level="workload-low"} `,
		`apiserver_admission_controller_admission_duration_seconds_count{name="NamespaceLifecycle",operation="CREATE",rejected="false",type="admit"} `,
		`apiserver_admission_step_admission_duration_seconds_count{operation="CREATE",rejected="false",type="validate"} `,
		`workqueue_depth{name="deployment"} `, "process_cpu_seconds_total ", "go_goroutines ", "kubernetes_build_info{",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	for _, invented := range []string{"/no/such/path", "BREW", "nosuchpart"} {
		if strings.Contains(text, invented) {
			t.Errorf("%s is in a label, and nobody serves it", invented)
		}
	}
}
