package node

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/logs"
)

// housekeepingPeriod is how often the remains of pods are looked for.
const housekeepingPeriod = time.Minute

// housekeep removes the remains of pods that no longer exist: at the start of
// those deleted while no agent ran, and then from time to time.
func (a *Agent) housekeep(ctx context.Context) {
	for ctx.Err() == nil {
		a.sweep(ctx)
		select {
		case <-a.Clock.After(housekeepingPeriod):
		case <-ctx.Done():
		}
	}
}

// rotateLogs keeps the logs of the running containers within their size.
func (a *Agent) rotateLogs(ctx context.Context) {
	rotator := logs.Rotator{MaxSize: a.LogMaxSize, MaxFiles: a.LogMaxFiles, Now: a.Clock.Now, Reopen: func(ctx context.Context, id string) error {
		_, err := a.cri.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
		return err
	}}
	for {
		select {
		case <-a.Clock.After(a.LogPeriod):
		case <-ctx.Done():
			return
		}
		for _, pod := range a.Pods() {
			for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
				if status.State.Running == nil {
					continue
				}
				_, id, _ := strings.Cut(status.ContainerID, "://")
				path := a.layout.Log(pod, status.Name, status.RestartCount)
				if err := rotator.Rotate(ctx, id, path); err != nil && ctx.Err() == nil {
					klog.FromContext(ctx).Error(err, "Rotating a container's log failed", "pod", klog.KObj(pod), "container", status.Name)
				}
			}
		}
	}
}

func (a *Agent) sweep(ctx context.Context) {
	log := klog.FromContext(ctx)
	known := func(uid string) bool { return a.pods.Known(types.UID(uid)) }
	if r, err := a.cri.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}); err == nil {
		for _, s := range r.Items {
			uid := s.Labels[cri.PodUIDLabel]
			if uid == "" || known(uid) {
				continue
			}
			a.metrics.PodOrphaned()
			log.Info("Removing a pod that nobody knows", "pod", s.GetMetadata().GetName(), "namespace", s.GetMetadata().GetNamespace(), "uid", uid)
			if _, err := a.cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
				log.Error(err, "Stopping a sandbox failed", "sandbox", s.Id)
				continue
			}
			if _, err := a.cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.Id}); err != nil {
				log.Error(err, "Removing a sandbox failed", "sandbox", s.Id)
			}
		}
	}
	cleaned, failed := 0, 0
	for _, uid := range a.Volumes.Pods() {
		if a.pods.Known(uid) {
			continue
		}
		if err := a.Volumes.Unmount(ctx, uid); err != nil {
			failed++
			log.Error(err, "Unmounting the volumes of a pod that nobody knows failed", "uid", uid)
		} else {
			cleaned++
		}
	}
	a.metrics.VolumesCleaned(cleaned, failed)
	a.shares.Restore(ctx)
	if !a.cri.MountsImages() {
		if err := a.mounter.Release(ctx, known); err != nil {
			log.Error(err, "Giving back the images of volumes of pods that nobody knows failed")
		}
	}
	if err := a.Devices.Sweep(ctx, a.pods.Known); err != nil {
		log.Error(err, "Giving back the devices of claims of pods that nobody knows failed")
	}
	if r, err := a.cri.ListImages(ctx, &runtimeapi.ListImagesRequest{}); err == nil {
		has := map[string]bool{}
		for _, i := range r.Images {
			has[i.Id] = true
		}
		if err := a.records.Keep(func(id string) bool { return has[id] }); err != nil {
			log.Error(err, "Forgetting who has pulled images that have gone failed")
		}
	}
	if err := a.exclusive.Sweep(a.pods.Known); err != nil {
		log.Error(err, "Taking back what pods that nobody knows had for themselves failed")
	}
	a.shares.Sweep(ctx, known)
	// A folder in which something may be mounted still is left for the next time.
	left := a.Volumes.Pods()
	a.sweepDirs(a.layout.Pods(), func(name string) string { return name }, left...)
	a.sweepDirs(a.LogDir, func(name string) string { return name[strings.LastIndexByte(name, '_')+1:] })
}

func (a *Agent) sweepDirs(dir string, uid func(string) string, keep ...types.UID) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if id := uid(e.Name()); !a.pods.Known(types.UID(id)) && !slices.Contains(keep, types.UID(id)) {
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}
