package node_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	imagev1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/stats"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/imagetest"
	"keelson.dev/keelson/test/harness/podtest"
	"keelson.dev/keelson/test/harness/realnode"
)

// busybox returns the reference of an image of busybox, which sleeps.
func busybox(t *testing.T) string {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	l := imagetest.NewLayer(t)
	l.File("/bin/busybox", 0o755, program)
	return imagetest.Push(t, l.Image(imagev1.Config{Entrypoint: []string{"/bin/busybox"}, Cmd: []string{"sleep", "1000"}, Env: []string{"PATH=/bin"}}), "busybox:1")
}

// TestFullNode has pods fill a node's disk and its memory: the pod that takes more than it
// has requested is evicted, the one that does not goes on, and the node takes pods again.
func TestFullNode(t *testing.T) {
	image := busybox(t)
	all := resource.NewQuantity(int64(stats.MemTotal())-256<<20, resource.BinarySI) // but 256 MiB
	for name, c := range map[string]struct {
		options   agent.Options
		prepare   func(*cluster.Options)
		resource  v1.ResourceName
		condition v1.NodeConditionType
		medium    v1.StorageMedium
		greed     string // MiB
		threshold string
	}{
		"disk": {
			agent.Options{Eviction: eviction.Settings{Hard: map[string]string{"nodefs.available": "24Mi"}, Transition: time.Second}},
			func(o *cluster.Options) {
				// A disk of its own for the folder of the pods.
				dir := filepath.Join(o.DataDir, "node")
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
					t.Fatal(err)
				}
			},
			v1.ResourceEphemeralStorage, v1.NodeDiskPressure, v1.StorageMediumDefault, "44", "24Mi",
		},
		"memory": {
			agent.Options{Eviction: eviction.Settings{Hard: map[string]string{"memory.available": "96Mi"}, Transition: time.Second},
				KubeReserved: v1.ResourceList{v1.ResourceMemory: *all}},
			func(*cluster.Options) {},
			v1.ResourceMemory, v1.NodeMemoryPressure, v1.StorageMediumMemory, "190", "96Mi",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := realnode.Start(t, c.options, c.prepare)
			e := &env{TB: t, client: kubernetes.NewForConfigOrDie(n.Config), cfg: n.Config, runtime: n.Runtime, logs: n.Logs}
			run := func(name, request string) *v1.Pod {
				p := sleepingPod(name)
				p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: c.medium}}}}
				p.Spec.Containers[0] = v1.Container{Name: "c", Image: image, VolumeMounts: []v1.VolumeMount{{Name: "v", MountPath: "/v"}},
					Resources: v1.ResourceRequirements{Requests: v1.ResourceList{c.resource: resource.MustParse(request)}}}
				e.create(p)
				return e.pod(name, ready)
			}
			modest := run("modest", "16Mi")
			run("greedy", "0")
			// It may be evicted before the command has ended.
			_, _ = podtest.Exec(t.Context(), n.Config, "default", "greedy", "c", "", "busybox", "dd", "if=/dev/zero", "of=/v/f", "bs=1M", "count="+c.greed)
			p := e.pod("greedy", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })
			begins := "The node was low on resource: " + string(c.resource) + ". Threshold quantity: " + c.threshold + ", available: "
			ends := ", request is 0, has larger consumption of " + string(c.resource) + ". "
			if m := p.Status.Message; p.Status.Reason != "Evicted" || !strings.HasPrefix(m, begins) || !strings.Contains(m, "Container c was using ") || !strings.HasSuffix(m, ends) {
				t.Errorf("%s: %q", p.Status.Reason, m)
			}
			if !slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool {
				return c.Type == v1.DisruptionTarget && c.Status == v1.ConditionTrue && c.Reason == v1.PodReasonTerminationByKubelet
			}) {
				t.Errorf("the conditions are %+v", p.Status.Conditions)
			}
			harness.Eventually(t, "the end of the pressure", func() bool {
				node, err := e.client.CoreV1().Nodes().Get(t.Context(), "node", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return len(node.Spec.Taints) == 0 && slices.ContainsFunc(node.Status.Conditions, func(n v1.NodeCondition) bool { return n.Type == c.condition && n.Status == v1.ConditionFalse })
			})
			run("next", "1Mi")
			if now := e.pod("modest", ready); now.UID != modest.UID || now.Status.ContainerStatuses[0].RestartCount != 0 {
				t.Errorf("the pod that took no more than its request: %+v", now.Status)
			}
		})
	}
}
