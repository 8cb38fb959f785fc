package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/logs"
)

// startFailure is why a container did not start, and when to try again.
type startFailure struct {
	wait
	after time.Duration
}

// containerRef gives the object of events about a container.
func containerRef(pod *v1.Pod, name string) *v1.ObjectReference {
	field := "spec.containers"
	for f, c := range containersOf(pod) {
		if c.Name == name {
			field = f
		}
	}
	return &v1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
		ResourceVersion: pod.ResourceVersion, FieldPath: fmt.Sprintf("%s{%s}", field, name),
	}
}

// start pulls, creates and starts a container and runs its postStart hook.
func (w *worker) start(ctx context.Context, pod *v1.Pod, c *v1.Container, sandbox *runtimeapi.PodSandboxStatus, ips []string, count int32) *startFailure {
	ref := containerRef(pod, c.Name)
	fail := func(reason string, err error) *startFailure {
		if ctx.Err() == nil {
			w.a.Recorder.Event(ref, v1.EventTypeWarning, "Failed", fmt.Sprintf("Error: %v", err))
		}
		return &startFailure{wait{reason, err.Error()}, retryPeriod}
	}
	image, failed := w.ensureImage(ctx, pod, c, ref)
	if failed != nil {
		return failed
	}
	sandboxCfg, err := w.a.sandboxConfig(pod, sandbox.GetMetadata().GetAttempt())
	if err != nil {
		return fail("CreateContainerConfigError", err)
	}
	cfg, err := w.containerConfig(ctx, pod, c, image, ips, count)
	if err != nil {
		return fail("CreateContainerConfigError", err)
	}
	if err := os.MkdirAll(filepath.Join(w.a.podLogDir(pod), c.Name), 0o755); err != nil {
		return fail("CreateContainerError", err)
	}
	created, err := w.a.cri.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox.Id, Config: cfg, SandboxConfig: sandboxCfg})
	if err != nil {
		return fail("CreateContainerError", err)
	}
	w.a.Recorder.Event(ref, v1.EventTypeNormal, "Created", "Container created")
	if _, err := w.a.cri.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return fail("RunContainerError", err)
	}
	w.a.Recorder.Event(ref, v1.EventTypeNormal, "Started", "Container started")
	if err := w.actuated(pod, created.ContainerId, &c.Resources, nil); err != nil {
		klog.FromContext(ctx).Error(err, "Keeping what the container was given failed", "container", c.Name)
	}
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		w.notify() // the container is to be seen running while its hook runs
		if err := w.hook(ctx, c, c.Lifecycle.PostStart, created.ContainerId, ips); err != nil {
			klog.FromContext(ctx).Error(err, "PostStart hook failed", "container", c.Name)
			w.a.Recorder.Event(ref, v1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
			st := &runtimeapi.ContainerStatus{Id: created.ContainerId, Labels: cfg.Labels, Metadata: cfg.Metadata}
			w.kill(context.WithoutCancel(ctx), pod, st, "FailedPostStartHook", gracePeriod(pod))
			return &startFailure{wait{"PostStartHookError", "PostStartHook failed"}, 0}
		}
	}
	return nil
}

func (w *worker) removeContainer(ctx context.Context, pod *v1.Pod, st *runtimeapi.ContainerStatus) {
	if st.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		return
	}
	if _, err := w.a.cri.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: st.Id}); err != nil {
		klog.FromContext(ctx).V(2).Info("Removing a dead container failed", "container", st.Id, "err", err)
		return
	}
	path := filepath.Join(w.a.podLogDir(pod), logPath(st.Labels[labelContainerName], restartCount(st)))
	rotated, _ := logs.Rotated(path)
	for _, name := range append(rotated, path) {
		os.Remove(name)
	}
}

func logPath(name string, n int32) string { return filepath.Join(name, strconv.Itoa(int(n))+".log") }
