package envtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// asSuite, in the environment, makes the test's program a suite that starts an
// environment and waits.
const asSuite = "ENVTEST_AS_SUITE"

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	if os.Getenv(asSuite) != "" {
		suite()
		return
	}
	os.Exit(m.Run())
}

// patience bounds each wait.
const patience = time.Minute

func start(t *testing.T, e *envtest.Environment) (*rest.Config, client.Client) {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: make test sets it to the folder that keelson envtest has made")
	}
	cfg, err := e.Start()
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg, c
}

func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	var last error
	if err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = ok()
		return last == nil, nil
	}); err != nil {
		t.Fatalf("waiting for %s: %v", what, last)
	}
}

var shipGVK = schema.GroupVersionKind{Group: "harbour.example.com", Version: "v1", Kind: "Ship"}

// ships returns the definition of a custom resource with a status.
func ships() *apiextensionsv1.CustomResourceDefinition {
	object := apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: ptr.To(true)}
	return &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "ships.harbour.example.com"}, Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Group: shipGVK.Group, Scope: apiextensionsv1.NamespaceScoped, Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "ships", Singular: "ship", Kind: "Ship"},
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
			Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object",
				Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": object, "status": object}}}}},
	}}
}

func ship(name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(shipGVK)
	u.SetNamespace("default")
	u.SetName(name)
	return u
}

// TestOperator tests an operator as its authors would: a definition, a webhook, a
// manager with a controller, a user with few rights, kubectl.
func TestOperator(t *testing.T) {
	e := &envtest.Environment{
		CRDInstallOptions: envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{ships()}},
		WebhookInstallOptions: envtest.WebhookInstallOptions{ValidatingWebhooks: []*admissionregistrationv1.ValidatingWebhookConfiguration{{
			ObjectMeta: metav1.ObjectMeta{Name: "ships"},
			Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: "ships.harbour.example.com", AdmissionReviewVersions: []string{"v1"},
				SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), FailurePolicy: ptr.To(admissionregistrationv1.Fail),
				ClientConfig: admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: "default", Name: "ships", Path: ptr.To("/validate")}},
				Rules: []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{"CREATE"},
					Rule: admissionregistrationv1.Rule{APIGroups: []string{shipGVK.Group}, APIVersions: []string{"v1"}, Resources: []string{"ships"}}}}}},
		}}},
	}
	cfg, c := start(t, e)
	hooks := e.WebhookInstallOptions
	m, err := ctrl.NewManager(cfg, ctrl.Options{
		Metrics:       metricsserver.Options{BindAddress: "0"},
		WebhookServer: webhook.NewServer(webhook.Options{Host: hooks.LocalServingHost, Port: hooks.LocalServingPort, CertDir: hooks.LocalServingCertDir}),
	})
	if err != nil {
		t.Fatal(err)
	}
	m.GetWebhookServer().Register("/validate", &webhook.Admission{Handler: admission.HandlerFunc(func(_ context.Context, r admission.Request) admission.Response {
		if r.Name == "titanic" {
			return admission.Denied("it sinks")
		}
		return admission.Allowed("")
	})})
	watched := &unstructured.Unstructured{}
	watched.SetGroupVersionKind(shipGVK)
	err = ctrl.NewControllerManagedBy(m).Named("ships").For(watched).Owns(&corev1.ConfigMap{}).Complete(reconciler{m.GetClient()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	eventually(t, "a ship, when the webhook is there", func() error { return client.IgnoreAlreadyExists(c.Create(ctx, ship("beagle"))) })
	if err := c.Create(ctx, ship("titanic")); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "it sinks") {
		t.Errorf("the webhook did not refuse: %v", err)
	}
	eventually(t, "the status that the controller writes", func() error {
		u := ship("beagle")
		if err := c.Get(ctx, client.ObjectKeyFromObject(u), u); err != nil {
			return err
		}
		if log, _, _ := unstructured.NestedString(u.Object, "status", "log"); log != "beagle-log" {
			return fmt.Errorf("the log is %q", log)
		}
		return nil
	})

	user, err := e.AddUser(envtest.User{Name: "sailor", Groups: []string{"crew"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sailor, err := client.New(user.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := sailor.List(ctx, &corev1.SecretList{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `User "sailor" cannot list`) {
		t.Errorf("a user without rights: %v", err)
	}
	kubectl, err := user.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := kubectl.Run("auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}")
	if text, _ := io.ReadAll(out); err != nil || !strings.Contains(string(text), "crew") {
		t.Errorf("kubectl: %s, %v", text, err)
	}

	// Without controllers nothing is garbage collected, and Deployments make no
	// pods.
	if err := c.Create(ctx, deployment()); err != nil {
		t.Fatal(err)
	}
	var sets appsv1.ReplicaSetList
	if err := c.List(ctx, &sets); err != nil || len(sets.Items) != 0 {
		t.Errorf("replica sets without a controller: %d, %v", len(sets.Items), err)
	}
	var accounts corev1.ServiceAccountList
	if err := c.List(ctx, &accounts); err != nil || len(accounts.Items) != 0 {
		t.Errorf("service accounts without a controller: %d, %v", len(accounts.Items), err)
	}
}

// reconciler creates a log for each ship.
type reconciler struct{ client.Client }

// Reconcile implements reconcile.Reconciler.
func (r reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	u := ship(req.Name)
	if err := r.Get(ctx, req.NamespacedName, u); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	log := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: req.Namespace, Name: req.Name + "-log"}}
	if _, err := controllerutil.CreateOrUpdate(ctx, r.Client, log, func() error { return controllerutil.SetControllerReference(u, log, r.Scheme()) }); err != nil {
		return ctrl.Result{}, err
	}
	before := u.DeepCopy()
	if err := unstructured.SetNestedField(u.Object, log.Name, "status", "log"); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.Status().Patch(ctx, u, client.MergeFrom(before))
}

func deployment() *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}}}}}
}

