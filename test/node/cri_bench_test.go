package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"google.golang.org/protobuf/proto"
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/heap"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/test/harness"
)

// BenchmarkDeploymentAgainstCRI compares the time from the creation of a
// deployment until its three pods are Ready with that of the bare calls of the
// runtime for the same sandboxes and containers, three at once, alternately. The
// metric ×CRI is the ratio. The bare calls are those that the agent makes, with the same
// configuration; what they leave out is what a kubelet does besides: volumes, the content
// of files, cgroups' limits, reading the pods' states, and the API.
func BenchmarkDeploymentAgainstCRI(b *testing.B) { againstCRI(b, 3) }

// BenchmarkPodAgainstCRI does that with one pod.
func BenchmarkPodAgainstCRI(b *testing.B) { againstCRI(b, 1) }

// BenchmarkHundredPodsAgainstCRI does that with 100 pods at once.
func BenchmarkHundredPodsAgainstCRI(b *testing.B) { againstCRI(b, 100) }

func againstCRI(b *testing.B, pods int32) {
	heap.Pace() // as the program does
	e := start(b)
	runtime, err := cri.Connect(b.Context(), e.runtime)
	if err != nil {
		b.Fatal(err)
	}
	defer runtime.Close()
	var calls *bareCalls
	// Pulls the images.
	e.deploy(b, 1, func() { calls = readCalls(b, runtime) })
	var whole, bare []cost
	for i := range b.N {
		whole = append(whole, e.deploy(b, pods, func() {}))
		bare = append(bare, e.bare(b, runtime, calls, i, int(pods)))
		b.Logf("the deployment %s; the bare calls %s", whole[i], bare[i])
	}
	b.ReportMetric(mean(whole)*1000, "ms/deployment")
	b.ReportMetric(mean(bare)*1000, "ms/CRI")
	b.ReportMetric(mean(whole)/mean(bare), "×CRI")
	// Other work on the machine only lengthens a round.
	b.ReportMetric(median(whole, cost.seconds)/median(bare, cost.seconds), "×CRI-median")
	if pods > 1 { // one takes too few ticks of the clock
		b.ReportMetric(median(whole, cost.processor)/median(bare, cost.processor), "×CPU-median")
	}
	b.ReportMetric(0, "ns/op")
}

// deploy makes a Deployment of n pods, waits until they are Ready, calls then, and deletes
// it. It returns what it took until they were Ready.
func (e *env) deploy(b *testing.B, n int32, then func()) cost {
	labels := map[string]string{"app": "bench"}
	took := e.measure(b, int(n))
	_, err := e.client.AppsV1().Deployments("default").Create(b.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "bench"},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To(n), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{
				TerminationGracePeriodSeconds: ptr.To[int64](1),
				Containers:                    []v1.Container{{Name: "web", Image: image, ImagePullPolicy: v1.PullIfNotPresent}}}}}}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	e.available("bench", n)
	all := took()
	then()
	if err := e.client.AppsV1().Deployments("default").Delete(b.Context(), "bench", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		b.Fatal(err)
	}
	e.gone("app=bench")
	harness.Eventually(b, "the end of the deployment", func() bool {
		_, err := e.client.AppsV1().Deployments("default").Get(b.Context(), "bench", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	return all
}

// bare makes the runtime start what n such pods consist of, all at once.
func (e *env) bare(b *testing.B, c *cri.Client, calls *bareCalls, round, n int) cost {
	dir := b.TempDir()
	errs := make([]error, n)
	sandboxes := make([]string, n)
	took := e.measure(b, n)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { sandboxes[i], errs[i] = calls.make(b.Context(), c, dir, fmt.Sprintf("bare-%d-%d", round, i)) })
	}
	wg.Wait()
	all := took()
	for i := range errs {
		wg.Go(func() {
			if sandboxes[i] == "" {
				return
			}
			if _, err := c.StopPodSandbox(b.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandboxes[i]}); err != nil {
				b.Error(err)
			}
			if _, err := c.RemovePodSandbox(b.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandboxes[i]}); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			b.Error(err)
		}
	}
	if b.Failed() {
		b.FailNow()
	}
	return all
}

// bareCalls has the configuration of a pod of one container, as the agent has given it to
// the runtime, for pods of which the agent knows nothing.
type bareCalls struct {
	sandbox   *runtimeapi.PodSandboxConfig
	container *runtimeapi.ContainerConfig
}

