package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

// folders makes volumes that are a folder, and fails for the configured ones.
type folders struct {
	fail    map[string]error
	made    []string
	removed []string
}

func (*folders) Name() string          { return "test/folder" }
func (*folders) Supports(s *Spec) bool { return s.Volume.EmptyDir != nil }
func (f *folders) Mount(_ context.Context, s *Spec) (Mounted, error) {
	f.made = append(f.made, s.Volume.Name)
	if err := f.fail[s.Volume.Name]; err != nil {
		return Mounted{}, err
	}
	return Mounted{HostPath: s.Dir}, os.MkdirAll(s.Dir, 0o755)
}
func (f *folders) Unmount(_ context.Context, dir string) error {
	f.removed = append(f.removed, filepath.Base(dir))
	return nil
}

// Stats says that a volume has as many bytes as its name.
func (f *folders) Stats(_ context.Context, s *Spec) (*statsapi.FsStats, error) {
	return &statsapi.FsStats{CapacityBytes: ptr.To(uint64(len(s.Volume.Name)))}, f.fail[s.Volume.Name]
}

func volumesOf(names ...string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Namespace: "n"}}
	for _, n := range names {
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: n, VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
	}
	return p
}

// TestRetry checks that a volume that fails is tried again after 500 ms, then
// twice as long each time, to 2 min 2 s; the others are made once.
func TestRetry(t *testing.T) {
	fake := clocktesting.NewFakeClock(time.Unix(1000, 0))
	f := &folders{fail: map[string]error{"bad": errors.New("no")}}
	m := &Manager{Root: t.TempDir(), Plugins: []Plugin{f}, Clock: fake}
	p := volumesOf("good", "bad")
	var pauses []time.Duration
	for range 10 {
		_, err := m.Mount(t.Context(), p)
		var failed *Failed
		if !errors.As(err, &failed) || failed.Errors["bad"] == nil || len(failed.Errors) != 1 {
			t.Fatalf("error: %v", err)
		}
		pauses = append(pauses, failed.Retry)
		fake.Step(failed.Retry - time.Millisecond)
		if _, err := m.Mount(t.Context(), p); !errors.As(err, &failed) || len(failed.Errors) != 0 || failed.Retry != time.Millisecond {
			t.Fatalf("before its time: %v", err)
		}
		fake.Step(time.Millisecond)
	}
	want := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, 64 * time.Second, 122 * time.Second, 122 * time.Second}
	if !slices.Equal(pauses, want) {
		t.Errorf("pauses: %v", pauses)
	}
	if got := Message("bad", f.fail["bad"]); got != `MountVolume.SetUp failed for volume "bad" : no` {
		t.Errorf("message: %s", got)
	}
	f.fail = nil
	got, err := m.Mount(t.Context(), p)
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	if n := len(f.made); n != 12 {
		t.Errorf("%d tries of two volumes, of which one failed 10 times: %v", n, f.made)
	}
}

// TestStats checks that volumes are measured each minute while Run runs, and that a volume
// has no figures when that fails.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &folders{fail: map[string]error{}}
		m := &Manager{Root: t.TempDir(), Plugins: []Plugin{f}, Clock: clock.RealClock{}}
		if _, err := m.Mount(t.Context(), volumesOf("one", "three")); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); m.Run(ctx) }()
		defer func() { stop(); <-ended }()
		check := func(want map[string]uint64) {
			t.Helper()
			for name, bytes := range want {
				got := m.Stats("u", name)
				if (got == nil) != (bytes == 0) || got != nil && *got.CapacityBytes != bytes {
					t.Errorf("%s: %+v, want %d", name, got, bytes)
				}
			}
		}
		check(map[string]uint64{"one": 0, "three": 0})
		time.Sleep(period + time.Second)
		check(map[string]uint64{"one": 3, "three": 5, "other": 0})
		f.fail["one"] = errors.New("no")
		time.Sleep(period)
		check(map[string]uint64{"one": 0, "three": 5})
	})
}

