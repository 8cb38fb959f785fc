package aggregation_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/test/aggregation"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/etcdtest"
	"keelson.dev/keelson/testcluster"
)

// asKubectl, in the environment, makes the test's own program run as kubectl.
const asKubectl = "AGGREGATION_AS_KUBECTL"

func TestMain(m *testing.M) {
	if os.Getenv(asKubectl) != "" {
		if err := cmd.NewDefaultKubectlCommand().Execute(); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	group = "wardle.example.com"
	alpha = "v1alpha1." + group
	beta  = "v1beta1." + group
)

var (
	flunders = schema.GroupVersionResource{Group: group, Version: "v1alpha1", Resource: "flunders"}
	fischers = schema.GroupVersionResource{Group: group, Version: "v1alpha1", Resource: "fischers"}
	create   = metav1.CreateOptions{}
	update   = metav1.UpdateOptions{}
	get      = metav1.GetOptions{}
)

// rights are the rights that the sample API server needs here: to read the
// namespaces and policies that its admission uses and the objects of its
// fairness, to review tokens and accesses, and to read which proxies to trust.
const rights = `
apiVersion: v1
kind: Namespace
metadata: {name: wardle}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: apiserver, namespace: wardle}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: wardle-server}
rules:
- {apiGroups: [""], resources: [namespaces], verbs: [get, list, watch]}
- {apiGroups: [admissionregistration.k8s.io], resources: ["*"], verbs: [get, list, watch]}
- {apiGroups: [flowcontrol.apiserver.k8s.io], resources: [flowschemas, prioritylevelconfigurations], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: wardle-server}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: wardle-server}
subjects: [{kind: ServiceAccount, name: apiserver, namespace: wardle}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "wardle:system:auth-delegator"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: apiserver, namespace: wardle}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: wardle-auth-reader, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: apiserver, namespace: wardle}]
`

// env is a control plane, and a sample API server beside it.
type env struct {
	*testing.T
	ctx         context.Context
	cfg         *rest.Config
	core        kubernetes.Interface
	dynamic     dynamic.Interface
	apiServices aggregator.Interface
	kubeconfig  string

	// program is the path of the sample API server, log that of its log.
	program, log string
	args         []string
	address      *net.TCPAddr
	ca           []byte
	process      *exec.Cmd
}

func start(t *testing.T) *env {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cfg := testcluster.Start(t).Config
	cfg.QPS = -1
	e := &env{T: t, ctx: ctx, cfg: cfg, core: kubernetes.NewForConfigOrDie(cfg), dynamic: dynamic.NewForConfigOrDie(cfg),
		apiServices: aggregator.NewForConfigOrDie(cfg)}
	e.kubeconfig = e.writeKubeconfig("admin", cfg)
	return e
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) writeKubeconfig(name string, who *rest.Config) string {
	e.Helper()
	path := filepath.Join(e.TempDir(), name)
	e.must(harness.WriteKubeconfig(path, who))
	return path
}

func (e *env) kubectl(stdin string, args ...string) (string, error) {
	e.Helper()
	self, err := os.Executable()
	e.must(err)
	c := exec.CommandContext(e.ctx, self, append([]string{"--kubeconfig", e.kubeconfig, "--cache-dir", e.TempDir()}, args...)...)
	c.Env = append(os.Environ(), asKubectl+"=1")
	c.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err = c.Run()
	return out.String(), err
}

// kubectlSays runs kubectl, which has to succeed and to print each of want.
func (e *env) kubectlSays(stdin string, args []string, want ...string) {
	e.Helper()
	out, err := e.kubectl(stdin, args...)
	if err != nil {
		e.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	e.contains("kubectl "+strings.Join(args, " "), out, want...)
}

func (e *env) contains(what, text string, want ...string) {
	e.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			e.Errorf("%s lacks %q:\n%.2000s", what, w, text)
		}
	}
}

func (e *env) raw(path, accept string) string {
	e.Helper()
	b, err := e.core.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", accept).Do(e.ctx).Raw()
	if err != nil {
		e.Fatalf("%s: %v: %s", path, err, b)
	}
	return string(b)
}

