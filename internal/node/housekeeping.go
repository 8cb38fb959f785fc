package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// housekeep takes down what is left of pods that nobody knows any more: of
// those deleted while no agent ran, first, and then from time to time.
func (a *Agent) housekeep(ctx context.Context) {
	for ctx.Err() == nil {
		a.sweep(ctx)
		select {
		case <-a.Clock.After(housekeepingPeriod):
		case <-ctx.Done():
		}
	}
}

func (a *Agent) known(uid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.workers[types.UID(uid)] != nil
}

func (a *Agent) sweep(ctx context.Context) {
	log := klog.FromContext(ctx)
	if r, err := a.cri.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}); err == nil {
		for _, s := range r.Items {
			uid := s.Labels[labelPodUID]
			if uid == "" || a.known(uid) {
				continue
			}
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
	for _, uid := range a.Volumes.Pods() {
		if !a.known(string(uid)) {
			if err := a.Volumes.Unmount(ctx, uid); err != nil {
				log.Error(err, "Unmounting the volumes of a pod that nobody knows failed", "uid", uid)
			}
		}
	}
	a.sweepDirs(filepath.Join(a.RootDir, "pods"), func(name string) string { return name })
	a.sweepDirs(a.LogDir, func(name string) string { return name[strings.LastIndexByte(name, '_')+1:] })
}

func (a *Agent) sweepDirs(dir string, uid func(string) string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !a.known(uid(e.Name())) {
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}
