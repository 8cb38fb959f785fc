package imagegc

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// runtime has images, by name and size, and containers of some.
type runtime struct {
	Runtime
	images  []*runtimeapi.Image
	used    []string
	removed []string
}

func (r *runtime) ListImages(context.Context, *runtimeapi.ListImagesRequest, ...grpc.CallOption) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{Images: slices.Clone(r.images)}, nil
}

func (r *runtime) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	out := &runtimeapi.ListContainersResponse{}
	for _, i := range r.used {
		out.Containers = append(out.Containers, &runtimeapi.Container{ImageRef: i})
	}
	return out, nil
}

func (r *runtime) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest, ...grpc.CallOption) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/"}}}}, nil
}

func (r *runtime) RemoveImage(_ context.Context, q *runtimeapi.RemoveImageRequest, _ ...grpc.CallOption) (*runtimeapi.RemoveImageResponse, error) {
	r.removed = append(r.removed, q.Image.Image)
	r.images = slices.DeleteFunc(r.images, func(i *runtimeapi.Image) bool { return i.Id == q.Image.Image })
	return &runtimeapi.RemoveImageResponse{}, nil
}

func (r *runtime) ImageStatus(_ context.Context, q *runtimeapi.ImageStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ImageStatusResponse, error) {
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: strings.TrimPrefix(q.Image.Image, "docker.io/library/")}}, nil
}

// collector is of a file system of 1000 bytes.
func collector(r *runtime, p Policy, available int64) (*Collector, *record.FakeRecorder) {
	events := record.NewFakeRecorder(10)
	c := New(Config{Runtime: r, Policy: p, Keep: []string{"pause:1"}, Clock: clock.RealClock{}, Recorder: events, Node: &v1.ObjectReference{Kind: "Node", Name: "n"}})
	c.space = func(string) (int64, int64, error) { return 1000, available, nil }
	return c, events
}

func images() *runtime {
	image := func(id string, pinned bool) *runtimeapi.Image {
		return &runtimeapi.Image{Id: id, RepoTags: []string{id + ":1"}, Size: 40, Pinned: pinned}
	}
	return &runtime{images: []*runtimeapi.Image{image("a", false), image("b", false), image("c", false), image("pause", false), image("pinned", true)}, used: []string{"a", "b"}}
}

func TestCollect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := images()
		c, events := collector(r, DefaultPolicy, 500)
		ctx := t.Context()
		collect := func() error {
			t.Helper()
			return c.Collect(ctx)
		}
		if err := collect(); err != nil || r.removed != nil {
			t.Fatalf("removed %v with half of the disk left, %v", r.removed, err)
		}
		r.used = []string{"a"} // b is unused from now on, c since it is known
		c.space = func(string) (int64, int64, error) { return 1000, 140, nil }
		if err := collect(); err == nil || r.removed != nil {
			t.Fatalf("removed %v, which are new, %v", r.removed, err)
		}
		if got := <-events.Events; !strings.HasPrefix(got, "Warning FreeDiskSpaceFailed Failed to garbage collect required amount of images. Attempted to free 60 bytes, but only found 0 bytes eligible to free.") {
			t.Error(got)
		}
		time.Sleep(DefaultPolicy.MinAge)
		if err := collect(); err != nil || !slices.Equal(r.removed, []string{"c", "b"}) {
			t.Errorf("removed %v, want c, which was unused for longer, and b; %v", r.removed, err)
		}
	})
}

func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := images()
		p := DefaultPolicy
		p.MaxAge = time.Hour
		c, _ := collector(r, p, 900)
		if err := c.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(p.MaxAge + time.Second)
		if err := c.Collect(t.Context()); err != nil || !slices.Equal(r.removed, []string{"c"}) {
			t.Errorf("removed %v, %v", r.removed, err)
		}
	})
}

func TestDeleteUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := images()
		c, _ := collector(r, DefaultPolicy, 900)
		if err := c.DeleteUnused(t.Context()); err != nil || r.removed != nil {
			t.Fatalf("removed %v, which are new, %v", r.removed, err)
		}
		r.used = nil
		time.Sleep(DefaultPolicy.MinAge)
		c.Volumes = func() []string { return []string{"docker.io/library/a"} }
		if err := c.DeleteUnused(t.Context()); err != nil || !slices.Equal(r.removed, []string{"c", "b"}) {
			t.Errorf("removed %v, want all but the one of a volume, the pinned one and the one that is kept; %v", r.removed, err)
		}
	})
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		p  Policy
		ok bool
	}{{DefaultPolicy, true}, {Policy{HighThreshold: 101, LowThreshold: 1}, false}, {Policy{HighThreshold: 50, LowThreshold: -1}, false},
		{Policy{HighThreshold: 50, LowThreshold: 50}, false}, {Policy{HighThreshold: 50, LowThreshold: 40, MinAge: -1}, false}} {
		if err := c.p.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.p, err)
		}
	}
}
