package imagegc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Policy configures when images are removed, with the kubelet's names and
// defaults.
type Policy struct {
	// HighThreshold and LowThreshold are percentages of the file system that is
	// used: above the first, images are removed until it is down to the second.
	HighThreshold, LowThreshold int
	// MinAge is how long an image is kept after it was seen first.
	MinAge time.Duration
	// MaxAge is how long an unused image is kept, 0 for as long as there is room.
	MaxAge time.Duration
}

// DefaultPolicy is the kubelet's.
var DefaultPolicy = Policy{HighThreshold: 85, LowThreshold: 80, MinAge: 2 * time.Minute}

// Validate reports what is wrong with the policy.
func (p *Policy) Validate() error {
	switch {
	case p.HighThreshold < 0 || p.HighThreshold > 100:
		return fmt.Errorf("image-gc-high-threshold %d: must be between 0 and 100, inclusive", p.HighThreshold)
	case p.LowThreshold < 0 || p.LowThreshold > 100:
		return fmt.Errorf("image-gc-low-threshold %d: must be between 0 and 100, inclusive", p.LowThreshold)
	case p.LowThreshold >= p.HighThreshold:
		return fmt.Errorf("image-gc-low-threshold %d: must be less than image-gc-high-threshold %d", p.LowThreshold, p.HighThreshold)
	case p.MinAge < 0:
		return fmt.Errorf("minimum-image-ttl-duration %s: must not be negative", p.MinAge)
	}
	return nil
}

// Period is how often the file system is looked at.
const Period = 5 * time.Minute

// Runtime has the calls to the CRI runtime.
type Runtime interface {
	runtimeapi.RuntimeServiceClient
	runtimeapi.ImageServiceClient
}

// Config configures a Collector.
type Config struct {
	Runtime Runtime
	Policy  Policy
	// Keep are images that are never removed.
	Keep []string
	// Volumes returns the images that pods have as volumes, as the pods name them; may be
	// nil.
	Volumes  func() []string
	Clock    clock.WithTicker
	Recorder record.EventRecorder
	Node     *v1.ObjectReference
	// Removed, if set, is called for each image that is removed, with the reason:
	// space or age.
	Removed func(reason string)
}

// Collector removes images.
type Collector struct {
	Config
	// space returns the size of the file system at a path and its free space, in
	// bytes.
	space func(path string) (capacity, available int64, err error)

	mu   sync.Mutex
	seen map[string]use // by ID
}

// use is when an image was seen first, and used last.
type use struct{ detected, used time.Time }

// New makes a collector.
func New(c Config) *Collector {
	return &Collector{Config: c, space: statfs, seen: map[string]use{}}
}

func statfs(path string) (capacity, available int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	failed := false
	for ctx.Err() == nil {
		if err := c.Collect(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Image garbage collection failed")
			if failed { // once is often a runtime that has just started
				c.Recorder.Event(c.Node, v1.EventTypeWarning, "ImageGCFailed", err.Error())
			}
			failed = true
		} else {
			failed = false
		}
		select {
		case <-c.Clock.After(Period):
		case <-ctx.Done():
		}
	}
}

