package cluster

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/controllers/manager"
	"keelson.dev/keelson/internal/controllers/nodeipam"
	"keelson.dev/keelson/internal/scheduler"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/test/harness"
)

// identity writes a kubeconfig of the user called name and returns its path.
func identity(t *testing.T, c *Cluster, name string) string {
	t.Helper()
	pair, err := c.Certs.ClientCert(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*certs.Kubeconfig("test", c.URL(), c.Certs.CAPEM, pair), file); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestSchedulerAlone runs two schedulers against the API server by HTTPS: one
// works, and the other takes over; what they write has its cause.
func TestSchedulerAlone(t *testing.T) {
	c := boot(t, Options{Options: controlplane.Options{Listen: "127.0.0.1:0", NoDrain: true}, NoScheduler: true, SimNodes: 1})
	o := component.Options{Kubeconfig: identity(t, c, user.KubeScheduler),
		Election: component.Election{LeaderElect: true, LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond}}
	client := c.Client(inprocess.Admin)
	var stop []context.CancelFunc
	var done []chan error
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- scheduler.RunProcess(ctx, o) }()
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
	if err != nil || !strings.HasPrefix(*lease.Spec.HolderIdentity, component.Hostname()+"_") {
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

// TestControllersAlone runs the controllers against the API server by HTTPS,
// each as its own account: a Deployment becomes Pods, whose cause and author are
// known, and its deletion takes all of it away.
func TestControllersAlone(t *testing.T) {
	c := boot(t, Options{Options: controlplane.Options{Listen: "127.0.0.1:0", NoDrain: true}, NoControllers: true, SimNodes: 1})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		o := manager.Options{Options: component.Options{Kubeconfig: identity(t, c, user.KubeControllerManager)}, UseServiceAccountCredentials: true,
			NodeIPAM: nodeipam.Selection{NoAllocation: true}}
		ended <- o.Run(ctx)
	}()
	client := c.Client(inprocess.Admin)
	until := func(what string, done func(ctx context.Context) (bool, error)) {
		t.Helper()
		harness.Eventually(t, what, func() bool {
			ok, err := done(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return ok
		})
	}
	until("the account of new namespaces", func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
	labels := map[string]string{"app": "web"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}}}
	if _, err := client.AppsV1().Deployments("default").Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until("two available replicas", func(ctx context.Context) (bool, error) {
		got, err := client.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
		return err == nil && got.Status.AvailableReplicas == 2, err
	})
	pods, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) != 2 {
		t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	way := c.Trace.Way(pods.Items[0].UID)
	if i := slices.IndexFunc(way, func(s trace.Step) bool {
		return s.Verb == "create" && s.UID == pods.Items[0].UID && s.Actor == "replicaset-controller" && s.CauseUID == pods.Items[0].OwnerReferences[0].UID && s.CauseVersion != ""
	}); i < 0 {
		t.Errorf("no creation with cause and author among %+v", way)
	}
	if err := client.AppsV1().Deployments("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until("no pods", func(ctx context.Context) (bool, error) {
		pods, err := client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		return err == nil && len(pods.Items) == 0, err
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