func (e *env) until(what string, ok func() bool) {
	e.Helper()
	harness.Eventually(e, what, ok)
}

// token returns a token of an account.
func (e *env) token(namespace, account string) string {
	e.Helper()
	r, err := e.core.CoreV1().ServiceAccounts(namespace).CreateToken(e.ctx, account, &authenticationv1.TokenRequest{}, create)
	e.must(err)
	return r.Status.Token
}

// prepare makes the sample API server's etcd, rights, certificate and port. Its
// address is not on loopback, since no endpoint may have such an address.
func (e *env) prepare() {
	e.Helper()
	e.program = aggregation.Build(e)
	etcd := etcdtest.Start(e)
	e.kubectlSays(rights, []string{"apply", "-f", "-"}, "rolebinding.rbac.authorization.k8s.io/wardle-auth-reader created")
	me := e.writeKubeconfig("wardle", harness.WithToken(e.cfg, e.token("wardle", "apiserver")))
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("sample-api.wardle.svc", nil, nil)
	e.must(err)
	dir := e.TempDir()
	e.log = filepath.Join(dir, "log")
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	e.must(os.WriteFile(certFile, certPEM, 0o600))
	e.must(os.WriteFile(keyFile, keyPEM, 0o600))
	e.ca = certPEM // the certificate is followed by its authority
	e.address = e.listen()
	e.args = []string{
		"--etcd-servers=" + etcd.URL, "--bind-address=" + e.address.IP.String(), "--secure-port=" + strconv.Itoa(e.address.Port),
		"--tls-cert-file=" + certFile, "--tls-private-key-file=" + keyFile,
		"--kubeconfig=" + me, "--authentication-kubeconfig=" + me, "--authorization-kubeconfig=" + me,
	}
}

// listen finds a free port at an address of this machine.
func (e *env) listen() *net.TCPAddr {
	e.Helper()
	all, err := net.InterfaceAddrs()
	e.must(err)
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: ip.IP})
			e.must(err)
			defer l.Close()
			return l.Addr().(*net.TCPAddr)
		}
	}
	e.Fatal("this machine has no IPv4 address but those of loopback: the sample API server needs one to be an endpoint of a Service")
	return nil
}

// run starts the sample API server; it ends with the test.
func (e *env) run() {
	e.Helper()
	log, err := os.OpenFile(e.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	e.must(err)
	defer log.Close()
	p := exec.Command(e.program, e.args...)
	p.Stdout, p.Stderr = log, log
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	e.must(p.Start())
	e.process = p
}

func (e *env) kill() {
	if p := e.process; p != nil && p.ProcessState == nil {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
}

// register makes the Service, the endpoint and the APIServices of the sample API
// server.
func (e *env) register() {
	e.Helper()
	meta := metav1.ObjectMeta{Name: "sample-api", Namespace: "wardle"}
	_, err := e.core.CoreV1().Services("wardle").Create(e.ctx, &v1.Service{ObjectMeta: meta, Spec: v1.ServiceSpec{Ports: []v1.ServicePort{{Port: 443}}}}, create)
	e.must(err)
	meta.Name, meta.Labels = "sample-api-1", map[string]string{discoveryv1.LabelServiceName: "sample-api"}
	_, err = e.core.DiscoveryV1().EndpointSlices("wardle").Create(e.ctx, &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{e.address.IP.String()}}},
		Ports:     []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To(int32(e.address.Port))}}}, create)
	e.must(err)
	for name, priority := range map[string]int32{alpha: 200, beta: 100} {
		version, _, _ := strings.Cut(name, ".")
		_, err := e.apiServices.ApiregistrationV1().APIServices().Create(e.ctx, &apiregistration.APIService{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: apiregistration.APIServiceSpec{Group: group, Version: version, CABundle: e.ca, GroupPriorityMinimum: 2000, VersionPriority: priority,
				Service: &apiregistration.ServiceReference{Namespace: "wardle", Name: "sample-api"}}}, create)
		e.must(err)
	}
}

