package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/go-logr/logr/testr"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/podtest"
	"keelson.dev/keelson/test/harness/realnode"
)

const (
	namespace = "default"
	port      = 8090
)

// env is a cluster with the definitions of the Gateway API.
type env struct {
	*testing.T
	client.Client
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// definitions returns the objects that the Gateway API's module has for its standard
// channel.
func (e *env) definitions() (out []*unstructured.Unstructured) {
	e.Helper()
	dir, err := exec.CommandContext(e.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	e.must(err)
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "config/crd/standard/*.yaml"))
	e.must(err)
	for _, name := range files {
		f, err := os.Open(name)
		e.must(err)
		defer f.Close()
		for d := yaml.NewYAMLOrJSONDecoder(f, 4096); ; {
			o := &unstructured.Unstructured{}
			if err := d.Decode(o); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				e.Fatalf("%s: %v", name, err)
			}
			if len(o.Object) > 0 {
				out = append(out, o)
			}
		}
	}
	if len(out) < 10 {
		e.Fatalf("%d definitions in %s", len(out), dir)
	}
	return out
}

// install applies the definitions as kubectl apply --server-side does, and waits until
// they are served.
func (e *env) install(all []*unstructured.Unstructured) {
	e.Helper()
	for _, o := range all {
		e.must(e.Apply(e.Context(), client.ApplyConfigurationFromUnstructured(o.DeepCopy()), client.FieldOwner("kubectl")))
	}
	for _, o := range all {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		harness.Succeeds(e, o.GetName(), func() error {
			d := &apiextensionsv1.CustomResourceDefinition{}
			if err := e.Get(e.Context(), client.ObjectKey{Name: o.GetName()}, d); err != nil {
				return err
			}
			for _, c := range d.Status.Conditions {
				if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
					return nil
				}
			}
			return fmt.Errorf("%+v", d.Status.Conditions)
		})
	}
}

// control runs the controller until the end of the test.
func (e *env) control(n *realnode.Node, scheme *runtime.Scheme, address netip.Addr) {
	e.Helper()
	log.SetLogger(testr.New(e.T))
	m, err := ctrl.NewManager(n.Config, ctrl.Options{Scheme: scheme, Metrics: server.Options{BindAddress: "0"}})
	e.must(err)
	c := &controller{Client: m.GetClient(), address: address, nginx: &nginx{Nginx: harness.Nginx{Dir: e.TempDir()}}}
	e.must(c.setUp(m))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Start(ctx) }()
	e.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, c.nginx.Stop()); err != nil {
			e.Error(err)
		}
	})
}

// web makes a pod of the demo image and its Service, and returns the pod's node's address.
func (e *env) web(name string) netip.Addr {
	e.Helper()
	labels := map[string]string{"app": name}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "keelson.local/demo",
		ReadinessProbe: &v1.Probe{PeriodSeconds: 1, ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(80)}}}}}}}
	e.must(e.Create(e.Context(), pod))
	e.must(e.Create(e.Context(), &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1.ServiceSpec{Selector: labels,
		Ports: []v1.ServicePort{{Name: "http", Port: 8080, TargetPort: intstr.FromInt32(80)}}}}))
	harness.Succeeds(e, "the pod "+name, func() error {
		if err := e.Get(e.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if !podtest.Ready(pod) {
			return fmt.Errorf("it is %s", pod.Status.Phase)
		}
		return nil
	})
	return netip.MustParseAddr(pod.Status.HostIP)
}

