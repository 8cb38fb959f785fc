package cluster

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/trace"
)

// identity writes a kubeconfig of the user called name and gives its path.
func (c *Cluster) identity(t *testing.T, name string) string {
	t.Helper()
	pair, err := c.Certs.ClientCert(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*certs.Kubeconfig("test", c.url(), c.Certs.CAPEM, pair), file); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestSchedulerAlone runs two schedulers against the API server by HTTPS: one
// works, and the other takes over; what they write has its cause.
func TestSchedulerAlone(t *testing.T) {
	c := boot(t, Options{Listen: "127.0.0.1:0", NoScheduler: true, SimNodes: 1, NoDrain: true})
	o := Component{Kubeconfig: c.identity(t, user.KubeScheduler),
		Election: Election{LeaderElect: true, LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond}}
	client := c.Client(Admin)
	var stop []context.CancelFunc
	var done []chan error
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- RunScheduler(ctx, o) }()
		stop, done = append(stop, cancel), append(done, ended)
	}
	running := func(name string) *v1.Pod {
		t.Helper()
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}
		if _, err := client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		var got *v1.Pod
		if err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (ok bool, err error) {
			got, err = client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
			return err == nil && got.Status.Phase == v1.PodRunning, err
		}); err != nil {
			t.Fatalf("pod %s is %s on node %q: %v", name, got.Status.Phase, got.Spec.NodeName, err)
		}
		return got
	}
	first := running("first")
	if i := slices.IndexFunc(c.Trace.Way(first.UID), func(s trace.Step) bool { return s.Subresource == "binding" && s.CauseUID == first.UID }); i < 0 {
		t.Errorf("no binding with a cause among %+v", c.Trace.Way(first.UID))
	}
	lease, err := client.CoordinationV1().Leases("kube-system").Get(t.Context(), "kube-scheduler", metav1.GetOptions{})
	if err != nil || !strings.HasPrefix(*lease.Spec.HolderIdentity, hostname()+"_") {
		t.Errorf("lease %+v, %v", lease, err)
	}
	// One of them is the leader: whichever it is, the other goes on.
	for i := range stop {
		stop[i]()
		if err := <-done[i]; err != nil {
			t.Error(err)
		}
		if i == 0 {
			running("second")
		}
	}
}

func TestComponentWithoutServer(t *testing.T) {
	for _, o := range []Component{{Kubeconfig: filepath.Join(t.TempDir(), "none")}, {Master: "https://127.0.0.1:1"}} {
		if err := RunScheduler(t.Context(), o); err == nil || !strings.Contains(err.Error(), "API server") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestElectionValidate(t *testing.T) {
	for _, c := range []struct {
		e    Election
		want string
	}{
		{Election{}, ""},
		{Election{LeaseDuration: 10 * time.Second}, "--leader-elect-lease-duration"},
		{Election{RetryPeriod: 9 * time.Second}, "--leader-elect-retry-period"},
	} {
		err := c.e.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.e, err, c.want)
		}
	}
}