// available waits until the condition has that reason.
func (e *env) available(name, reason string) *apiregistration.APIServiceCondition {
	e.Helper()
	var cond *apiregistration.APIServiceCondition
	defer func() {
		if e.Failed() {
			said, _ := os.ReadFile(e.log)
			e.Logf("the condition is %v; the sample API server said:\n%s", cond, said[max(0, len(said)-4000):])
		}
	}()
	e.until(name+" to be "+reason, func() bool {
		a, err := e.apiServices.ApiregistrationV1().APIServices().Get(e.ctx, name, get)
		e.must(err)
		cond = helper.GetAPIServiceConditionByType(a, apiregistration.Available)
		return cond != nil && cond.Reason == reason
	})
	return cond
}

func flunder(name, spec string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(fmt.Appendf(nil, "apiVersion: wardle.example.com/v1alpha1\nkind: Flunder\nmetadata: {name: %s, labels: {sample-label: 'true'}}\nspec: %s\n", name, spec), &u.Object); err != nil {
		panic(err)
	}
	return u
}

// TestSampleAPIServer checks that the sample API server can be added, used by
// all verbs and clients, removed and added again.
func TestSampleAPIServer(t *testing.T) {
	e := start(t)
	e.prepare()
	t.Cleanup(e.kill)

	// Before it runs it cannot be reached.
	e.register()
	cond := e.available(alpha, "FailedDiscoveryCheck")
	url := "https://" + e.address.String() + "/apis/wardle.example.com/v1alpha1"
	e.contains("the condition", cond.Message, "failing or missing response from "+url+": ", "connect: connection refused")
	if _, err := e.dynamic.Resource(flunders).Namespace("default").List(e.ctx, metav1.ListOptions{}); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("before the server runs: %v", err)
	}
	e.run()
	for _, name := range []string{alpha, beta} {
		if cond := e.available(name, "Passed"); cond.Status != apiregistration.ConditionTrue || cond.Message != "all checks passed" {
			t.Errorf("%s: %v", name, cond)
		}
	}
	for _, part := range []struct {
		name string
		f    func(*env)
	}{
		{"verbs", (*env).verbs}, {"discovery", (*env).discovery}, {"documents", (*env).documents}, {"kubectl", (*env).byKubectl},
		{"delegated authentication", (*env).delegated}, {"owners and namespaces", (*env).owners}, {"status of the APIService", (*env).status},
		{"killed and restarted", (*env).restart},
	} {
		ok := t.Run(part.name, func(t *testing.T) {
			c := *e
			c.T = t
			part.f(&c)
			e.process = c.process
		})
		if !ok {
			break
		}
	}
}

