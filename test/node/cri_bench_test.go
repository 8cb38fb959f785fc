package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/images"
	"keelson.dev/keelson/test/harness"
)

// BenchmarkDeploymentAgainstCRI compares the time from the creation of a
// deployment until its three pods are Ready with that of the bare calls of the
// runtime for the same sandboxes and containers, three at once, alternately. The
// metric ×CRI is the ratio.
func BenchmarkDeploymentAgainstCRI(b *testing.B) { againstCRI(b, 3) }

// BenchmarkPodAgainstCRI does that with one pod.
func BenchmarkPodAgainstCRI(b *testing.B) { againstCRI(b, 1) }

// BenchmarkHundredPodsAgainstCRI does that with 100 pods at once.
func BenchmarkHundredPodsAgainstCRI(b *testing.B) { againstCRI(b, 100) }

func againstCRI(b *testing.B, pods int32) {
	e := start(b)
	runtime, err := cri.Connect(b.Context(), e.runtime)
	if err != nil {
		b.Fatal(err)
	}
	defer runtime.Close()
	e.deploy(b, 1) // pulls the images
	var whole, bare []time.Duration
	for i := range b.N {
		whole = append(whole, e.deploy(b, pods))
		bare = append(bare, e.bare(b, runtime, i, int(pods)))
	}
	slices.Sort(whole)
	slices.Sort(bare)
	mean := func(all []time.Duration) (sum float64) {
		for _, d := range all {
			sum += d.Seconds() / float64(len(all))
		}
		return sum
	}
	b.ReportMetric(mean(whole)*1000, "ms/deployment")
	b.ReportMetric(mean(bare)*1000, "ms/CRI")
	b.ReportMetric(mean(whole)/mean(bare), "×CRI")
	// Other work on the machine only lengthens a round.
	b.ReportMetric(whole[len(whole)/2].Seconds()/bare[len(bare)/2].Seconds(), "×CRI-median")
	b.ReportMetric(0, "ns/op")
}

// deploy makes a Deployment of n pods, waits until they are Ready, deletes
// it, and returns the time until they were Ready.
func (e *env) deploy(b *testing.B, n int32) time.Duration {
	labels := map[string]string{"app": "bench"}
	begin := time.Now()
	_, err := e.client.AppsV1().Deployments("default").Create(b.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "bench"},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To(n), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{
				TerminationGracePeriodSeconds: ptr.To[int64](1),
				Containers:                    []v1.Container{{Name: "web", Image: image, ImagePullPolicy: v1.PullIfNotPresent}}}}}}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	e.available("bench", n)
	took := time.Since(begin)
	if err := e.client.AppsV1().Deployments("default").Delete(b.Context(), "bench", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		b.Fatal(err)
	}
	e.gone("app=bench")
	harness.Eventually(b, "the end of the deployment", func() bool {
		_, err := e.client.AppsV1().Deployments("default").Get(b.Context(), "bench", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	return took
}

// bare makes the runtime start what n such pods consist of, all at once.
func (e *env) bare(b *testing.B, c *cri.Client, round, n int) time.Duration {
	dir := b.TempDir()
	errs := make([]error, n)
	sandboxes := make([]string, n)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { sandboxes[i], errs[i] = bareCalls(b.Context(), c, dir, fmt.Sprintf("bare-%d-%d", round, i)) })
	}
	wg.Wait()
	took := time.Since(begin)
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
	return took
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
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", k.agent.Pid()))
		if err != nil {
			b.Fatal(err)
		}
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		user, err1 := strconv.Atoi(f[11])
		system, err2 := strconv.Atoi(f[12])
		if err := errors.Join(err1, err2); err != nil {
			b.Fatal(err)
		}
		return time.Duration(user+system) * 10 * time.Millisecond // a tick of proc_pid_stat(5)
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

func bareCalls(ctx context.Context, c *cri.Client, dir, name string) (string, error) {
	logs, files := filepath.Join(dir, name, "logs"), filepath.Join(dir, name, "files")
	for _, d := range []string{filepath.Join(logs, "web"), files} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	for _, f := range []string{"hosts", "termination"} {
		if err := os.WriteFile(filepath.Join(files, f), nil, 0o644); err != nil {
			return "", err
		}
	}
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name}, Hostname: name, LogDirectory: logs,
		DnsConfig: &runtimeapi.DNSConfig{}, Labels: map[string]string{"app": "bench"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}, Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}}},
	}
	s, err := c.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		return "", err
	}
	ct, err := c.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: s.PodSandboxId, SandboxConfig: sandbox, Config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "web"}, Image: &runtimeapi.ImageSpec{Image: images.Host + "/demo"}, LogPath: "web/0.log",
		Envs: []*runtimeapi.KeyValue{{Key: "KUBERNETES_SERVICE_HOST", Value: []byte("10.96.0.1")}, {Key: "KUBERNETES_SERVICE_PORT", Value: []byte("443")}},
		Mounts: []*runtimeapi.Mount{
			{HostPath: filepath.Join(files, "hosts"), ContainerPath: "/etc/hosts"},
			{HostPath: filepath.Join(files, "termination"), ContainerPath: "/dev/termination-log"},
			{HostPath: files, ContainerPath: "/var/run/secrets/kubernetes.io/serviceaccount", Readonly: true},
		},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{CpuPeriod: 100_000, CpuShares: 2, OomScoreAdj: 1000},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
				MaskedPaths: []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"}, ReadonlyPaths: []string{"/proc/sys", "/proc/irq", "/proc/bus"}},
		},
	}})
	if err != nil {
		return s.PodSandboxId, err
	}
	_, err = c.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: ct.ContainerId})
	return s.PodSandboxId, err
}
