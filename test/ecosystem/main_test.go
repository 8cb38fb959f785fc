package ecosystem

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/test/harness"
)

// keelson is a cluster in a process of its own.
type keelson struct {
	testing.TB
	binary, kubeconfig, dir string
	config                  *rest.Config
	client                  kubernetes.Interface
	dynamic                 dynamic.Interface
}

// start starts a cluster of two simulated nodes with these further flags.
func start(t testing.TB, flags ...string) *keelson {
	t.Helper()
	k := &keelson{TB: t, binary: os.Getenv("KEELSON"), dir: t.TempDir()}
	if k.binary == "" {
		t.Fatal("KEELSON is not set: it names the binary (make test-ecosystem does so)")
	}
	address := harness.FreeAddress(t)
	harness.StartProcess(t, func() *exec.Cmd {
		return exec.Command(k.binary, append([]string{"server", "--no-node", "--sim-nodes=2", "--data-dir=" + k.dir, "--listen=" + address}, flags...)...)
	})
	k.kubeconfig = filepath.Join(k.dir, "admin.kubeconfig")
	var err error
	if k.config, err = clientcmd.BuildConfigFromFlags("", k.kubeconfig); err != nil {
		t.Fatal(err)
	}
	k.config.QPS = -1
	k.client, k.dynamic = kubernetes.NewForConfigOrDie(k.config), dynamic.NewForConfigOrDie(k.config)
	return k
}

// kubectl runs the binary's kubectl, which has to succeed, and returns what it says.
func (k *keelson) kubectl(stdin string, args ...string) string {
	k.Helper()
	c := exec.CommandContext(k.Context(), k.binary, append([]string{"kubectl", "--kubeconfig", k.kubeconfig}, args...)...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	if err != nil {
		k.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// as writes a kubeconfig of a service account, and returns its path.
func (k *keelson) as(namespace, account string) string {
	k.Helper()
	r, err := k.client.CoreV1().ServiceAccounts(namespace).CreateToken(k.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		k.Fatal(err)
	}
	path := filepath.Join(k.TempDir(), account)
	if err := harness.WriteKubeconfig(path, harness.WithToken(k.config, r.Status.Token)); err != nil {
		k.Fatal(err)
	}
	return path
}

// run runs a program of another project until the end of the test.
func (k *keelson) run(program string, args ...string) {
	k.Helper()
	harness.Run(k, exec.Command(program, args...))
}

// listening waits until a server listens at an address.
func (k *keelson) listening(address string) {
	k.Helper()
	harness.Succeeds(k, "a server at "+address, func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// get reads an object, nil if there is none.
func (k *keelson) get(resource schema.GroupVersionResource, namespace, name string) map[string]any {
	o, err := k.dynamic.Resource(resource).Namespace(namespace).Get(context.WithoutCancel(k.Context()), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return o.Object
}

// value returns the value of a field of an object, "" if it has none.
func value(o map[string]any, path ...string) string {
	v, ok, err := unstructured.NestedFieldNoCopy(o, path...)
	if err != nil || !ok {
		return ""
	}
	return fmt.Sprint(v)
}

// source returns the folder of the source of a module that the one in a folder of this
// repository depends on.
func source(t testing.TB, module, path string) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", path)
	c.Dir = filepath.Join(root, module)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(out))
}
