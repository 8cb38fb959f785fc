package eviction

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

const mi = 1 << 20

// node is one whose stats a test sets.
type node struct {
	memory, disk int64 // what is left, of 1000 Mi each
	processes    int64 // of 1000
	pods         []*v1.Pod
	stats        map[string]statsapi.PodStats // by name
	reclaimable  int64                        // of disk
	evicted      []string
	grace        []int64
	conditions   []*v1.PodCondition
}

func (n *node) summary(context.Context) (*statsapi.Summary, error) {
	now := metav1.Now()
	fs := &statsapi.FsStats{Time: now, AvailableBytes: ptr.To(uint64(n.disk * mi)), CapacityBytes: ptr.To[uint64](1000 * mi)}
	s := &statsapi.Summary{Node: statsapi.NodeStats{
		Memory:  &statsapi.MemoryStats{Time: now, AvailableBytes: ptr.To(uint64(n.memory * mi)), WorkingSetBytes: ptr.To(uint64((1000 - n.memory) * mi))},
		Fs:      fs,
		Runtime: &statsapi.RuntimeStats{ImageFs: fs},
		Rlimit:  &statsapi.RlimitStats{Time: now, MaxPID: ptr.To[int64](1000), NumOfRunningProcesses: &n.processes},
	}}
	for _, p := range n.pods {
		if st, ok := n.stats[p.Name]; ok {
			st.PodRef = statsapi.PodReference{Name: p.Name, UID: string(p.UID)}
			s.Pods = append(s.Pods, st)
		}
	}
	return s, nil
}

func (n *node) Active() []*v1.Pod { return slices.Clone(n.pods) }

func (n *node) Evict(p *v1.Pod, grace int64, _ string, c *v1.PodCondition) {
	n.evicted, n.grace, n.conditions = append(n.evicted, p.Name), append(n.grace, grace), append(n.conditions, c)
	n.pods = slices.DeleteFunc(n.pods, func(q *v1.Pod) bool { return q.UID == p.UID })
}

func (n *node) Ended(types.UID) bool { return true }

func (n *node) reclaim(context.Context) error {
	n.disk += n.reclaimable
	n.reclaimable = 0
	return nil
}

func (n *node) manager(t *testing.T, s Settings) (*Manager, *record.FakeRecorder) {
	t.Helper()
	thresholds, err := s.Thresholds()
	if err != nil {
		t.Fatal(err)
	}
	events := record.NewFakeRecorder(100)
	return New(Config{Thresholds: thresholds, MaxPodGrace: s.MaxPodGrace, Transition: s.Transition, Summary: n.summary, Pods: n,
		Reclaim: []func(context.Context) error{n.reclaim}, DedicatedImageFs: func(*statsapi.Summary) bool { return false },
		Node: &v1.ObjectReference{Kind: "Node", Name: "n"}, Recorder: events, Clock: clock.RealClock{}}), events
}

// pod asks for memory and has a priority.
func pod(name string, memory int64, priority int32) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)}, Spec: v1.PodSpec{Priority: &priority, Containers: []v1.Container{{Name: "c"}}}}
	if memory > 0 {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceMemory: *resource.NewQuantity(memory*mi, resource.BinarySI)}
	}
	return p
}

// uses are stats of a pod with one container.
func uses(memory, disk, processes uint64) statsapi.PodStats {
	m := &statsapi.MemoryStats{WorkingSetBytes: ptr.To(memory * mi)}
	return statsapi.PodStats{Memory: m, ProcessStats: &statsapi.ProcessStats{ProcessCount: &processes},
		Containers:       []statsapi.ContainerStats{{Name: "c", Memory: m, Rootfs: &statsapi.FsStats{UsedBytes: ptr.To(disk * mi)}, Logs: &statsapi.FsStats{UsedBytes: ptr.To[uint64](0)}}},
		EphemeralStorage: &statsapi.FsStats{UsedBytes: ptr.To(disk * mi)}}
}