// verbs checks all verbs of flunders, by plain requests, a client and a watch.
func (e *env) verbs() {
	c := e.core.Discovery().RESTClient()
	const path = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders"
	var code int
	r := c.Post().AbsPath(path).Body([]byte(`{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"labels":{"sample-label":"true"},"name":"rest-flunder","namespace":"default"}}`)).Do(e.ctx).StatusCode(&code)
	if r.Error() != nil || code != http.StatusCreated {
		e.Fatalf("creation: %d, %v", code, r.Error())
	}
	e.must(c.Delete().AbsPath(path + "/rest-flunder").Do(e.ctx).Error())

	d := e.dynamic.Resource(flunders).Namespace("default")
	list, err := d.List(e.ctx, metav1.ListOptions{})
	e.must(err)
	if len(list.Items) != 0 {
		e.Errorf("after the deletion: %v", list.Items)
	}
	w, err := d.Watch(e.ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion(), AllowWatchBookmarks: true})
	e.must(err)
	defer w.Stop()
	event := func(kind watch.EventType) {
		e.Helper()
		select {
		case got := <-w.ResultChan():
			if got.Type != kind {
				e.Fatalf("event %v, want %s", got, kind)
			}
		case <-e.ctx.Done():
			e.Fatalf("no %s event", kind)
		}
	}
	made, err := d.Create(e.ctx, flunder("dynamic-flunder", "{reference: other}"), create)
	e.must(err)
	event(watch.Added)
	if kind, _, _ := unstructured.NestedString(made.Object, "spec", "referenceType"); kind != "Flunder" {
		e.Errorf("the server's default is missing: %v", made.Object)
	}
	if len(made.GetManagedFields()) != 1 {
		e.Errorf("managed fields: %v", made.GetManagedFields())
	}
	made.SetAnnotations(map[string]string{"a": "b"})
	_, err = d.Update(e.ctx, made, update)
	e.must(err)
	event(watch.Modified)
	if _, err = d.Update(e.ctx, made, update); !apierrors.IsConflict(err) {
		e.Errorf("an update of an old version: %v", err)
	}
	_, err = d.Patch(e.ctx, "dynamic-flunder", types.MergePatchType, []byte(`{"spec":{"reference":"another"}}`), metav1.PatchOptions{})
	e.must(err)
	event(watch.Modified)
	apply := flunder("dynamic-flunder", "{reference: applied}")
	apply.SetLabels(nil)
	if _, err = d.Apply(e.ctx, "dynamic-flunder", apply, metav1.ApplyOptions{FieldManager: "test"}); !apierrors.IsConflict(err) {
		e.Errorf("an apply of another's field: %v", err)
	}
	_, err = d.Apply(e.ctx, "dynamic-flunder", apply, metav1.ApplyOptions{FieldManager: "test", Force: true})
	e.must(err)
	event(watch.Modified)
	// Its versions are converted.
	newer, err := e.dynamic.Resource(flunders.GroupResource().WithVersion("v1beta1")).Namespace("default").Get(e.ctx, "dynamic-flunder", get)
	e.must(err)
	if ref, _, _ := unstructured.NestedString(newer.Object, "spec", "flunderReference"); ref != "applied" {
		e.Errorf("as v1beta1: %v", newer.Object)
	}
	// Its errors are passed on unchanged.
	bad := flunder("bad", "{flunderReference: a, fischerReference: b}")
	bad.SetAPIVersion("wardle.example.com/v1beta1")
	_, err = e.dynamic.Resource(flunders.GroupResource().WithVersion("v1beta1")).Namespace("default").Create(e.ctx, bad, create)
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "cannot be set with flunderReference at the same time") {
		e.Errorf("an invalid flunder: %v", err)
	}
	// The sample server's admission refuses the flunders that a fischer bans, and
	// objects of a missing namespace.
	_, err = e.dynamic.Resource(fischers).Create(e.ctx, &unstructured.Unstructured{Object: map[string]any{"apiVersion": "wardle.example.com/v1alpha1", "kind": "Fischer",
		"metadata": map[string]any{"name": "fischer"}, "disallowedFlunders": []any{"banned"}}}, create)
	e.must(err)
	e.until("the ban", func() bool {
		_, err := d.Create(e.ctx, flunder("banned", "{}"), create)
		if err == nil {
			event(watch.Added)
			e.must(d.Delete(e.ctx, "banned", metav1.DeleteOptions{}))
			event(watch.Deleted)
		}
		return apierrors.IsForbidden(err)
	})
	if _, err := e.dynamic.Resource(flunders).Namespace("nowhere").Create(e.ctx, flunder("x", "{}"), create); !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), `namespaces "nowhere" not found`) {
		e.Errorf("in a namespace that is not there: %v", err)
	}
	e.must(d.DeleteCollection(e.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "sample-label=true"}))
	event(watch.Deleted)
	list, err = e.dynamic.Resource(flunders).List(e.ctx, metav1.ListOptions{})
	e.must(err)
	if len(list.Items) != 0 {
		e.Errorf("after the deletion of the collection: %v", list.Items)
	}
}

