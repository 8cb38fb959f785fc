package metricsserver

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	imagev1 "github.com/google/go-containerregistry/pkg/v1"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/imagetest"
	"keelson.dev/keelson/test/harness/realnode"
)

// The module that metrics-server is a tool of, its program and the image of its manifests.
const (
	module    = "sigs.k8s.io/metrics-server"
	program   = module + "/cmd/metrics-server"
	fromImage = "gcr.io/k8s-staging-metrics-server/metrics-server"
)

// Names, in the environment, of metrics-server's program and the folder of its manifests.
const (
	programEnv   = "KEELSON_METRICS_SERVER"
	manifestsEnv = "KEELSON_METRICS_SERVER_MANIFESTS"
)

// TestMain builds metrics-server before the process is in a network namespace, where no
// module can be downloaded.
func TestMain(m *testing.M) {
	if !harness.InOwnNetwork() {
		if err := collect(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		harness.OwnNetwork()
	}
	os.Exit(m.Run())
}

// collect builds metrics-server and finds its manifests.
func collect() error {
	path, err := harness.BuildProgram("test/ecosystem", program)
	if err != nil {
		return err
	}
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	list.Stderr = os.Stderr
	dir, err := list.Output()
	if err != nil {
		return fmt.Errorf("finding the module %s: %w", module, err)
	}
	if err := os.Setenv(programEnv, path); err != nil {
		return err
	}
	return os.Setenv(manifestsEnv, filepath.Join(strings.TrimSpace(string(dir)), "manifests", "base"))
}

// node is a cluster of one node, and the file of its administrator's configuration.
type node struct {
	testing.TB
	kubeconfig string
}

func start(t testing.TB) node {
	t.Helper()
	n := node{t, filepath.Join(t.TempDir(), "kubeconfig")}
	c := realnode.Start(t, agent.Options{}).Config
	if err := rest.LoadTLSFiles(c); err != nil {
		t.Fatal(err)
	}
	if err := harness.WriteKubeconfig(n.kubeconfig, c); err != nil {
		t.Fatal(err)
	}
	return n
}

// try runs the binary's kubectl and returns what it says.
func (n node) try(stdin string, args ...string) (string, error) {
	n.Helper()
	binary := os.Getenv("KEELSON")
	if binary == "" {
		n.Fatal("KEELSON is not set: it names the binary (make test-ecosystem does so)")
	}
	c := exec.CommandContext(n.Context(), binary, append([]string{"kubectl", "--kubeconfig", n.kubeconfig}, args...)...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// kubectl is try of what has to succeed.
func (n node) kubectl(stdin string, args ...string) string {
	n.Helper()
	out, err := n.try(stdin, args...)
	if err != nil {
		n.Fatal(err)
	}
	return out
}

// shows waits until the output of kubectl has all of want.
func (n node) shows(want []string, args ...string) {
	n.Helper()
	harness.Succeeds(n, "kubectl "+strings.Join(args, " "), func() error {
		out, err := n.try("", args...)
		for _, w := range want {
			if err == nil && !strings.Contains(out, w) {
				err = fmt.Errorf("%q is not in %s", w, out)
			}
		}
		return err
	})
}

// versions returns the versions of metrics.k8s.io that are served.
func (n node) versions() (out string) {
	n.Helper()
	var group struct{ Versions []struct{ Version string } }
	if err := json.Unmarshal([]byte(n.kubectl("", "get", "--raw", "/apis/metrics.k8s.io")), &group); err != nil {
		n.Fatal(err)
	}
	for _, v := range group.Versions {
		out += v.Version + " "
	}
	return out
}

// overlay makes a folder with metrics-server's manifests and one that replaces their image.
func (n node) overlay(image string) string {
	n.Helper()
	dir := n.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "base"), os.DirFS(os.Getenv(manifestsEnv))); err != nil {
		n.Fatal(err)
	}
	name, tag := image[:strings.LastIndex(image, ":")], image[strings.LastIndex(image, ":")+1:]
	text := fmt.Sprintf("resources: [base]\nimages: [{name: %s, newName: %q, newTag: %q}]\n", fromImage, name, tag)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		n.Fatal(err)
	}
	return dir
}

const (
	apiService = "v1beta1.metrics.k8s.io"
	measured   = `{apiVersion: v1, kind: Pod, metadata: {name: measured, namespace: default}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: keelson.local/demo, args: [sleep, "1000"]}]}}`
	viewer     = `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: viewer}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: viewer}]}`
)

// TestMetricsServer installs metrics-server where the built-in API of metrics is served,
// reads the usage of nodes and pods from it, and uninstalls it: the built-in API is
// back, for those with the role view as well.
func TestMetricsServer(t *testing.T) {
	n := start(t)
	n.kubectl(measured, "apply", "-f", "-")
	n.kubectl(viewer, "apply", "-f", "-")
	builtIn := func() {
		t.Helper()
		n.shows([]string{"node ", "%"}, "top", "node")
		n.shows([]string{"measured", "Mi"}, "top", "pod", "--as=viewer")
		harness.Eventually(t, "both versions", func() bool { return n.versions() == "v1 v1beta1 " })
		n.shows([]string{"Local"}, "get", "apiservice", apiService, "v1.metrics.k8s.io")
	}
	builtIn()

	layer := imagetest.NewLayer(t)
	layer.CopyAs(os.Getenv(programEnv), "/metrics-server")
	layer.Dir("/tmp", 0o1777)
	image := imagetest.Push(t, layer.Image(imagev1.Config{Entrypoint: []string{"/metrics-server"}}), "metrics-server:1")
	overlay := n.overlay(image)
	n.kubectl("", "apply", "-k", overlay)
	defer func() {
		if t.Failed() {
			for _, args := range [][]string{{"get", "all", "-A"}, {"describe", "apiservice", apiService}, {"logs", "-n", "kube-system", "deploy/metrics-server", "--tail=50"}} {
				out, err := n.try("", args...)
				t.Log(out, err)
			}
		}
	}()
	n.shows([]string{"kube-system/metrics-server", "True"}, "get", "apiservice", apiService)
	if got := n.versions(); got != "v1beta1 " {
		t.Errorf("versions beside metrics-server's: %q", got)
	}
	// It has measured a pod after it has looked at it twice.
	n.shows([]string{"node ", "%"}, "top", "node")
	n.shows([]string{"measured", "metrics-server"}, "top", "pod", "-A", "--as=viewer")
	n.shows([]string{"POD", "measured"}, "top", "pod", "--containers")
	// It measures itself, and nothing answers in its place.
	n.kubectl("", "scale", "-n", "kube-system", "deploy/metrics-server", "--replicas=0")
	harness.Eventually(t, "the API to be gone with its server", func() bool {
		out, err := n.try("", "top", "node")
		return err != nil && strings.Contains(out, "Metrics API not available")
	})

	n.kubectl("", "delete", "-k", overlay)
	builtIn()
}