// readCalls reads it from the runtime, which has one pod.
func readCalls(b *testing.B, c *cri.Client) *bareCalls {
	calls := &bareCalls{sandbox: &runtimeapi.PodSandboxConfig{}, container: &runtimeapi.ContainerConfig{}}
	read := func(info map[string]string, into any) {
		// Older versions of CRI have text in place of the bytes of a variable's value.
		var said struct{ Config map[string]any }
		if err := json.Unmarshal([]byte(info["info"]), &said); err != nil {
			b.Fatal(err)
		}
		if vars, ok := said.Config["envs"].([]any); ok {
			for _, v := range vars {
				v := v.(map[string]any)
				if s, ok := v["value"].(string); ok {
					v["value"] = []byte(s)
				}
			}
		}
		text, err := json.Marshal(said.Config)
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	sandboxes, err := c.ListPodSandbox(b.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(sandboxes.Items) != 1 {
		b.Fatal(sandboxes, err)
	}
	containers, err := c.ListContainers(b.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(containers.Containers) != 1 {
		b.Fatal(containers, err)
	}
	s, err := c.PodSandboxStatus(b.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sandboxes.Items[0].Id, Verbose: true})
	if err != nil {
		b.Fatal(err)
	}
	read(s.Info, calls.sandbox)
	k, err := c.ContainerStatus(b.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: containers.Containers[0].Id, Verbose: true})
	if err != nil {
		b.Fatal(err)
	}
	read(k.Info, calls.container)
	if calls.sandbox.Linux.CgroupParent == "" || len(calls.container.Mounts) != 3 {
		b.Fatalf("the runtime does not tell what the agent asked for: %s", k.Info)
	}
	return calls
}

// make makes a pod of that name, with its files in dir, and returns the ID of its sandbox.
func (calls *bareCalls) make(ctx context.Context, c *cri.Client, dir, name string) (string, error) {
	sandbox := proto.Clone(calls.sandbox).(*runtimeapi.PodSandboxConfig)
	container := proto.Clone(calls.container).(*runtimeapi.ContainerConfig)
	sandbox.Metadata.Name, sandbox.Metadata.Uid, sandbox.Hostname = name, name, name
	sandbox.LogDirectory = filepath.Join(dir, name, "logs")
	sandbox.Linux.CgroupParent = filepath.Join(filepath.Dir(sandbox.Linux.CgroupParent), name)
	delete(sandbox.Labels, cri.PodUIDLabel)
	delete(container.Labels, cri.PodUIDLabel)
	if err := os.MkdirAll(filepath.Dir(filepath.Join(sandbox.LogDirectory, container.LogPath)), 0o755); err != nil {
		return "", err
	}
	for i, m := range container.Mounts {
		to := filepath.Join(dir, name, strconv.Itoa(i))
		var err error
		if m.Readonly { // the token's volume
			err = os.Mkdir(to, 0o755)
		} else {
			err = os.WriteFile(to, nil, 0o644)
		}
		if err != nil {
			return "", err
		}
		m.HostPath = to
	}
	s, err := c.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		return "", err
	}
	k, err := c.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: s.PodSandboxId, SandboxConfig: sandbox, Config: container})
	if err != nil {
		return s.PodSandboxId, err
	}
	_, err = c.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: k.ContainerId})
	return s.PodSandboxId, err
}

// idlePods is how many pods do nothing in BenchmarkIdle, and idleTime for how long.
const (
	idlePods = 50
	idleTime = 10 * time.Second
)

// BenchmarkIdle measures how much of a core an agent, in a process of its own, uses that
// has 50 pods which do nothing.
func BenchmarkIdle(b *testing.B) {
	k := startKillable(b)
	for i := range idlePods {
		p := sleeper(fmt.Sprintf("idle%02d", i))
		p.Labels = map[string]string{"idle": ""}
		p.Spec.Containers[0].ImagePullPolicy = v1.PullIfNotPresent
		k.create(p)
	}
	for i := range idlePods {
		k.pod(fmt.Sprintf("idle%02d", i), ready)
	}
	used := func() time.Duration {
		p, err := procfs.NewProc(k.agent.Pid())
		if err != nil {
			b.Fatal(err)
		}
		st, err := p.Stat()
		if err != nil {
			b.Fatal(err)
		}
		return ticks(st.UTime + st.STime)
	}
	wait := func() {
		select {
		case <-time.After(idleTime):
		case <-b.Context().Done():
		}
	}
	wait() // until what follows the starts is done
	before, begun := used(), time.Now()
	for range b.N {
		wait()
	}
	b.ReportMetric(100*float64(used()-before)/float64(time.Since(begun)), "%core")
	b.ReportMetric(0, "ns/op")
	if err := k.client.CoreV1().Pods("default").DeleteCollection(b.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "idle"}); err != nil {
		b.Fatal(err)
	}
	k.gone("idle")
}