// discovery checks that the group is among the others in both formats of
// discovery.
func (e *env) discovery() {
	e.contains("/apis", e.raw("/apis", "application/json"), `"wardle.example.com"`, `"apps"`)
	var g metav1.APIGroup
	e.must(json.Unmarshal([]byte(e.raw("/apis/wardle.example.com", "application/json")), &g))
	if g.PreferredVersion.Version != "v1alpha1" || len(g.Versions) != 2 {
		e.Errorf("the group is %v", g)
	}
	e.contains("the resources", e.raw("/apis/wardle.example.com/v1alpha1", "application/json"), `"name":"flunders"`, `"name":"fischers"`)
	groups, lists, err := e.core.Discovery().ServerGroupsAndResources()
	e.must(err)
	if !slices.ContainsFunc(groups, func(g *metav1.APIGroup) bool { return g.Name == group }) {
		e.Error("the aggregated discovery lacks the group")
	}
	for _, gv := range []string{"wardle.example.com/v1alpha1", "wardle.example.com/v1beta1"} {
		if !slices.ContainsFunc(lists, func(l *metav1.APIResourceList) bool {
			return l.GroupVersion == gv && slices.ContainsFunc(l.APIResources, func(r metav1.APIResource) bool { return r.Name == "flunders" && r.Namespaced && r.Kind == "Flunder" })
		}) {
			e.Errorf("the aggregated discovery lacks the flunders of %s", gv)
		}
	}
}

// documents checks that the OpenAPI documents have the parts of both servers.
func (e *env) documents() {
	e.contains("openapi/v2", e.raw("/openapi/v2", "application/json"),
		`"/apis/wardle.example.com/v1alpha1/namespaces/{namespace}/flunders"`, `FlunderSpec"`, `"/api/v1/namespaces/{namespace}/pods"`)
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	e.must(json.Unmarshal([]byte(e.raw("/openapi/v3", "application/json")), &index))
	for _, path := range []string{"apis/wardle.example.com/v1alpha1", "apis/wardle.example.com/v1beta1", "api/v1", "apis/apps/v1"} {
		if !strings.Contains(index.Paths[path].ServerRelativeURL, "?hash=") {
			e.Errorf("the index has %q for %s", index.Paths[path].ServerRelativeURL, path)
		}
	}
	e.contains("openapi/v3", e.raw("/openapi/v3/apis/wardle.example.com/v1alpha1", "application/json"), "FlunderSpec")
}

// byKubectl checks flunders with kubectl.
func (e *env) byKubectl() {
	manifest := func(spec string) string {
		b, err := json.Marshal(flunder("typed", spec))
		e.must(err)
		return string(b)
	}
	e.kubectlSays("", []string{"explain", "flunders"}, "GROUP:      wardle.example.com", "KIND:       Flunder", "VERSION:    v1alpha1", "spec\t<FlunderSpec>")
	e.kubectlSays("", []string{"explain", "flunders.spec", "--api-version=wardle.example.com/v1beta1"}, "A name of a fischer, mutually exclusive to the FlunderReference.")
	e.kubectlSays("", []string{"api-resources", "--api-group=wardle.example.com"}, "flunders", "fischers", "wardle.example.com/v1alpha1")
	e.kubectlSays("", []string{"api-versions"}, "wardle.example.com/v1alpha1", "wardle.example.com/v1beta1")
	e.kubectlSays(manifest("{}"), []string{"create", "-f", "-"}, "flunder.wardle.example.com/typed created")
	e.kubectlSays("", []string{"get", "flunders"}, "NAME", "typed")
	e.kubectlSays("", []string{"get", "flunders.v1beta1.wardle.example.com", "typed", "-o", "yaml"}, "apiVersion: wardle.example.com/v1beta1")
	e.kubectlSays(manifest("{reference: f, referenceType: Flunder}"), []string{"apply", "-f", "-", "--server-side", "--force-conflicts"}, "flunder.wardle.example.com/typed serverside-applied")
	e.kubectlSays("", []string{"label", "flunder", "typed", "more=labels"}, "flunder.wardle.example.com/typed labeled")
	// Fields that the document does not have are refused, by the server.
	if out, err := e.kubectl(strings.Replace(manifest("{wrong: field}"), `"typed"`, `"strict"`, 1), "create", "-f", "-"); err == nil || !strings.Contains(out, `strict decoding error: unknown field "spec.wrong"`) {
		e.Errorf("an unknown field: %s", out)
	}
	e.kubectlSays("", []string{"get", "apiservice", alpha}, "wardle/sample-api", "True")
	e.kubectlSays("", []string{"delete", "flunder", "typed"}, `flunder.wardle.example.com "typed" deleted`)
	e.kubectlSays("", []string{"get", "flunders"}, "No resources found in default namespace.")
}

