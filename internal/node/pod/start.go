package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/convert"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/image"
	"keelson.dev/keelson/internal/node/logs"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/trace"
)

// callTimeout bounds a call to the runtime, as a kubelet's
// runtimeRequestTimeout.
const callTimeout = 2 * time.Minute

// startFailure is why a container did not start, and when to try again.
type startFailure struct {
	wait
	after time.Duration
}

// containerRef returns the object of events about a container.
func containerRef(pod *v1.Pod, name string) *v1.ObjectReference {
	field := "spec.containers"
	for f, c := range podspec.Containers(pod) {
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
			w.Recorder.Event(ref, v1.EventTypeWarning, "Failed", fmt.Sprintf("Error: %v", err))
		}
		return &startFailure{wait{reason, err.Error()}, retryPeriod}
	}
	id, failed := w.pulls.Ensure(ctx, pod, c.Image, c.ImagePullPolicy, ref)
	if failed != nil {
		return &startFailure{wait{failed.Reason, failed.Message}, failed.After}
	}
	images, failed := w.images(ctx, pod, c, ref)
	if failed != nil {
		return &startFailure{wait{failed.Reason, failed.Message}, failed.After}
	}
	target, err := w.target(ctx, pod, c)
	if err != nil {
		return fail("CreateContainerConfigError", err)
	}
	sandboxCfg, err := w.Converter.Sandbox(pod, sandbox.GetMetadata().GetAttempt())
	if err != nil {
		return fail("CreateContainerConfigError", err)
	}
	given, err := w.Exclusive.Prepare(ctx, pod, c)
	if err != nil {
		return fail("CreateContainerConfigError", err)
	}
	cfg, err := w.Converter.Container(ctx, &convert.Run{Pod: pod, Container: c, Image: id, IPs: ips, Count: count, Volumes: w.volumes, Images: images, CDI: w.Devices.CDI(pod, c), Given: given, Target: target})
	if err != nil {
		return fail("CreateContainerConfigError", err)
	}
	if err := os.MkdirAll(filepath.Join(w.Layout.PodLogs(pod), c.Name), 0o755); err != nil {
		return fail("CreateContainerError", err)
	}
	// A runtime whose call is given up goes on with it: the container would be
	// started by a call that nothing waits for.
	if ctx.Err() != nil {
		return fail("CreateContainerError", ctx.Err())
	}
	whole, done := context.WithTimeout(w.Trace.Within(w.ctx, w.uid), callTimeout)
	defer done()
	begin := time.Now()
	created, err := w.CRI.CreateContainer(whole, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox.Id, Config: cfg, SandboxConfig: sandboxCfg})
	if err != nil {
		return fail("CreateContainerError", err)
	}
	w.Recorder.Event(ref, v1.EventTypeNormal, "Created", "Container created")
	w.Trace.Phase("pods", pod, trace.PhaseCreate, "container "+c.Name, begin)
	begin = time.Now()
	if _, err := w.CRI.StartContainer(whole, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return fail("RunContainerError", err)
	}
	w.Trace.Phase("pods", pod, trace.PhaseStart, "container "+c.Name, begin)
	w.Recorder.Event(ref, v1.EventTypeNormal, "Started", "Container started")
	if err := w.resizing.actuated(pod, created.ContainerId, c, nil); err != nil {
		klog.FromContext(ctx).Error(err, "Keeping what the container was given failed", "container", c.Name)
	}
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		w.notify() // the container is to be seen running while its hook runs
		begin := time.Now()
		if err := w.kills.hook(ctx, c, c.Lifecycle.PostStart, created.ContainerId, ips); err != nil {
			klog.FromContext(ctx).Error(err, "PostStart hook failed", "container", c.Name)
			w.Recorder.Event(ref, v1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
			st := &runtimeapi.ContainerStatus{Id: created.ContainerId, Labels: cfg.Labels, Metadata: cfg.Metadata}
			w.kills.kill(context.WithoutCancel(ctx), pod, st, "FailedPostStartHook", podspec.GracePeriod(pod))
			return &startFailure{wait{"PostStartHookError", "PostStartHook failed"}, 0}
		}
		w.Trace.Phase("pods", pod, trace.PhaseHook, "container "+c.Name, begin)
	}
	return nil
}

func (w *worker) removeContainer(ctx context.Context, pod *v1.Pod, st *runtimeapi.ContainerStatus) {
	if st.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		return
	}
	if _, err := w.CRI.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: st.Id}); err != nil {
		klog.FromContext(ctx).V(2).Info("Removing a dead container failed", "container", st.Id, "err", err)
		return
	}
	w.resizing.forget(st.Id)
	name, run := st.Labels[cri.ContainerNameLabel], cri.RestartCount(st)
	os.Remove(w.Layout.Termination(pod, name, run))
	path := w.Layout.Log(pod, name, run)
	rotated, _ := logs.Rotated(path)
	for _, file := range append(rotated, path) {
		os.Remove(file)
	}
}

// images pulls the images that the container mounts as volumes, and returns the IDs
// of those that the runtime is to mount, by volume; else they have been mounted.
func (w *worker) images(ctx context.Context, pod *v1.Pod, c *v1.Container, ref *v1.ObjectReference) (map[string]string, *image.Failure) {
	out := map[string]string{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Image == nil || !slices.ContainsFunc(c.VolumeMounts, func(m v1.VolumeMount) bool { return m.Name == v.Name }) {
			continue
		}
		id, failed := w.pulls.Ensure(ctx, pod, v.Image.Reference, v.Image.PullPolicy, ref)
		if failed != nil {
			w.Metrics.ImageVolume(errors.New(failed.Reason))
			return nil, failed
		}
		if w.CRI.MountsImages() {
			out[v.Name] = id
			w.Metrics.ImageVolume(nil)
		} else if err := w.ImageVolumes.Mount(ctx, id, string(w.uid), v.Name, w.volumes[v.Name].HostPath); err != nil {
			w.Metrics.ImageVolume(err)
			w.Recorder.Event(pod, v1.EventTypeWarning, "FailedMount", volume.Message(v.Name, err))
			return nil, &image.Failure{Reason: "CreateContainerConfigError", Message: err.Error(), After: retryPeriod}
		} else {
			w.Metrics.ImageVolume(nil)
		}
	}
	return out, nil
}

// target returns the ID of the container whose processes the container is to see, ""
// if it is to see none.
func (w *worker) target(ctx context.Context, pod *v1.Pod, c *v1.Container) (string, error) {
	name := podspec.Target(pod, c.Name)
	if name == "" {
		return "", nil
	}
	obs, err := w.history.observe(ctx)
	if err != nil {
		return "", err
	}
	st := obs.current(name)
	if st == nil {
		return "", fmt.Errorf("unable to find target container %v", name)
	}
	return st.Id, nil
}
