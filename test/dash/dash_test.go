package dash_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/dash/proxy"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/imagetest"
	"keelson.dev/keelson/test/harness/podtest"
	"keelson.dev/keelson/test/harness/realnode"
)

func TestMain(m *testing.M) {
	harness.OwnNetwork()
	os.Exit(m.Run())
}

// limit bounds the browser's part of the test.
const limit = 8 * time.Minute

// TestPage runs web/test/real.mjs, a browser that has the page, against a cluster with pods
// that write to their logs and that commands are run in.
func TestPage(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	n := realnode.Start(t, agent.Options{})
	client := kubernetes.NewForConfigOrDie(n.Config)
	image := imagetest.Busybox(t)
	// Each waits in a child, so that a signal ends it at once.
	const wait = `trap "exit 0" TERM; sleep 86400 & wait`
	pods := map[string]v1.PodSpec{
		"shell": {Containers: []v1.Container{
			shell(image, "main", "echo main has started; "+wait),
			shell(image, "side", "echo side has started; "+wait),
		}, InitContainers: []v1.Container{shell(image, "before", "echo this comes first")}},
		// The second start of the container finds what the first has left.
		"restarts": {Containers: []v1.Container{mounted(shell(image, "main", "if [ -e /kept/run ]; then echo the second run; "+wait+"; fi; touch /kept/run; echo the first run; exit 4"))},
			Volumes: []v1.Volume{{Name: "kept", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}},
		"ends": {RestartPolicy: v1.RestartPolicyNever, Containers: []v1.Container{shell(image, "main", "echo at work; until [ -e /tmp/end ]; do sleep 0.1; done; echo done with it; exit 3")}},
		"goes": {Containers: []v1.Container{shell(image, "main", "echo still here; "+wait)}},
		// What it writes would be elements, commands of a terminal or a link elsewhere.
		"evil": {Containers: []v1.Container{shell(image, "main", `printf '<img src=x onerror="document.title=1">\033[2J\033]0;owned\007\033]8;;https://example.com\007link\033]8;;\007\r\342\200\256lru\n'; `+wait)}},
	}
	for name, spec := range pods {
		spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
		if _, err := client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for name := range pods {
		harness.Eventually(t, "pod "+name, func() bool {
			p, err := client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && podtest.Ready(p) && (name != "restarts" || p.Status.ContainerStatuses[0].RestartCount == 1)
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "--test", "--test-reporter=spec", "test/real.mjs")
	cmd.Dir = filepath.Join(root, "web")
	cmd.Env = append(os.Environ(), "PAGE="+serve(t, n.Config), "READER="+serve(t, reader(t, client, n.Config, "reader")),
		"GETTER="+serve(t, reader(t, client, n.Config, "getter", "pods/exec")))
	// An interrupt lets it close its browser.
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, 20*time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("the page in a browser: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	for name := range pods {
		if err := client.CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil && name != "goes" {
			t.Error(err)
		}
	}
	harness.Eventually(t, "the end of the pods", func() bool {
		l, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		return err == nil && len(l.Items) == 0
	})
}

// shell returns a container that runs a script.
func shell(image, name, script string) v1.Container {
	return v1.Container{Name: name, Image: image, Command: []string{"sh", "-c", script}}
}

// mounted returns the container with the volume kept.
func mounted(c v1.Container) v1.Container {
	c.VolumeMounts = []v1.VolumeMount{{Name: "kept", MountPath: "/kept"}}
	return c
}

// serve does what keelson dash does for a user until the end of the test, and returns the
// URL.
func serve(t *testing.T, cfg *rest.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(proxy.Config{Client: cfg, Listener: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p.URL()
}

// reader returns the configuration of a new user who may read pods, their logs, and more of
// them, and nothing else.
func reader(t *testing.T, client kubernetes.Interface, admin *rest.Config, user string, more ...string) *rest.Config {
	t.Helper()
	ctx, name := t.Context(), metav1.ObjectMeta{Name: user}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := client.CoreV1().ServiceAccounts("default").Create(ctx, &v1.ServiceAccount{ObjectMeta: name}, metav1.CreateOptions{})
	check(err)
	_, err = client.RbacV1().Roles("default").Create(ctx, &rbacv1.Role{ObjectMeta: name, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: append([]string{"pods", "pods/log"}, more...), Verbs: []string{"get", "list", "watch"}},
	}}, metav1.CreateOptions{})
	check(err)
	_, err = client.RbacV1().RoleBindings("default").Create(ctx, &rbacv1.RoleBinding{ObjectMeta: name,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: user}}}, metav1.CreateOptions{})
	check(err)
	token, err := client.CoreV1().ServiceAccounts("default").CreateToken(ctx, user, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	check(err)
	cfg := rest.AnonymousClientConfig(admin)
	cfg.BearerToken = token.Status.Token
	return cfg
}