// get sends a request with a host to the Gateway.
func (e *env) get(at, host, path string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(e.Context(), http.MethodGet, "http://"+net.JoinHostPort(at, fmt.Sprint(port))+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = host
	resp, err := (&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// answers waits for a status, and a beginning of the body.
func (e *env) answers(at, host, path string, status int, begin string) {
	e.Helper()
	harness.Succeeds(e, "the answer to "+host+path, func() error {
		got, body, err := e.get(at, host, path)
		if err == nil && (got != status || !strings.HasPrefix(body, begin)) {
			err = fmt.Errorf("%d %q, want %d %q", got, body, status, begin)
		}
		return err
	})
}

// condition waits for a condition of an object.
func (e *env) condition(o client.Object, conditions func() []metav1.Condition, kind gatewayv1.RouteConditionType, status metav1.ConditionStatus, reason string) {
	e.Helper()
	harness.Succeeds(e, fmt.Sprintf("%s of %s", kind, o.GetName()), func() error {
		if err := e.Get(e.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		c := meta.FindStatusCondition(conditions(), string(kind))
		if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != o.GetGeneration() {
			return fmt.Errorf("%+v", conditions())
		}
		return nil
	})
}

// TestGateway reaches Services through a Gateway and its HTTPRoutes.
func TestGateway(t *testing.T) {
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Fatalf("%v: this test runs Debian's nginx: install it (make test does)", err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, gatewayv1.Install, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	n := realnode.Start(t, agent.Options{})
	c, err := client.New(n.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	e := &env{t, c}
	definitions := e.definitions()
	e.install(definitions)
	address := e.web("one")
	e.web("two")
	e.control(n, scheme, address)

	class := &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "nginx"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: ControllerName}}
	e.must(e.Create(t.Context(), class))
	listener := gatewayv1.Listener{Name: "http", Protocol: gatewayv1.HTTPProtocolType, Port: port, Hostname: ptr.To(gatewayv1.Hostname("*.example"))}
	gateway := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"}, Spec: gatewayv1.GatewaySpec{GatewayClassName: "nginx", Listeners: []gatewayv1.Listener{listener}}}

	// The rules of the definitions hold: names of listeners are unique.
	twice := gateway.DeepCopy()
	twice.Spec.Listeners = append(twice.Spec.Listeners, listener)
	twice.Spec.Listeners[1].Port++
	if err := e.Create(t.Context(), twice); !apierrors.IsInvalid(err) {
		t.Errorf("a Gateway with two listeners of one name: %v", err)
	}
	e.must(e.Create(t.Context(), gateway))
	e.condition(class, func() []metav1.Condition { return class.Status.Conditions }, "Accepted", metav1.ConditionTrue, "Accepted")
	e.condition(gateway, func() []metav1.Condition { return gateway.Status.Conditions }, "Programmed", metav1.ConditionTrue, "Programmed")
	if a := gateway.Status.Addresses; len(a) != 1 || a[0].Value != address.String() {
		t.Fatalf("the Gateway has the addresses %v", a)
	}
	at := gateway.Status.Addresses[0].Value
	e.answers(at, "one.example", "/", http.StatusNotFound, "")

	to := func(name string, weight int32) gatewayv1.HTTPBackendRef {
		return gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{Weight: &weight, BackendObjectReference: gatewayv1.BackendObjectReference{Name: gatewayv1.ObjectName(name), Port: ptr.To[gatewayv1.PortNumber](8080)}}}
	}
	match := func(kind gatewayv1.PathMatchType, path string) []gatewayv1.HTTPRouteMatch {
		return []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: &kind, Value: &path}}}
	}
	route := func(name string, hosts []gatewayv1.Hostname, rules ...gatewayv1.HTTPRouteRule) *gatewayv1.HTTPRoute {
		r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "web"}}}, Hostnames: hosts, Rules: rules}}
		e.must(e.Create(t.Context(), r))
		return r
	}
	conditions := func(r *gatewayv1.HTTPRoute) func() []metav1.Condition {
		return func() []metav1.Condition {
			if len(r.Status.Parents) != 1 {
				return nil
			}
			return r.Status.Parents[0].Conditions
		}
	}
	web := route("web", []gatewayv1.Hostname{"one.example"},
		gatewayv1.HTTPRouteRule{Matches: match(gatewayv1.PathMatchPathPrefix, "/two"), BackendRefs: []gatewayv1.HTTPBackendRef{to("two", 1)}},
		gatewayv1.HTTPRouteRule{BackendRefs: []gatewayv1.HTTPBackendRef{to("one", 1)}}) // the default of its match is all paths
	e.condition(web, conditions(web), gatewayv1.RouteConditionAccepted, metav1.ConditionTrue, "Accepted")
	e.condition(web, conditions(web), gatewayv1.RouteConditionResolvedRefs, metav1.ConditionTrue, "ResolvedRefs")
	e.answers(at, "one.example", "/", http.StatusOK, "Hello from one\n")
	e.answers(at, "one.example", "/twofold", http.StatusOK, "Hello from one\n")
	e.answers(at, "one.example", "/two/a", http.StatusOK, "Hello from two\nGET /two/a\n")
	e.answers(at, "other.example", "/", http.StatusNotFound, "")
	harness.Succeeds(t, "the number of routes", func() error {
		if err := e.Get(t.Context(), client.ObjectKeyFromObject(gateway), gateway); err != nil {
			return err
		}
		if l := gateway.Status.Listeners; len(l) != 1 || l[0].AttachedRoutes != 1 {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})

	// Both Services by their weights.
	split := route("split", []gatewayv1.Hostname{"split.example"}, gatewayv1.HTTPRouteRule{BackendRefs: []gatewayv1.HTTPBackendRef{to("one", 3), to("two", 1)}})
	e.condition(split, conditions(split), gatewayv1.RouteConditionAccepted, metav1.ConditionTrue, "Accepted")
	e.answers(at, "split.example", "/", http.StatusOK, "Hello from ")
	var seen map[string]int
	harness.Succeeds(t, "answers of the two Services alone", func() error { // nginx's former processes still take some connections
		seen = map[string]int{}
		for range 40 {
			_, body, err := e.get(at, "split.example", "/")
			e.must(err)
			name, _, _ := strings.Cut(strings.TrimPrefix(body, "Hello from "), "\n")
			seen[name]++
		}
		if seen["one"]+seen["two"] != 40 {
			return fmt.Errorf("%v", seen)
		}
		return nil
	})
	if seen["one"] < 25 || seen["two"] < 5 {
		t.Errorf("of 40 answers with the weights 3 and 1: %v", seen)
	}

	// A pod in place of another is followed.
	e.must(e.Delete(t.Context(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "two"}}, client.GracePeriodSeconds(0)))
	e.must(e.Create(t.Context(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "three", Labels: map[string]string{"app": "two"}}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "keelson.local/demo"}}}}))
	e.answers(at, "one.example", "/two/", http.StatusOK, "Hello from three\n")

	// A Service that does not exist, and a name that no listener has.
	missing := route("missing", []gatewayv1.Hostname{"missing.example"}, gatewayv1.HTTPRouteRule{BackendRefs: []gatewayv1.HTTPBackendRef{to("none", 1)}})
	e.condition(missing, conditions(missing), gatewayv1.RouteConditionResolvedRefs, metav1.ConditionFalse, "BackendNotFound")
	e.answers(at, "missing.example", "/", http.StatusInternalServerError, "")
	elsewhere := route("elsewhere", []gatewayv1.Hostname{"one.test"}, gatewayv1.HTTPRouteRule{BackendRefs: []gatewayv1.HTTPBackendRef{to("one", 1)}})
	e.condition(elsewhere, conditions(elsewhere), gatewayv1.RouteConditionAccepted, metav1.ConditionFalse, "NoMatchingListenerHostname")

	e.must(e.Delete(t.Context(), web))
	e.answers(at, "one.example", "/", http.StatusNotFound, "")

	// The API's policy that guards its own definitions holds, too.
	for _, o := range definitions {
		if o.GetName() != "httproutes.gateway.networking.k8s.io" {
			continue
		}
		annotations := o.GetAnnotations()
		annotations["gateway.networking.k8s.io/bundle-version"] = "v1.2.0"
		o.SetAnnotations(annotations)
		err := e.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("kubectl"), client.ForceOwnership)
		if err == nil || !strings.Contains(err.Error(), "Installing CRDs with version before v1.5.0 is prohibited") {
			t.Errorf("an older definition: %v", err)
		}
	}
}