// Collect removes what is unused for longer than it is kept, and then, if the
// file system is used above the high threshold, as much as is needed.
func (c *Collector) Collect(ctx context.Context) error {
	now := c.Clock.Now()
	unused, err := c.unused(ctx, now)
	if err != nil {
		return err
	}
	if c.Policy.MaxAge > 0 {
		rest := unused[:0:0]
		for _, i := range unused {
			if now.Sub(i.used) <= c.Policy.MaxAge || now.Sub(i.detected) <= c.Policy.MaxAge {
				rest = append(rest, i)
			} else if err := c.remove(ctx, i, "age"); err != nil {
				return err
			}
		}
		unused = rest
	}
	r, err := c.Runtime.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return err
	}
	if len(r.ImageFilesystems) == 0 {
		return errors.New("the runtime reports no file system for images")
	}
	capacity, available, err := c.space(r.ImageFilesystems[0].GetFsId().GetMountpoint())
	if err != nil {
		return err
	}
	if capacity == 0 {
		c.Recorder.Event(c.Node, v1.EventTypeWarning, "InvalidDiskCapacity", "invalid capacity 0 on image filesystem")
		return errors.New("invalid capacity 0 on image filesystem")
	}
	used := 100 - int(available*100/capacity)
	if used < c.Policy.HighThreshold {
		return nil
	}
	want := capacity*int64(100-c.Policy.LowThreshold)/100 - available
	freed, err := c.free(ctx, unused, want, now)
	if err != nil {
		return err
	}
	if freed < want {
		err := fmt.Errorf("Failed to garbage collect required amount of images. Attempted to free %d bytes, but only found %d bytes eligible to free.", want, freed) //nolint:revive // upstream's words, an event's message
		c.Recorder.Event(c.Node, v1.EventTypeWarning, "FreeDiskSpaceFailed", err.Error())
		return err
	}
	return nil
}

// DeleteUnused removes every image that nothing uses and that is old enough.
func (c *Collector) DeleteUnused(ctx context.Context) error {
	now := c.Clock.Now()
	unused, err := c.unused(ctx, now)
	if err != nil {
		return err
	}
	_, err = c.free(ctx, unused, 1<<62, now)
	return err
}

// image is one that no container uses.
type image struct {
	id   string
	size int64
	use
}

// unused returns the images that no container uses, the one unused for the longest
// time first.
func (c *Collector) unused(ctx context.Context, now time.Time) ([]image, error) {
	images, err := c.Runtime.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	containers, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	inUse := map[string]bool{}
	for _, k := range containers.Containers {
		inUse[k.ImageRef], inUse[k.ImageId], inUse[k.GetImage().GetImage()] = true, true, true
	}
	for _, name := range c.Keep {
		inUse[name] = true
	}
	if c.Volumes != nil {
		for _, name := range c.Volumes() {
			r, err := c.Runtime.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
			if err != nil {
				return nil, err
			}
			if r.Image != nil {
				inUse[r.Image.Id] = true
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := make(map[string]use, len(images.Images))
	var out []image
	for _, i := range images.Images {
		u, ok := c.seen[i.Id]
		if !ok {
			u.detected = now
		}
		names := slices.Concat([]string{i.Id}, i.RepoTags, i.RepoDigests)
		needed := slices.ContainsFunc(names, func(n string) bool { return inUse[n] })
		if needed {
			u.used = now
		}
		seen[i.Id] = u
		if !needed && !i.Pinned {
			out = append(out, image{i.Id, int64(i.Size), u})
		}
	}
	c.seen = seen
	slices.SortFunc(out, func(a, b image) int {
		return cmp.Or(a.used.Compare(b.used), a.detected.Compare(b.detected), cmp.Compare(a.id, b.id))
	})
	return out, nil
}

// free removes images until want bytes are free, and returns how many are.
func (c *Collector) free(ctx context.Context, unused []image, want int64, now time.Time) (int64, error) {
	var freed int64
	var errs []error
	for _, i := range unused {
		if freed >= want {
			break
		}
		if !i.used.IsZero() && !i.used.Before(now) || now.Sub(i.detected) < c.Policy.MinAge {
			continue
		}
		if err := c.remove(ctx, i, "space"); err != nil {
			errs = append(errs, err)
			continue
		}
		freed += i.size
	}
	return freed, errors.Join(errs...)
}

func (c *Collector) remove(ctx context.Context, i image, reason string) error {
	klog.FromContext(ctx).Info("Removing an image", "image", i.id, "bytes", i.size, "reason", reason)
	if _, err := c.Runtime.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: i.id}}); err != nil {
		return fmt.Errorf("removing image %s: %w", i.id, err)
	}
	c.mu.Lock()
	delete(c.seen, i.id)
	c.mu.Unlock()
	if c.Removed != nil {
		c.Removed(reason)
	}
	return nil
}