// TestControllers checks that the controllers run with KEELSON_CONTROLLERS: a
// Deployment gets pods, dependents of deleted objects are collected, and a
// namespace is deleted.
func TestControllers(t *testing.T) {
	t.Setenv("KEELSON_CONTROLLERS", "true")
	_, c := start(t, &envtest.Environment{})
	ctx := t.Context()
	pods := func(n int) func() error {
		return func() error {
			var l corev1.PodList
			if err := c.List(ctx, &l, client.InNamespace("default"), client.MatchingLabels{"app": "web"}); err != nil || len(l.Items) != n {
				return fmt.Errorf("%d pods, want %d: %w", len(l.Items), n, err)
			}
			return nil
		}
	}
	if err := c.Create(ctx, deployment()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pods of the deployment", pods(2))
	if err := c.Delete(ctx, deployment()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the pods", pods(0))
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "brief"}}
	if err := c.Create(ctx, ns); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "brief", Name: "a"}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, ns); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the namespace", func() error {
		if err := c.Get(ctx, types.NamespacedName{Name: "brief"}, ns); !apierrors.IsNotFound(err) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
}

// TestRestart checks that objects outlive the API server, as they do with an
// etcd.
func TestRestart(t *testing.T) {
	e := &envtest.Environment{}
	_, c := start(t, e)
	ctx := t.Context()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kept"}}
	if err := c.Create(ctx, cm); err != nil {
		t.Fatal(err)
	}
	server := e.ControlPlane.GetAPIServer()
	dir := server.CertDir
	server.CertDir = t.TempDir() // Stop removes its folder with the authorities; the second server gets a new one
	if err := os.CopyFS(server.CertDir, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	kept := server.CertDir
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	server.CertDir = kept
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	uid := cm.UID
	eventually(t, "the object after the restart", func() error { return c.Get(ctx, client.ObjectKeyFromObject(cm), cm) })
	if cm.UID != uid {
		t.Errorf("it is another: %s, was %s", cm.UID, uid)
	}
}

// suite starts an environment, prints its server, and waits for its own end.
func suite() {
	cfg, err := (&envtest.Environment{}).Start()
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(cfg.Host)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestKilledSuite checks that the processes of a suite that is killed end, too.
func TestKilledSuite(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^$")
	cmd.Env, cmd.Stderr = append(os.Environ(), asSuite+"=1", "TMPDIR="+t.TempDir()), os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	host, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.Replace(strings.TrimSpace(host), "https://", "http://", 1) // the server answers that it expects TLS
	if resp, err := http.Get(plain); err != nil {
		t.Errorf("before: %v", err)
	} else {
		resp.Body.Close()
	}
	children := childrenOf(t, cmd.Process.Pid)
	if len(children) != 2 {
		t.Errorf("children %v, want kube-apiserver and etcd", children)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for _, pid := range children {
		eventually(t, "the end of process "+strconv.Itoa(pid), func() error {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) && !zombie(pid) {
				return errors.New("it runs")
			}
			return nil
		})
	}
}

// childrenOf returns the processes that pid has started.
func childrenOf(t *testing.T, pid int) (out []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
	}
	return out
}

// zombie reports whether the process has ended and waits for its parent to see it.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(b, []byte(") Z "))
}

// BenchmarkStart measures the time that a suite needs for its control plane: until
// etcd and API server are healthy, a definition is stored, and all has ended. make
// bench-envtest runs it with keelson, and with upstream's generic server and etcd.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		p := &envtest.ControlPlane{}
		b.Cleanup(func() { _ = p.Stop() }) // for a failure before its end; a second call does nothing
		if err := p.Start(); err != nil {
			b.Fatal(err)
		}
		user, err := p.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
		if err != nil {
			b.Fatal(err)
		}
		c, err := apiextensions.NewForConfig(user.Config())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.ApiextensionsV1().CustomResourceDefinitions().Create(b.Context(), ships(), metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
		if err := p.Stop(); err != nil {
			b.Fatal(err)
		}
	}
}