func TestRank(t *testing.T) {
	pods := []*v1.Pod{pod("within", 500, 0), pod("above", 100, 0), pod("far-above", 100, 0), pod("important", 100, 1000), pod("unknown", 0, 5000), pod("many", 0, 0)}
	stats := map[string]statsapi.PodStats{"within": uses(400, 90, 1), "above": uses(150, 10, 2), "far-above": uses(300, 50, 3), "important": uses(900, 20, 4), "many": uses(1, 30, 500)}
	of := func(p *v1.Pod) (statsapi.PodStats, bool) { s, ok := stats[p.Name]; return s, ok }
	for s, want := range map[Signal]string{
		MemoryAvailable: "unknown far-above above many important within",
		NodeFsAvailable: "unknown within far-above many above important",
		PIDAvailable:    "many far-above above within important unknown",
	} {
		ranked := slices.Clone(pods)
		rank(ranked, of, s, false)
		var names []string
		for _, p := range ranked {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
	}
}

// TestHard checks that a hard threshold evicts one pod after the other until
// enough is left, and never a critical one.
func TestHard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		critical, static := pod("critical", 0, 2_000_000_000), pod("static", 0, 0)
		static.Annotations = map[string]string{"kubernetes.io/config.source": "file"}
		n := &node{memory: 50, disk: 500, pods: []*v1.Pod{critical, static, pod("a", 0, 0), pod("b", 0, 0), pod("c", 0, 10)},
			stats: map[string]statsapi.PodStats{"critical": uses(300, 0, 0), "static": uses(200, 0, 0), "a": uses(20, 0, 0), "b": uses(100, 0, 0), "c": uses(500, 0, 0)}}
		m, events := n.manager(t, Settings{Hard: DefaultHard, Transition: DefaultTransition})
		ctx := t.Context()
		if got := m.pass(ctx); len(got) != 1 || got[0].Name != "b" {
			t.Fatalf("evicted %v, want b", got)
		}
		for _, want := range []string{"Warning EvictionThresholdMet Attempting to reclaim memory",
			"Warning Evicted The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 100Mi, request is 0, has larger consumption of memory. "} {
			if got := <-events.Events; !strings.HasPrefix(got, want) {
				t.Errorf("event %q, want %q", got, want)
			}
		}
		if c := n.conditions[0]; c == nil || c.Type != v1.DisruptionTarget || c.Reason != "TerminationByKubelet" || n.grace[0] != 1 {
			t.Errorf("condition %v, grace %d", c, n.grace[0])
		}
		if got := fmt.Sprint(m.UnderPressure()); got != "[MemoryPressure]" {
			t.Error(got)
		}
		time.Sleep(time.Second)
		m.pass(ctx)
		time.Sleep(time.Second)
		m.pass(ctx)
		time.Sleep(time.Second)
		if got := m.pass(ctx); got != nil || !slices.Equal(n.evicted, []string{"b", "a", "c"}) {
			t.Errorf("evicted %v, then %v", n.evicted, got)
		}
		n.memory = 900
		time.Sleep(time.Second)
		m.pass(ctx)
		if len(m.UnderPressure()) != 1 {
			t.Error("the condition has gone before its period is over")
		}
		time.Sleep(DefaultTransition)
		m.pass(ctx)
		if got := m.UnderPressure(); got != nil {
			t.Errorf("the condition stays: %v", got)
		}
	})
}

// TestSoft checks that a soft threshold evicts when it was crossed for its grace
// period, and the pressure is over when its minimum reclaim is left, too.
func TestSoft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{memory: 250, disk: 500, pods: []*v1.Pod{pod("a", 0, 0), pod("b", 0, 0), pod("c", 0, 0)}}
		m, _ := n.manager(t, Settings{Soft: map[string]string{"memory.available": "300Mi"}, SoftGrace: map[string]string{"memory.available": "30s"},
			MinimumReclaim: map[string]string{"memory.available": "100Mi"}, MaxPodGrace: 7})
		ctx := t.Context()
		m.pass(ctx)
		time.Sleep(29 * time.Second)
		if got := m.pass(ctx); got != nil {
			t.Fatalf("evicted %v within the grace period", got)
		}
		time.Sleep(time.Second)
		if got := m.pass(ctx); len(got) != 1 || n.grace[0] != 7 {
			t.Fatalf("evicted %v with %v after the grace period", got, n.grace)
		}
		n.memory = 350
		time.Sleep(time.Second)
		if got := m.pass(ctx); len(got) != 1 {
			t.Fatalf("evicted %v while the minimum reclaim was not left", got)
		}
		n.memory = 400
		time.Sleep(time.Second)
		if got := m.pass(ctx); got != nil {
			t.Fatalf("evicted %v when enough was left", got)
		}
		n.memory = 350
		time.Sleep(time.Second)
		if got := m.pass(ctx); got != nil {
			t.Fatalf("evicted %v above the threshold", got)
		}
	})
}

// TestReclaim checks that where disk is short, images and dead containers go
// first.
func TestReclaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{memory: 500, disk: 40, reclaimable: 500, pods: []*v1.Pod{pod("a", 0, 0)}}
		m, events := n.manager(t, Settings{Hard: DefaultHard, Transition: DefaultTransition})
		if got := m.pass(t.Context()); got != nil {
			t.Errorf("evicted %v although removing images was enough", got)
		}
		if got := <-events.Events; got != "Warning EvictionThresholdMet Attempting to reclaim ephemeral-storage" {
			t.Error(got)
		}
		n.disk = 40
		time.Sleep(time.Second)
		if got := m.pass(t.Context()); len(got) != 1 {
			t.Errorf("evicted %v when there was nothing else", got)
		}
	})
}

