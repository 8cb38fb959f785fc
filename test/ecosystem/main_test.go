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
	"syscall"
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
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

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
	c := clientcmdapi.NewConfig()
	c.Clusters["c"] = &clientcmdapi.Cluster{Server: k.config.Host, CertificateAuthorityData: k.config.CAData}
	c.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: r.Status.Token}
	c.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	c.CurrentContext = "x"
	path := filepath.Join(k.TempDir(), account)
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		k.Fatal(err)
	}
	return path
}

// run runs a program of another project until the end of the test. What it has written
// last is shown if the test fails.
func (k *keelson) run(program string, args ...string) {
	k.Helper()
	log := filepath.Join(k.TempDir(), "log")
	f, err := os.Create(log)
	if err != nil {
		k.Fatal(err)
	}
	defer f.Close()
	c := exec.Command(program, args...)
	c.Stdout, c.Stderr, c.SysProcAttr = f, f, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		k.Fatal(err)
	}
	k.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if !k.Failed() {
			return
		}
		if b, err := os.ReadFile(log); err == nil {
			k.Logf("%s said at last:\n%s", filepath.Base(program), b[max(len(b)-6000, 0):])
		}
	})
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
