package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/hook"
)

// StopOptions configure how pods are stopped.
type StopOptions struct {
	// MaxGrace bounds the time that a container has to end, whatever its pod's grace
	// period is; negative means no bound.
	MaxGrace time.Duration
	// Report, if set, is called periodically with what is being waited for.
	Report func(string)
}

const (
	// reportPeriod is the time between two calls of Report.
	reportPeriod = 2 * time.Second
	// endTimeout is how long containerd may take to end by itself.
	endTimeout = 10 * time.Second
	// reapTimeout is how long init may take to collect the shims that have
	// ended.
	reapTimeout = 3 * time.Second
	// defaultGrace is the grace period of a pod whose containers have no annotation
	// of it.
	defaultGrace = 30 * time.Second
	// named is the number of pods that a report names.
	named = 3
)

// Stop ends every pod, all at once and each within its grace period, then
// containerd, and then the processes that outlive both, so that none is left. It
// keeps images and the exit status of containers, which the next containerd
// reports to the node agent.
func (r *Runtime) Stop(ctx context.Context, o StopOptions) error {
	if _, err := os.Stat(r.o.State); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if o.Report == nil {
		o.Report = func(string) {}
	}
	var errs []error
	p := r.alive()
	shims := r.shims()
	if p == nil && len(shims) > 0 {
		// containerd has ended without its containers; it is needed to stop them in
		// order.
		if _, err := Start(ctx, r.o); err != nil {
			errs = append(errs, err)
		}
		p = r.alive()
	}
	if p != nil {
		defer p.Close()
		// A containerd that was killed a moment ago may be starting again.
		if err := r.wait(ctx); err != nil {
			errs = append(errs, err)
		} else {
			errs = append(errs, r.stopPods(ctx, o))
		}
		errs = append(errs, p.terminate(ctx, endTimeout))
	}
	os.Remove(r.o.pid())
	errs = append(errs, r.killShims())
	reaped(ctx, shims)
	return errors.Join(errs...)
}

// reaped waits for the processes, which have ended and belong to init, to leave
// the table of processes. It does not wait longer than reapTimeout.
func reaped(ctx context.Context, pids []int) {
	ctx, cancel := context.WithTimeout(ctx, reapTimeout)
	defer cancel()
	for _, pid := range pids {
		for {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
				break
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}
}

// stopPods stops all pods' sandboxes, with their containers.
func (r *Runtime) stopPods(ctx context.Context, o StopOptions) error {
	c, err := cri.Connect(ctx, r.Endpoint())
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	if len(list.Items) == 0 {
		return nil
	}
	running, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		return err
	}
	containers := map[string][]*runtimeapi.Container{}
	for _, k := range running.Containers {
		containers[k.PodSandboxId] = append(containers[k.PodSandboxId], k)
	}
	w := waiting{begun: time.Now(), left: map[string]time.Duration{}}
	for _, s := range list.Items {
		if s.State != runtimeapi.PodSandboxState_SANDBOX_READY && len(containers[s.Id]) == 0 {
			continue
		}
		w.left[podName(s)] = max(w.left[podName(s)], longest(containers[s.Id], o.MaxGrace))
	}
	if len(w.left) > 0 {
		o.Report(fmt.Sprintf("stopping %s", plural(len(w.left), "pod")))
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		t := time.NewTicker(reportPeriod)
		defer t.Stop()
		for {
			select {
			case now := <-t.C:
				if line := w.String(now); line != "" {
					o.Report(line)
				}
			case <-done:
				return
			}
		}
	}()
	errs := make([]error, len(list.Items))
	var wg sync.WaitGroup
	for i, s := range list.Items {
		wg.Go(func() {
			errs[i] = stopPod(ctx, c, s, containers[s.Id], o.MaxGrace)
			w.done(podName(s))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func podName(s *runtimeapi.PodSandbox) string {
	return s.GetMetadata().GetNamespace() + "/" + s.GetMetadata().GetName()
}

// stopPod runs the containers' preStop hooks, stops the containers within their grace
// periods, and stops the pod.
func stopPod(ctx context.Context, c *cri.Client, s *runtimeapi.PodSandbox, containers []*runtimeapi.Container, maxGrace time.Duration) error {
	var wg sync.WaitGroup
	for _, k := range containers {
		wg.Go(func() {
			until := time.Now().Add(grace(k, maxGrace))
			preStop(ctx, c, s, k, until)
			// Stopping the sandbox stops the container after a failure, or returns its
			// error.
			_, _ = c.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: k.Id, Timeout: int64(max(time.Until(until), 0).Seconds())})
		})
	}
	wg.Wait()
	if _, err := c.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
		return fmt.Errorf("stopping pod %s: %w", podName(s), err)
	}
	return nil
}

// preStop runs the container's preStop hook, if it has one, within its time. The
// container is stopped even if the hook fails.
func preStop(ctx context.Context, c *cri.Client, s *runtimeapi.PodSandbox, k *runtimeapi.Container, until time.Time) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	_ = hook.Runner{CRI: c, Clock: clock.RealClock{}}.PreStop(ctx, k, func(ctx context.Context) (string, error) {
		r, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.Id})
		if ip := r.GetStatus().GetNetwork().GetIp(); err != nil || ip != "" {
			return ip, err
		}
		return "127.0.0.1", nil // on the machine's network
	})
}