func TestLimits(t *testing.T) {
	limited := func(name string, limit string) *v1.Pod {
		p := pod(name, 0, 0)
		p.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse(limit)}
		return p
	}
	volume := pod("volume", 0, 0)
	volume.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("1Mi"))}}}}
	free := pod("free", 0, 0)
	free.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}
	two := limited("two", "10Mi")
	two.Spec.Containers = append(two.Spec.Containers, v1.Container{Name: "d", Resources: v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse("90Mi")}}})
	in := func(used uint64) statsapi.PodStats {
		s := uses(0, 0, 0)
		s.VolumeStats = []statsapi.VolumeStats{{Name: "v", FsStats: statsapi.FsStats{UsedBytes: ptr.To(used * mi)}}}
		return s
	}
	for _, c := range []struct {
		name   string
		pod    *v1.Pod
		stats  statsapi.PodStats
		signal string
		want   string
	}{
		{"an emptyDir", volume, in(8), "emptydirfs.limit", `Usage of EmptyDir volume "v" exceeds the limit "1Mi". `},
		{"an emptyDir at its limit", volume, in(1), "", ""},
		{"an emptyDir without a limit", free, in(800), "", ""},
		{"the pod", limited("p", "10Mi"), uses(0, 11, 0), "ephemeralpodfs.limit", "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "},
		{"the pod within its limit", limited("p", "10Mi"), uses(0, 10, 0), "", ""},
		{"one container", two, uses(0, 20, 0), "ephemeralcontainerfs.limit", `Container c exceeded its local ephemeral storage limit "10Mi". `},
		{"no limit", pod("p", 0, 0), uses(0, 1000, 0), "", ""},
	} {
		signal, message := exceeded(c.pod, &c.stats, false)
		if signal != c.signal || message != c.want {
			t.Errorf("%s: %s %q, want %s %q", c.name, signal, message, c.signal, c.want)
		}
	}
	n := &node{memory: 500, disk: 500, pods: []*v1.Pod{volume, free}, stats: map[string]statsapi.PodStats{"volume": in(8), "free": in(8)}}
	m, _ := n.manager(t, Settings{Hard: DefaultHard})
	if m.pass(t.Context()); !slices.Equal(n.evicted, []string{"volume"}) || n.conditions[0] != nil {
		t.Errorf("evicted %v, with %v", n.evicted, n.conditions)
	}
}

func TestAdmit(t *testing.T) {
	tolerant := pod("tolerant", 0, 0)
	tolerant.Spec.Tolerations = []v1.Toleration{{Key: v1.TaintNodeMemoryPressure, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule}}
	for _, c := range []struct {
		name         string
		memory, disk int64
		pod          *v1.Pod
		class        v1.PodQOSClass
		want         string
	}{
		{"no pressure", 500, 500, pod("p", 0, 0), v1.PodQOSBestEffort, ""},
		{"memory, best effort", 50, 500, pod("p", 0, 0), v1.PodQOSBestEffort, "The node had condition: [MemoryPressure]. "},
		{"memory, burstable", 50, 500, pod("p", 10, 0), v1.PodQOSBurstable, ""},
		{"memory, tolerated", 50, 500, tolerant, v1.PodQOSBestEffort, ""},
		{"memory, critical", 50, 500, pod("p", 0, 2_000_001_000), v1.PodQOSBestEffort, ""},
		{"disk, burstable", 500, 40, pod("p", 10, 0), v1.PodQOSBurstable, "The node had condition: [DiskPressure]. "},
		{"both", 50, 40, pod("p", 10, 0), v1.PodQOSGuaranteed, "The node had condition: [MemoryPressure DiskPressure]. "},
	} {
		n := &node{memory: c.memory, disk: c.disk}
		m, _ := n.manager(t, Settings{Hard: DefaultHard, Transition: DefaultTransition})
		m.pass(t.Context())
		if got := m.Admit(c.pod, c.class); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestRun checks that the node is looked at every ten seconds.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{memory: 500, disk: 500, pods: []*v1.Pod{pod("a", 0, 0)}}
		m, _ := n.manager(t, Settings{Hard: DefaultHard, Transition: DefaultTransition})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { m.Run(ctx); close(done) }()
		time.Sleep(time.Second)
		synctest.Wait()
		n.memory = 10
		time.Sleep(Period)
		synctest.Wait()
		if !slices.Equal(n.evicted, []string{"a"}) {
			t.Errorf("evicted %v", n.evicted)
		}
		cancel()
		<-done
	})
}

// TestChanged checks that pressure before Run is reported once, and its end
// once, and that no pod is evicted for it.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{memory: 50, disk: 500, pods: []*v1.Pod{pod("a", 0, 0)}, stats: map[string]statsapi.PodStats{"a": uses(10, 0, 0)}}
		m, _ := n.manager(t, Settings{Hard: DefaultHard, Transition: time.Minute})
		var told [][]v1.NodeConditionType
		m.Changed = func() { told = append(told, m.UnderPressure()) }
		if err := m.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(told) != 1 || !slices.Equal(told[0], []v1.NodeConditionType{v1.NodeMemoryPressure}) || len(n.evicted) != 0 {
			t.Fatalf("told %v, evicted %v", told, n.evicted)
		}
		n.memory = 500
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		m.Run(ctx)
		if len(told) != 2 || len(told[1]) != 0 || len(n.evicted) != 0 {
			t.Errorf("told %v, evicted %v", told, n.evicted)
		}
	})
}
