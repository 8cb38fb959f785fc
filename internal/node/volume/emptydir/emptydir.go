// Package emptydir makes folders that live as long as their pods: on disk, in
// memory, or in huge pages.
package emptydir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"

	"keelson.dev/keelson/internal/node/volume"
)

// Plugin makes emptyDir volumes.
type Plugin struct {
	volume.Unmounter
	// Allocatable returns the node's resources for pods: no volume in memory is
	// larger.
	Allocatable func() v1.ResourceList
}

// Name is kubernetes.io/empty-dir.
func (*Plugin) Name() string { return "kubernetes.io/empty-dir" }

// Supports reports whether the volume is an emptyDir.
func (*Plugin) Supports(s *volume.Spec) bool { return s.Volume.EmptyDir != nil }

// Mount makes the folder, if it is not there.
func (p *Plugin) Mount(_ context.Context, s *volume.Spec) (volume.Mounted, error) {
	out := volume.Mounted{HostPath: s.Dir, Relabel: true}
	e := s.Volume.EmptyDir
	inMemory := e.Medium != v1.StorageMediumDefault
	mounted, err := volume.IsMount(s.Dir)
	if err != nil || mounted {
		return out, err
	}
	if _, err := os.Stat(s.Dir); err == nil && !inMemory {
		return out, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return out, err
	}
	if err := os.MkdirAll(s.Dir, 0o750); err != nil {
		return out, err
	}
	switch {
	case !inMemory:
	case e.Medium == v1.StorageMediumMemory:
		err = volume.Tmpfs(s.Dir, p.size(s), false)
	case strings.HasPrefix(string(e.Medium), string(v1.StorageMediumHugePages)):
		err = hugePages(s)
	default:
		err = fmt.Errorf("unknown storage medium %q", e.Medium)
	}
	if err != nil {
		return out, err
	}
	return out, own(s.Dir, s.FSGroup())
}

// own lets every user write, or makes the folder the group's.
func own(dir string, group *int64) error {
	mode := fs.FileMode(0o777)
	if group != nil {
		if err := os.Lchown(dir, -1, int(*group)); err != nil {
			return err
		}
		mode |= fs.ModeSetgid
	}
	return os.Chmod(dir, mode) // whatever the umask is
}

// size returns how much memory the volume may take, in bytes: the least of its
// limit, the pod's memory limit, and what the node has for pods; 0 if none of
// them is known.
func (p *Plugin) size(s *volume.Spec) int64 {
	least := int64(0)
	take := func(q *resource.Quantity) {
		if v := q.Value(); v > 0 && (least == 0 || v < least) {
			least = v
		}
	}
	if p.Allocatable != nil {
		a := p.Allocatable()
		take(a.Memory())
	}
	if q, ok := memoryLimit(s.Pod); ok {
		take(&q)
	}
	if l := s.Volume.EmptyDir.SizeLimit; l != nil {
		take(l)
	}
	return least
}

// memoryLimit returns the pod's memory limit, if all of its containers have one or
// it has one of its own.
func memoryLimit(p *v1.Pod) (resource.Quantity, bool) {
	if r := p.Spec.Resources; r == nil || r.Limits.Memory().IsZero() {
		for i := range p.Spec.Containers {
			if p.Spec.Containers[i].Resources.Limits.Memory().IsZero() {
				return resource.Quantity{}, false
			}
		}
	}
	q, ok := resourcehelper.PodLimits(p, resourcehelper.PodResourcesOptions{})[v1.ResourceMemory]
	return q, ok
}

// hugePages mounts huge pages of the medium's size, or of the only size that
// the pod asks for.
func hugePages(s *volume.Spec) error {
	size := strings.TrimPrefix(strings.TrimPrefix(string(s.Volume.EmptyDir.Medium), string(v1.StorageMediumHugePages)), "-")
	sizes := map[string]bool{}
	for name := range resourcehelper.PodRequests(s.Pod, resourcehelper.PodResourcesOptions{}) {
		if n, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok {
			sizes[n] = true
		}
	}
	switch {
	case size != "" && !sizes[size]:
		return fmt.Errorf("medium %q of volume %q: no container asks for %s%s", s.Volume.EmptyDir.Medium, s.Volume.Name, v1.ResourceHugePagesPrefix, size)
	case size == "" && len(sizes) != 1:
		return fmt.Errorf("medium %q of volume %q: wanted one size of huge pages in the containers' requests, found %d", s.Volume.EmptyDir.Medium, s.Volume.Name, len(sizes))
	case size == "":
		for n := range sizes {
			size = n
		}
	}
	q, err := resource.ParseQuantity(size)
	if err != nil {
		return fmt.Errorf("size of huge pages %q: %w", size, err)
	}
	if err := unix.Mount("nodev", s.Dir, "hugetlbfs", 0, fmt.Sprintf("pagesize=%d", q.Value())); err != nil {
		return fmt.Errorf("mounting hugetlbfs with pages of %s: %w", size, err)
	}
	return nil
}