// grace returns the time that the container has to end: its pod's grace period,
// which the node agent keeps with it.
func grace(k *runtimeapi.Container, most time.Duration) time.Duration {
	g := defaultGrace
	if n, err := strconv.ParseInt(k.Annotations[cri.PodGraceAnnotation], 10, 32); err == nil && n >= 0 {
		g = time.Duration(n) * time.Second
	}
	if most >= 0 {
		g = min(g, most)
	}
	return g
}

func longest(containers []*runtimeapi.Container, most time.Duration) (g time.Duration) {
	for _, k := range containers {
		g = max(g, grace(k, most))
	}
	return g
}

// waiting are the pods that have not ended yet.
type waiting struct {
	mu    sync.Mutex
	begun time.Time
	left  map[string]time.Duration // the grace periods of pods
}

func (w *waiting) done(pod string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.left, pod)
}

// String names the pods that are waited for, those with the longest grace
// periods first, and the longest wait; it is empty when all have ended.
func (w *waiting) String(now time.Time) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.left) == 0 {
		return ""
	}
	pods := make([]string, 0, len(w.left))
	for p := range w.left {
		pods = append(pods, p)
	}
	slices.SortFunc(pods, func(a, b string) int {
		if w.left[a] != w.left[b] {
			return int(w.left[b]/time.Second - w.left[a]/time.Second)
		}
		return strings.Compare(a, b)
	})
	line := fmt.Sprintf("waiting for %s: %s", plural(len(pods), "pod"), strings.Join(pods[:min(named, len(pods))], ", "))
	if len(pods) > named {
		line += ", …"
	}
	if left := (w.left[pods[0]] - now.Sub(w.begun)).Round(time.Second); left > 0 {
		line += fmt.Sprintf(" (grace period ends in %s)", left)
	}
	return line
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Idle reports whether neither containerd nor anything that it has started is running, as
// after the start of the machine.
func (r *Runtime) Idle() bool {
	p := r.alive()
	if p != nil {
		p.Close()
	}
	return p == nil && len(r.shims()) == 0
}

// shims returns the processes that hold this containerd's containers.
func (r *Runtime) shims() (pids []int) {
	for _, pid := range processes() {
		if isShim(cmdline(pid), r.o.socket()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func isShim(cmdline []string, socket string) bool {
	if len(cmdline) == 0 || !strings.HasPrefix(filepath.Base(cmdline[0]), "containerd-shim") {
		return false
	}
	i := slices.Index(cmdline, "-address")
	return i >= 0 && i+1 < len(cmdline) && cmdline[i+1] == socket
}

// killShims ends the shims that containerd has left behind, and the processes in
// their containers.
func (r *Runtime) killShims() error {
	shims := r.shims()
	if len(shims) == 0 {
		return nil
	}
	var errs []error
	parent := parents(processes())
	for pid := range parent {
		if slices.Contains(shims, pid) {
			continue
		}
		for p := parent[pid]; p > 1; p = parent[p] {
			if slices.Contains(shims, p) {
				errs = append(errs, kill(pid))
				break
			}
		}
	}
	for _, pid := range shims {
		errs = append(errs, kill(pid))
	}
	return errors.Join(errs...)
}