// delegated checks that the server delegates authentication and authorization
// to this one.
func (e *env) delegated() {
	rules := func(name string, verbs ...string) {
		_, err := e.core.RbacV1().ClusterRoles().Create(e.ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name},
			Rules: []rbacv1.PolicyRule{{APIGroups: []string{group}, Resources: []string{"flunders"}, Verbs: verbs}}}, create)
		e.must(err)
		_, err = e.core.CoreV1().ServiceAccounts("default").Create(e.ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, create)
		e.must(err)
		_, err = e.core.RbacV1().ClusterRoleBindings().Create(e.ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: name}}}, create)
		e.must(err)
	}
	rules("reader", "get", "list")
	token := e.token("default", "reader")
	own := &rest.Config{Host: e.cfg.Host, TLSClientConfig: rest.TLSClientConfig{CAData: e.cfg.CAData}, BearerToken: token}
	d := dynamic.NewForConfigOrDie(own).Resource(flunders).Namespace("default")
	if _, err := d.List(e.ctx, metav1.ListOptions{}); err != nil {
		e.Errorf("an account that may list: %v", err)
	}
	if _, err := d.Create(e.ctx, flunder("x", "{}"), create); !apierrors.IsForbidden(err) {
		e.Errorf("an account that may not create: %v", err)
	}

	// Requests sent directly: with a token, a certificate, neither, and with the
	// aggregator's headers from another client.
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca)
	direct := func(method string, header http.Header, certs ...tls.Certificate) (int, string) {
		e.Helper()
		req, err := http.NewRequestWithContext(e.ctx, method, "https://"+e.address.String()+"/apis/wardle.example.com/v1alpha1/namespaces/default/flunders", strings.NewReader("{}"))
		e.must(err)
		req.Header = header
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "sample-api.wardle.svc", Certificates: certs}}}
		resp, err := c.Do(req)
		e.must(err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		e.must(err)
		return resp.StatusCode, string(b)
	}
	bearer := http.Header{"Authorization": {"Bearer " + token}}
	admin, err := tls.X509KeyPair(e.cfg.CertData, e.cfg.KeyData)
	e.must(err)
	for _, c := range []struct {
		what, method string
		header       http.Header
		certs        []tls.Certificate
		code         int
		text         string
	}{
		{"a token, by TokenReview and SubjectAccessReview", "GET", bearer, nil, 200, `"kind":"FlunderList"`},
		{"a token without the right", "POST", bearer, nil, 403, `User \"system:serviceaccount:default:reader\" cannot create resource \"flunders\" in API group \"wardle.example.com\" in the namespace \"default\"`},
		{"a token that is none", "GET", http.Header{"Authorization": {"Bearer nobody"}}, nil, 401, "Unauthorized"},
		{"a certificate of the cluster's authority", "GET", http.Header{}, []tls.Certificate{admin}, 200, `"kind":"FlunderList"`},
		{"nothing", "GET", http.Header{}, nil, 403, `User \"system:anonymous\" cannot list`},
		{"the aggregator's headers with an administrator's certificate", "GET", http.Header{"X-Remote-User": {"mallory"}}, []tls.Certificate{admin}, 200, `"kind":"FlunderList"`},
		{"the aggregator's headers without its certificate", "GET", http.Header{"X-Remote-User": {"admin"}, "X-Remote-Group": {"system:masters"}}, nil, 403, `User \"system:anonymous\" cannot list`},
	} {
		if code, body := direct(c.method, c.header, c.certs...); code != c.code || !strings.Contains(body, c.text) {
			e.Errorf("%s: %d %s; want %d and %s", c.what, code, body, c.code, c.text)
		}
	}
	cm, err := e.core.CoreV1().ConfigMaps("kube-system").Get(e.ctx, "extension-apiserver-authentication", get)
	e.must(err)
	for key, want := range map[string]string{"requestheader-username-headers": `["X-Remote-User"]`, "requestheader-group-headers": `["X-Remote-Group"]`,
		"requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`, "requestheader-uid-headers": `["X-Remote-Uid"]`, "requestheader-allowed-names": `["front-proxy-client"]`} {
		if cm.Data[key] != want {
			e.Errorf("%s is %s, want %s", key, cm.Data[key], want)
		}
	}
}