// TestMessages checks upstream's reasons and messages of each step, of file systems and
// of devices.
func TestMessages(t *testing.T) {
	no := errors.New("no")
	for _, c := range []struct {
		err             error
		reason, message string
	}{
		{no, "FailedMount", `MountVolume.SetUp failed for volume "v" : no`},
		{During("WaitForAttach", no), "FailedMount", `MountVolume.WaitForAttach failed for volume "v" : no`},
		{During("MountDevice", no), "FailedMount", `MountVolume.MountDevice failed for volume "v" : no`},
		{&blockError{no}, "FailedMapVolume", `MapVolume.MapPodDevice failed for volume "v" : no`},
		{&blockError{During("WaitForAttach", no)}, "FailedMapVolume", `MapVolume.WaitForAttach failed for volume "v" : no`},
		{&blockError{During("MountDevice", no)}, "FailedMapVolume", `MapVolume.SetUpDevice failed for volume "v" : no`},
	} {
		if reason, message := Reason(c.err), Message("v", c.err); reason != c.reason || message != c.message {
			t.Errorf("%s: %s, want %s: %s", reason, message, c.reason, c.message)
		}
	}
	if !(&Failed{Errors: map[string]error{"a": no, "b": &blockError{&Exhausted{no}}}}).Exhausted() || (&Failed{Errors: map[string]error{"a": no}}).Exhausted() {
		t.Error("too many volumes are not told from other errors")
	}
}

func TestLife(t *testing.T) {
	f := &folders{}
	m := &Manager{Root: t.TempDir(), Plugins: []Plugin{f}, Clock: clocktesting.NewFakeClock(time.Now())}
	p := volumesOf("a", "b")
	if _, err := m.Mount(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	only := func(name string) func(*v1.Volume) bool { return func(v *v1.Volume) bool { return v.Name == name } }
	f.made = nil
	m.Refresh(t.Context(), "n", "", nil, only("b"))
	m.Refresh(t.Context(), "other", "", nil, only("a"))
	m.Refresh(t.Context(), "", "u", p, only("a"))
	if !slices.Equal(f.made, []string{"b", "a"}) {
		t.Errorf("brought up to date: %v", f.made)
	}
	next := &Manager{Root: m.Root, Plugins: m.Plugins, Clock: m.Clock} // the agent after this one
	if got := next.Pods(); len(got) != 1 || got[0] != "u" {
		t.Errorf("pods: %v", got)
	}
	if err := next.Unmount(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.removed, []string{"a", "b"}) || len(next.Pods()) != 0 {
		t.Errorf("taken down: %v; left: %v", f.removed, next.Pods())
	}
	if _, err := m.Mount(t.Context(), &v1.Pod{Spec: v1.PodSpec{Volumes: []v1.Volume{{Name: "x"}}}}); err == nil {
		t.Error("a volume without a plug-in is ready")
	}
}

func TestUser(t *testing.T) {
	user := func(id *int64) *v1.SecurityContext { return &v1.SecurityContext{RunAsUser: id} }
	for _, c := range []struct {
		name       string
		pod        *int64
		containers []*int64
		want       *int64
	}{
		{"none", nil, []*int64{nil}, nil},
		{"the pod's", ptr.To[int64](1), []*int64{nil, nil}, ptr.To[int64](1)},
		{"all the same", nil, []*int64{ptr.To[int64](2), ptr.To[int64](2)}, ptr.To[int64](2)},
		{"two", ptr.To[int64](1), []*int64{nil, ptr.To[int64](2)}, nil},
		{"one without", nil, []*int64{ptr.To[int64](2), nil}, nil},
	} {
		s := &Spec{Pod: &v1.Pod{Spec: v1.PodSpec{SecurityContext: &v1.PodSecurityContext{RunAsUser: c.pod}}}}
		for _, id := range c.containers {
			s.Pod.Spec.Containers = append(s.Pod.Spec.Containers, v1.Container{SecurityContext: user(id)})
		}
		if got := s.User(); ptr.Deref(got, -1) != ptr.Deref(c.want, -1) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
