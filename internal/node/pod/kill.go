package pod

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/hook"
	"keelson.dev/keelson/internal/node/podspec"
)

// minimumGrace is the least time, in seconds, that a container has between
// being asked to end and being killed.
const minimumGrace int64 = 2

// kill is the stopping of a container that is under way.
type kill struct {
	until  time.Time
	cancel context.CancelFunc
	// turn is closed when the container may be asked to end, after those that need it; nil is
	// at once.
	turn chan struct{}
}

// kills stops containers, each once at a time.
type kills struct {
	*base
	history *history
	mu      sync.Mutex
	byID    map[string]*kill // by container ID
}

func newKills(b *base, h *history) *kills {
	return &kills{base: b, history: h, byID: map[string]*kill{}}
}

// kill stops a container beside the loop; asked again with less time, it
// hurries. The runtime's event reports the end.
func (k *kills) kill(ctx context.Context, pod *v1.Pod, st *runtimeapi.ContainerStatus, message string, grace int64) {
	k.begin(ctx, pod, st, message, grace, nil)
}

// killLast is kill for a sidecar, which is asked to end when it is its turn, or when the time is up. Its
// preStop hook runs at once.
func (k *kills) killLast(ctx context.Context, pod *v1.Pod, st *runtimeapi.ContainerStatus, grace int64) {
	k.begin(ctx, pod, st, "", grace, make(chan struct{}))
}

// turn lets the container be asked to end.
func (k *kills) turn(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if this := k.byID[id]; this != nil && this.turn != nil {
		close(this.turn)
		this.turn = nil
	}
}

func (k *kills) begin(ctx context.Context, pod *v1.Pod, st *runtimeapi.ContainerStatus, message string, grace int64, turn chan struct{}) {
	grace = max(grace, minimumGrace)
	until := k.Clock.Now().Add(time.Duration(grace) * time.Second)
	name := st.Labels[cri.ContainerNameLabel]
	k.mu.Lock()
	old := k.byID[st.Id]
	if old != nil && !until.Before(old.until.Add(-time.Second)) {
		k.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	this := &kill{until, cancel, turn}
	k.byID[st.Id] = this
	k.mu.Unlock()
	if old != nil {
		old.cancel()
	} else {
		if message == "" {
			message = "Stopping container " + name
		}
		k.Recorder.Event(containerRef(pod, name), v1.EventTypeNormal, "Killing", message)
	}
	k.wg.Go(func() {
		defer cancel()
		begun := k.Clock.Now()
		if c := podspec.Container(pod, name); old == nil && c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
			hctx, done := context.WithTimeout(ctx, time.Duration(grace)*time.Second)
			err := k.hook(hctx, c, c.Lifecycle.PreStop, st.Id, nil)
			if err != nil && ctx.Err() == nil {
				k.Recorder.Event(containerRef(pod, name), v1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
			}
			done()
		}
		if wait := time.Duration(grace)*time.Second - k.Clock.Since(begun); turn != nil && wait > 0 {
			select {
			case <-turn:
			case <-k.Clock.After(wait):
			case <-ctx.Done():
			}
		}
		left := max(grace-int64(k.Clock.Since(begun)/time.Second), minimumGrace)
		_, err := k.CRI.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: st.Id, Timeout: left})
		k.mu.Lock()
		if k.byID[st.Id] == this {
			delete(k.byID, st.Id)
		}
		k.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Stopping the container failed", "container", name, "id", st.Id)
			select {
			case <-ctx.Done():
			case <-k.Clock.After(shortRetry):
			}
		}
		k.notify()
	})
}

// exec runs a command in a container to its end.
func (k *kills) exec(ctx context.Context, id string, command []string, timeout time.Duration) (string, int32, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		// The runtime keeps the timeout; this one is for a runtime that hangs.
		ctx, cancel = context.WithTimeout(ctx, timeout+5*time.Second)
		defer cancel()
	}
	r, err := k.CRI.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: int64((timeout + time.Second - 1) / time.Second)})
	if err != nil {
		return "", 0, err
	}
	return string(r.Stdout) + string(r.Stderr), r.ExitCode, nil
}

// hook runs a lifecycle handler; ips are the pod's addresses, read from the runtime
// where there are none.
func (k *kills) hook(ctx context.Context, c *v1.Container, h *v1.LifecycleHandler, id string, ips []string) error {
	return hook.Runner{CRI: k.CRI, Clock: k.Clock}.Run(ctx, h, c, id, func(ctx context.Context) (string, error) {
		if len(ips) > 0 {
			return ips[0], nil
		}
		obs, err := k.history.observe(ctx)
		if err != nil {
			return "", err
		}
		return append(obs.ips(), "")[0], nil
	})
}