// owners checks that the garbage collector and the deletion of a namespace
// delete the server's objects.
func (e *env) owners() {
	d := e.dynamic.Resource(flunders).Namespace("default")
	maps := e.core.CoreV1().ConfigMaps("default")
	owner, err := d.Create(e.ctx, flunder("owner", "{}"), create)
	e.must(err)
	ref := metav1.OwnerReference{APIVersion: "wardle.example.com/v1alpha1", Kind: "Flunder", Name: "owner", UID: owner.GetUID()}
	_, err = maps.Create(e.ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owned", OwnerReferences: []metav1.OwnerReference{ref}}}, create)
	e.must(err)
	cm, err := maps.Create(e.ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, create)
	e.must(err)
	owned := flunder("owned", "{}")
	owned.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: cm.UID}})
	_, err = d.Create(e.ctx, owned, create)
	e.must(err)
	e.must(d.Delete(e.ctx, "owner", metav1.DeleteOptions{}))
	e.must(maps.Delete(e.ctx, "owner", metav1.DeleteOptions{}))
	e.until("the end of the config map that a flunder owned", func() bool {
		_, err := maps.Get(e.ctx, "owned", get)
		return apierrors.IsNotFound(err)
	})
	e.until("the end of the flunder that a config map owned", func() bool {
		_, err := d.Get(e.ctx, "owned", get)
		return apierrors.IsNotFound(err)
	})

	_, err = e.core.CoreV1().Namespaces().Create(e.ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "pond"}}, create)
	e.must(err)
	pond := e.dynamic.Resource(flunders).Namespace("pond")
	e.until("a flunder in the new namespace", func() bool {
		_, err := pond.Create(e.ctx, flunder("drained", "{}"), create)
		return err == nil
	})
	e.must(e.core.CoreV1().Namespaces().Delete(e.ctx, "pond", metav1.DeleteOptions{}))
	e.until("the end of the namespace", func() bool {
		_, err := e.core.CoreV1().Namespaces().Get(e.ctx, "pond", get)
		return apierrors.IsNotFound(err)
	})
	if l, err := e.dynamic.Resource(flunders).List(e.ctx, metav1.ListOptions{}); err != nil || len(l.Items) != 0 {
		e.Errorf("after the end of the namespace: %v, %v", l, err)
	}
}

