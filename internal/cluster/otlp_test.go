package cluster

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/scheduler"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/otlp"
	"keelson.dev/keelson/test/harness"
)

// receiver is a collector that keeps what it is sent.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	mu  sync.Mutex
	all []received
}

type received struct {
	*spans.Span
	service string
}

// Export implements collector.TraceServiceServer.
func (r *receiver) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		service := ""
		for _, a := range rs.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				r.all = append(r.all, received{s, service})
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// ServeHTTP is OTLP over HTTP.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var in collector.ExportTraceServiceRequest
	body, err := io.ReadAll(req.Body)
	if err == nil {
		err = proto.Unmarshal(body, &in)
	}
	if err != nil || req.URL.Path != "/v1/traces" {
		http.Error(w, "no spans", http.StatusBadRequest)
		return
	}
	out, _ := r.Export(req.Context(), &in)
	body, _ = proto.Marshal(out)
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(body)
}

// in returns the spans of a trace.
func (r *receiver) in(id trace.TraceID) (out []received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.all {
		if trace.TraceID(s.TraceId) == id {
			out = append(out, s)
		}
	}
	return out
}

// TestOneTrace makes a Deployment as a client that has sent a traceparent, with a
// webhook and a scheduler in a process of its own, and gets one trace from the client's span
// to the running pods.
func TestOneTrace(t *testing.T) {
	for _, protocol := range []string{"http", "grpc"} {
		t.Run(protocol, func(t *testing.T) { oneTrace(t, protocol) })
	}
}

func oneTrace(t *testing.T, protocol string) {
	r := &receiver{}
	endpoint := ""
	if protocol == "http" {
		s := httptest.NewServer(r)
		defer s.Close()
		endpoint = s.URL
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		collector.RegisterTraceServiceServer(s, r)
		go func() { _ = s.Serve(l) }()
		defer s.Stop()
		endpoint = "grpc://" + l.Addr().String()
	}
	c := boot(t, Options{Options: controlplane.Options{Listen: "127.0.0.1:0", NoDrain: true, OTLP: otlp.Options{Endpoint: endpoint, Sampling: 1}}, NoScheduler: true, SimNodes: 2})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- scheduler.RunProcess(ctx, component.Options{Kubeconfig: identity(t, c, user.KubeScheduler)})
	}()
	defer func() { stop(); <-ended }()

	var mu sync.Mutex
	told := map[string]bool{}
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		told[req.Header.Get("Traceparent")] = true
		mu.Unlock()
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(req.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(&review)
	}))
	defer hook.Close()
	admin := c.Client(inprocess.Admin)
	none := admissionregistrationv1.SideEffectClassNone
	if _, err := admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "hook"}, Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: "pods.example.com", SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &hook.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})},
			Rules: []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{"CREATE"},
				Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	cfg, err := clientcmd.BuildConfigFromFlags("", identity(t, c, "jane"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Wrap(trace.Propagate)
	jane, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "jane"},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"}, Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "jane"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	parent := trace.NewContext()
	d := deployment("web", 2)
	// The webhook counts once the API server knows of it.
	harness.Eventually(t, "the webhook to be asked", func() bool {
		probe := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: d.Spec.Template.Spec}
		_, err := admin.CoreV1().Pods("default").Create(t.Context(), probe, metav1.CreateOptions{DryRun: []string{"All"}})
		mu.Lock()
		defer mu.Unlock()
		return err == nil && len(told) > 0
	})
	if _, err := jane.AppsV1().Deployments("default").Create(trace.WithContext(t.Context(), parent), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "two available replicas", func() bool {
		got, err := admin.AppsV1().Deployments("default").Get(t.Context(), d.Name, metav1.GetOptions{})
		return err == nil && got.Status.AvailableReplicas == 2
	})
	want := []string{"create deployments.apps", "reconcile: create replicasets.apps", "create replicasets.apps", "create pods", "schedule", "update pods binding", "simulate", "webhook pods.example.com", "store"}
	var names map[string]int
	defer func() {
		if t.Failed() {
			t.Log("spans:", names)
		}
	}()
	harness.Eventually(t, "all spans", func() bool { // a pod may be tried again
		names = map[string]int{}
		running := false
		for _, s := range r.in(parent.TraceID) {
			names[s.Name]++
			running = running || strings.HasSuffix(s.Name, "pods status")
		}
		return running && names["schedule"] >= 2 && names["simulate"] >= 2
	})
	for _, n := range want {
		if names[n] == 0 {
			t.Errorf("no span %q among %v", n, slices.Sorted(maps.Keys(names)))
		}
	}
	ids, services := map[string]bool{string(parent.SpanID[:]): true}, map[string]bool{}
	all := r.in(parent.TraceID)
	for _, s := range all {
		if ids[string(s.SpanId)] {
			t.Errorf("two spans have the ID of %s", s.Name)
		}
		ids[string(s.SpanId)], services[s.service] = true, true
	}
	for _, s := range all {
		if !ids[string(s.ParentSpanId)] {
			t.Errorf("the span %s is below none of its trace", s.Name)
		}
		if s.EndTimeUnixNano < s.StartTimeUnixNano {
			t.Errorf("the span %s ends before it begins", s.Name)
		}
		if s.Name == "create deployments.apps" && trace.SpanID(s.ParentSpanId) != parent.SpanID {
			t.Errorf("the request is below %x, want the client's span %s", s.ParentSpanId, parent.SpanID)
		}
	}
	for _, s := range []string{"kube-apiserver", "deployment-controller", "replicaset-controller", "scheduler", "simulator"} {
		if !services[s] {
			t.Errorf("no span of %s among those of %v", s, slices.Sorted(maps.Keys(services)))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	hooked := 0
	for p := range told {
		if strings.HasPrefix(p, "00-"+parent.TraceID.String()+"-") && strings.HasSuffix(p, "-01") {
			hooked++
		}
	}
	if hooked != 2 {
		t.Errorf("the webhook is told of %d places in the trace, want one for each pod: %v", hooked, slices.Sorted(maps.Keys(told)))
	}
}