// status checks that the APIService can be read, patched and updated, and keeps
// the condition of its server.
func (e *env) status() {
	c := e.apiServices.ApiregistrationV1().APIServices()
	e.contains("the status", e.raw("/apis/apiregistration.k8s.io/v1/apiservices/"+alpha+"/status", "application/json"), `"all checks passed"`)
	e.kubectlSays("", []string{"patch", "apiservice", alpha, "-p", `{"spec":{"versionPriority": 400}}`}, "apiservice.apiregistration.k8s.io/"+alpha+" patched")
	a, err := c.Get(e.ctx, alpha, get)
	e.must(err)
	if a.Spec.VersionPriority != 400 {
		e.Errorf("priority %d", a.Spec.VersionPriority)
	}
	cond := func(kind string) apiregistration.APIServiceCondition {
		return apiregistration.APIServiceCondition{Type: apiregistration.APIServiceConditionType(kind), Status: apiregistration.ConditionTrue, Reason: "E2E", Message: "Set by the test"}
	}
	for {
		a.Status.Conditions = append(a.Status.Conditions, cond("StatusUpdated"))
		if _, err = c.UpdateStatus(e.ctx, a, update); !apierrors.IsConflict(err) {
			break
		}
		a, err = c.Get(e.ctx, alpha, get)
		e.must(err)
	}
	e.must(err)
	patch, err := json.Marshal(map[string]any{"status": apiregistration.APIServiceStatus{Conditions: []apiregistration.APIServiceCondition{cond("StatusPatched")}}})
	e.must(err)
	patched, err := c.Patch(e.ctx, alpha, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	e.must(err)
	for _, kind := range []apiregistration.APIServiceConditionType{apiregistration.Available, "StatusUpdated", "StatusPatched"} {
		if !helper.IsAPIServiceConditionTrue(patched, kind) {
			e.Errorf("%s is missing: %v", kind, patched.Status.Conditions)
		}
	}
	if _, err := e.dynamic.Resource(flunders).Namespace("default").List(e.ctx, metav1.ListOptions{}); err != nil {
		e.Errorf("after the changes: %v", err)
	}
}

// restart checks that a server that has gone is reported as unavailable, and
// serves again when it is back.
func (e *env) restart() {
	d := e.dynamic.Resource(flunders).Namespace("default")
	_, err := d.Create(e.ctx, flunder("kept", "{}"), create)
	e.must(err)
	w, err := d.Watch(e.ctx, metav1.ListOptions{})
	e.must(err)
	defer w.Stop()
	e.kill()
	for ev := range w.ResultChan() { // the watch ends, so that its client starts again
		if ev.Type == watch.Error {
			break
		}
	}
	// A node's agent would report the end of the pod.
	ready := func(now bool) {
		e.Helper()
		_, err := e.core.DiscoveryV1().EndpointSlices("wardle").Patch(e.ctx, "sample-api-1", types.JSONPatchType,
			fmt.Appendf(nil, `[{"op":"add","path":"/endpoints/0/conditions","value":{"ready":%t}}]`, now), metav1.PatchOptions{})
		e.must(err)
	}
	ready(true)
	e.available(alpha, "FailedDiscoveryCheck")
	ready(false)
	if c := e.available(alpha, "MissingEndpoints"); c.Status != apiregistration.ConditionFalse || c.Message != `endpointslices for service/sample-api in "wardle" have no addresses with port name ""` {
		e.Errorf("without an endpoint: %v", c)
	}
	e.available(beta, "MissingEndpoints")
	if _, err := d.Get(e.ctx, "kept", get); !apierrors.IsServiceUnavailable(err) {
		e.Errorf("without the server: %v", err)
	}
	// Other resources are still served; kubectl reports the missing group.
	e.kubectlSays("", []string{"get", "configmaps"}, "kube-root-ca.crt")
	e.kubectlSays("", []string{"get", "apiservice", alpha}, "False (MissingEndpoints)")
	e.contains("openapi/v2", e.raw("/openapi/v2", "application/json"), `"/api/v1/namespaces/{namespace}/pods"`)
	var all apidiscovery.APIGroupDiscoveryList
	e.must(json.Unmarshal([]byte(e.raw("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")), &all))
	i := slices.IndexFunc(all.Items, func(g apidiscovery.APIGroupDiscovery) bool { return g.Name == group })
	if i < 0 || all.Items[i].Versions[0].Freshness != apidiscovery.DiscoveryFreshnessStale || len(all.Items[i].Versions[0].Resources) != 2 {
		e.Errorf("the group is not in discovery as it was, but stale: %d", i)
	}

	e.run()
	ready(true)
	e.available(alpha, "Passed")
	e.available(beta, "Passed")
	if _, err := d.Get(e.ctx, "kept", get); err != nil {
		e.Errorf("after the restart: %v", err)
	}
	// Versions that are no longer registered are no longer served.
	for _, name := range []string{alpha, beta} {
		e.must(e.apiServices.ApiregistrationV1().APIServices().Delete(e.ctx, name, metav1.DeleteOptions{}))
	}
	for _, version := range []string{"v1alpha1", "v1beta1"} {
		e.until("the end of "+version, func() bool {
			_, err := e.dynamic.Resource(flunders.GroupResource().WithVersion(version)).Namespace("default").List(e.ctx, metav1.ListOptions{})
			return apierrors.IsNotFound(err)
		})
	}
	// The group has gone with the last of its versions.
	if out := e.raw("/apis", "application/json"); strings.Contains(out, group) {
		e.Error("the group is still in discovery")
	}
}
