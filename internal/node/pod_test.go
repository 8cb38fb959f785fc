package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/cri/critest"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/imagegc"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/shutdown"
	"keelson.dev/keelson/internal/node/source"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/node/volume/plugins"
)

// host is a node on a runtime in memory, within synctest's time.
type host struct {
	*testing.T
	client  kubernetes.Interface
	runtime *critest.Runtime
	dir     string
	events  *record.FakeRecorder
	// login is what announces shutdowns of the machine.
	login *login
	stop  func()
	// maxPods is the number of pods that the node takes, 0 for the usual one.
	maxPods int64
}

// onHost runs f in synctest's time with an agent that runs.
func onHost(t *testing.T, f func(h *host)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := &host{T: t, client: fake.NewClientset(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}), runtime: critest.New(), dir: dir, events: record.NewFakeRecorder(10_000), login: &login{}}
		h.start()
		defer func() { h.stop() }()
		f(h)
	})
}

// start starts an agent; the one before it has been stopped.
func (h *host) start() {
	h.Helper()
	ctx, cancel := context.WithCancel(h.Context())
	factory := informers.NewSharedInformerFactory(h.client, 0)
	sources := source.New(h.client, "node", factory.Core().V1().Pods().Informer(), clock.RealClock{})
	allocatable := func() v1.ResourceList { return nil }
	a, err := New(Config{
		NodeName: "node", Client: h.client, Informers: factory, CRI: h.runtime.Client(), RootDir: h.dir, LogDir: h.dir + "/logs",
		NodeIPs: func() []net.IP { return []net.IP{net.IPv4(192, 0, 2, 1)} }, Cgroups: cgroup.None(), Recorder: h.events, ResolvConf: "/dev/null", Hostname: "machine",
		Shutdown: shutdown.Settings{Period: time.Minute}, Login: func() (shutdown.Login, error) { return h.login, nil },
		MaxPods: h.maxPods,
		// How full the machine is does not matter here.
		Eviction: eviction.Settings{Hard: map[string]string{}}, ImageGC: imagegc.Policy{HighThreshold: 100, LowThreshold: 99},
		Volumes: &volume.Manager{Root: h.dir + "/pods", Plugins: plugins.All(sources, allocatable, h.dir, nil, clock.RealClock{}), Clock: clock.RealClock{}}, Sources: sources,
	})
	if err != nil {
		h.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.Error(err)
		}
		factory.Shutdown()
	}
}

// restart is a machine that restarts: agent and runtime are new.
func (h *host) restart() {
	h.stop()
	h.runtime.Lose()
	h.start()
}

func (h *host) create(spec v1.PodSpec) { h.Helper(); h.createAs("p", spec) }

func (h *host) createAs(name string, spec v1.PodSpec) {
	h.Helper()
	spec.NodeName = "node"
	for i := range spec.Containers {
		spec.Containers[i].Image = "image"
	}
	for i := range spec.InitContainers {
		spec.InitContainers[i].Image = "image"
	}
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n", UID: types.UID("u-" + name)}, Spec: spec, Status: v1.PodStatus{Phase: v1.PodPending}}
	if _, err := h.client.CoreV1().Pods("n").Create(h.Context(), p, metav1.CreateOptions{}); err != nil {
		h.Fatal(err)
	}
}

func (h *host) pod() *v1.Pod { h.Helper(); return h.named("p") }

func (h *host) named(name string) *v1.Pod {
	h.Helper()
	p, err := h.client.CoreV1().Pods("n").Get(h.Context(), name, metav1.GetOptions{})
	if err != nil {
		h.Fatal(err)
	}
	return p
}

// until waits, up to ten minutes of synctest's time, for what a pod is to be.
func (h *host) until(what string, ok func(p *v1.Pod) bool) *v1.Pod {
	h.Helper()
	for range 6000 {
		if p := h.pod(); ok(p) {
			return p
		}
		time.Sleep(100 * time.Millisecond)
	}
	h.Fatalf("not %s: %+v; created %v; events %v", what, h.pod().Status, h.runtime.Created(), h.told())
	return nil
}

// eventually waits, up to ten minutes of synctest's time, for a condition.
func (h *host) eventually(what string, ok func() bool) {
	h.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	h.Fatalf("not %s; events %v", what, h.told())
}

func (h *host) phase(phase v1.PodPhase) *v1.Pod {
	h.Helper()
	return h.until(string(phase), func(p *v1.Pod) bool { return p.Status.Phase == phase })
}

// created compares the containers that were ever created; those of a pod begin
// beside each other.
func (h *host) created(want ...string) {
	h.Helper()
	got := h.runtime.Created()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		h.Errorf("created %v, want %v", got, want)
	}
}

// told returns the events so far.
func (h *host) told() (out []string) {
	for {
		select {
		case e := <-h.events.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

func state(p *v1.Pod, name string) v1.ContainerStatus {
	if s := podspec.Status(p, name); s != nil {
		return *s
	}
	return v1.ContainerStatus{}
}

func running(p *v1.Pod, names ...string) bool {
	for _, n := range names {
		if state(p, n).State.Running == nil {
			return false
		}
	}
	return true
}

func named(names ...string) (out []v1.Container) {
	for _, n := range names {
		out = append(out, v1.Container{Name: n})
	}
	return out
}

func on(action v1.ContainerRestartRuleAction, code int32) (*v1.ContainerRestartPolicy, []v1.ContainerRestartRule) {
	return ptr.To(v1.ContainerRestartPolicyNever), []v1.ContainerRestartRule{{Action: action,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{code}}}}
}

func TestRestartRule(t *testing.T) {
	onHost(t, func(h *host) {
		spec := v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, Containers: named("c")}
		spec.Containers[0].RestartPolicy, spec.Containers[0].RestartPolicyRules = on(v1.ContainerRestartRuleActionRestart, 42)
		h.create(spec)
		for n := range int32(3) {
			p := h.until("running", func(p *v1.Pod) bool { return running(p, "c") && state(p, "c").RestartCount == n })
			if p.Status.Phase != v1.PodRunning {
				t.Errorf("phase: %s", p.Status.Phase)
			}
			h.runtime.Exit("c", 42)
		}
		h.until("running", func(p *v1.Pod) bool { return running(p, "c") && state(p, "c").RestartCount == 3 })
		h.runtime.Exit("c", 1)
		if p := h.phase(v1.PodFailed); state(p, "c").State.Terminated.ExitCode != 1 {
			t.Errorf("status: %+v", state(p, "c"))
		}
		h.created("c", "c", "c", "c")
	})
}

// TestRestartAll checks that the exit of one container stops the others and
// starts all anew, the init containers first, once.
func TestRestartAll(t *testing.T) {
	onHost(t, func(h *host) {
		spec := v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, InitContainers: named("init"), Containers: named("c", "d")}
		spec.Containers[0].RestartPolicy, spec.Containers[0].RestartPolicyRules = on(v1.ContainerRestartRuleActionRestartAllContainers, 42)
		h.create(spec)
		h.until("initializing", func(p *v1.Pod) bool { return running(p, "init") })
		h.runtime.Exit("init", 0)
		h.until("running", func(p *v1.Pod) bool { return running(p, "c", "d") })
		h.runtime.Exit("c", 42)
		h.until("initializing again", func(p *v1.Pod) bool { return running(p, "init") && state(p, "init").RestartCount == 1 })
		if running(h.pod(), "d") {
			t.Error("a container runs on while all are to start anew")
		}
		h.runtime.Exit("init", 0)
		p := h.until("running again", func(p *v1.Pod) bool { return running(p, "c", "d") })
		if state(p, "c").RestartCount != 1 || state(p, "d").RestartCount != 1 || p.Status.Phase != v1.PodRunning {
			t.Errorf("status: %+v", p.Status)
		}
		h.runtime.Exit("d", 0)
		h.runtime.Exit("c", 0)
		h.phase(v1.PodSucceeded)
		h.created("init", "c", "d", "init", "c", "d")
	})
}

// TestNeverTwice checks that the containers of a pod that runs once do not run
// again after the machine restarted, and the pod has failed.
func TestNeverTwice(t *testing.T) {
	onHost(t, func(h *host) {
		h.create(v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, InitContainers: named("init"), Containers: named("c", "d")})
		h.until("initializing", func(p *v1.Pod) bool { return running(p, "init") })
		h.runtime.Exit("init", 0)
		h.until("running", func(p *v1.Pod) bool { return running(p, "c", "d") })
		h.runtime.Exit("d", 0)
		h.until("half done", func(p *v1.Pod) bool { return state(p, "d").State.Terminated != nil })
		h.restart()
		p := h.phase(v1.PodFailed)
		if c := state(p, "c").State.Terminated; c == nil || c.ExitCode != 137 || c.Reason != "ContainerStatusUnknown" {
			t.Errorf("what ran: %+v", state(p, "c"))
		}
		if d := state(p, "d").State.Terminated; d == nil || d.ExitCode != 0 || d.Reason != "Completed" {
			t.Errorf("what had ended: %+v", state(p, "d"))
		}
		h.created("init", "c", "d")
	})
}

// TestLostWhileInitializing checks that a pod that runs once and has not begun to do
// what it is for has failed, too, with no container left waiting.
func TestLostWhileInitializing(t *testing.T) {
	onHost(t, func(h *host) {
		h.create(v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, InitContainers: named("init"), Containers: named("c")})
		h.until("initializing", func(p *v1.Pod) bool { return running(p, "init") })
		h.restart()
		if p := h.phase(v1.PodFailed); state(p, "init").State.Terminated == nil {
			t.Errorf("init container: %+v", state(p, "init"))
		}
		h.created("init")
	})
}

// TestCounts checks that restarts are counted on after the machine restarted,
// and what had succeeded stays so.
func TestCounts(t *testing.T) {
	onHost(t, func(h *host) {
		h.create(v1.PodSpec{RestartPolicy: v1.RestartPolicyOnFailure, Containers: named("c", "done")})
		h.until("running", func(p *v1.Pod) bool { return running(p, "c", "done") })
		h.runtime.Exit("done", 0)
		h.runtime.Exit("c", 1)
		h.until("restarted", func(p *v1.Pod) bool { return running(p, "c") && state(p, "c").RestartCount == 1 })
		h.restart()
		p := h.until("running again", func(p *v1.Pod) bool { return running(p, "c") && state(p, "c").RestartCount == 2 })
		if last := state(p, "c").LastTerminationState.Terminated; last == nil || last.ExitCode != 137 {
			t.Errorf("last run: %+v", last)
		}
		if done := state(p, "done"); done.State.Terminated == nil || done.RestartCount != 0 {
			t.Errorf("what had succeeded: %+v", done)
		}
		h.runtime.Exit("c", 0)
		h.phase(v1.PodSucceeded)
		h.created("c", "done", "c", "c")
	})
}

// TestRefused checks that a pod whose security settings cannot be honoured is
// refused.
func TestRefused(t *testing.T) {
	containers := named("c")
	for _, c := range []struct {
		spec            v1.PodSpec
		reason, message string
	}{
		{v1.PodSpec{Containers: containers, SecurityContext: &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: "net.core.somaxconn", Value: "1"}}}},
			"SysctlForbidden", `Pod was rejected: forbidden sysctl: "net.core.somaxconn" not allowlisted`},
		{v1.PodSpec{Containers: containers, SecurityContext: &v1.PodSecurityContext{SupplementalGroupsPolicy: ptr.To(v1.SupplementalGroupsPolicyStrict)}},
			"SupplementalGroupsPolicyNotSupported", "Pod was rejected: SupplementalGroupsPolicy=Strict is not supported in this node"},
	} {
		onHost(t, func(h *host) {
			h.create(c.spec)
			p := h.phase(v1.PodFailed)
			if p.Status.Reason != c.reason || p.Status.Message != c.message || len(p.Status.ContainerStatuses) != 0 {
				t.Errorf("%s: %+v", c.reason, p.Status)
			}
			h.created()
		})
	}
}

func TestOwnUsers(t *testing.T) {
	onHost(t, func(h *host) {
		c := named("c")
		c[0].TerminationMessagePath, c[0].VolumeMounts = "/dev/termination-log", []v1.VolumeMount{{Name: "v", MountPath: "/v"}}
		h.create(v1.PodSpec{Containers: c, HostUsers: ptr.To(false), Volumes: []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}})
		time.Sleep(time.Minute)
		want := "Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces"
		if told := h.told(); !slices.ContainsFunc(told, func(e string) bool { return strings.Contains(e, want) }) {
			t.Errorf("events: %v", told)
		}
		h.created()
		h.runtime.SetFeatures(&runtimeapi.RuntimeFeatures{}, &runtimeapi.RuntimeHandler{Features: &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: true}})
		h.until("running", func(p *v1.Pod) bool { return running(p, "c") })
		o := h.runtime.Sandboxes()[0].Linux.SecurityContext.NamespaceOptions.UsernsOptions
		if o.GetMode() != runtimeapi.NamespaceMode_POD || len(o.Uids) != 1 || o.Uids[0].HostId < 65536 {
			t.Errorf("users: %v", o)
		}
		// What is mounted is owned by the users of the pod, volumes and the agent's own files alike.
		mounts := h.runtime.Containers()[0].Mounts
		if len(mounts) != 3 {
			t.Errorf("mounts: %v", mounts)
		}
		for _, m := range mounts {
			if !reflect.DeepEqual(m.UidMappings, o.Uids) || !reflect.DeepEqual(m.GidMappings, o.Gids) {
				t.Errorf("%s is mounted with users %v and groups %v, want %v and %v", m.ContainerPath, m.UidMappings, m.GidMappings, o.Uids, o.Gids)
			}
		}
	})
}

func TestHostNetwork(t *testing.T) {
	onHost(t, func(h *host) {
		h.create(v1.PodSpec{Containers: named("c"), HostNetwork: true})
		p := h.until("running", func(p *v1.Pod) bool { return running(p, "c") })
		s := h.runtime.Sandboxes()[0]
		if s.Hostname != "" || s.Linux.SecurityContext.NamespaceOptions.Network != runtimeapi.NamespaceMode_NODE {
			t.Errorf("host name %q, %v", s.Hostname, s.Linux.SecurityContext.NamespaceOptions)
		}
		if p.Status.PodIP != "192.0.2.1" {
			t.Errorf("address: %s", p.Status.PodIP)
		}
	})
}

// TestBackOff checks that a pod whose image cannot be pulled says why, and has
// no waiting container once it has failed.
func TestBackOff(t *testing.T) {
	onHost(t, func(h *host) {
		h.runtime.FailPulls("image", errors.New("RegistryUnavailable: connection refused"))
		h.create(v1.PodSpec{Containers: named("c"), ActiveDeadlineSeconds: ptr.To[int64](60)})
		p := h.until("backing off", func(p *v1.Pod) bool {
			w := state(p, "c").State.Waiting
			return w != nil && w.Reason == "ImagePullBackOff"
		})
		want := `Back-off pulling image "image": RegistryUnavailable: image pull failed for image because the registry is unavailable: connection refused`
		if got := state(p, "c").State.Waiting.Message; got != want {
			t.Errorf("message %q, want %q", got, want)
		}
		p = h.phase(v1.PodFailed)
		if c := state(p, "c").State; p.Status.Reason != "DeadlineExceeded" || c.Terminated == nil || c.Terminated.Reason != "ContainerStatusUnknown" {
			t.Errorf("status: %+v", p.Status)
		}
	})
}

// TestStopWhileItStarts stops agents at once, which is no error.
func TestStopWhileItStarts(t *testing.T) {
	onHost(t, func(h *host) {
		for range 50 {
			h.stop()
			h.start()
		}
	})
}

// TestPreemption checks that a critical pod for which there is no room is given that of another one,
// and begins when that has ended; and that a pod which is not critical is not.
func TestPreemption(t *testing.T) {
	onHost(t, func(h *host) {
		h.stop()
		h.maxPods = 2
		h.start()
		grace := ptr.To[int64](5)
		h.createAs("victim", v1.PodSpec{Containers: named("a"), Priority: ptr.To[int32](10), TerminationGracePeriodSeconds: grace})
		h.createAs("system", v1.PodSpec{Containers: named("b"), Priority: ptr.To[int32](2_000_000_000), TerminationGracePeriodSeconds: grace})
		h.eventually("running", func() bool { return running(h.named("victim"), "a") && running(h.named("system"), "b") })
		h.createAs("other", v1.PodSpec{Containers: named("c"), Priority: ptr.To[int32](1000)})
		h.eventually("rejected", func() bool { return h.named("other").Status.Phase == v1.PodFailed })
		if p := h.named("other"); p.Status.Reason != "OutOfpods" || p.Status.Message != "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2" {
			t.Errorf("%+v", p.Status)
		}
		h.create(v1.PodSpec{Containers: named("d"), Priority: ptr.To[int32](2_000_000_000)})
		h.eventually("begun", func() bool { return h.pod().Status.StartTime != nil })
		p := h.named("victim")
		if p.Status.Phase != v1.PodFailed || p.Status.Reason != "Preempting" || p.Status.Message != "Preempted in order to admit critical pod" {
			t.Errorf("the victim when the critical pod begins: %+v", p.Status)
		}
		c := slices.IndexFunc(p.Status.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.DisruptionTarget })
		if c < 0 || p.Status.Conditions[c].Status != v1.ConditionTrue || p.Status.Conditions[c].Reason != "TerminationByKubelet" || p.Status.Conditions[c].Message != "Pod was preempted by Kubelet to accommodate a critical pod." {
			t.Errorf("conditions: %+v", p.Status.Conditions)
		}
		h.until("running", func(p *v1.Pod) bool { return running(p, "d") })
		if !running(h.named("system"), "b") {
			t.Error("a critical pod was preempted")
		}
		if told := h.told(); !slices.Contains(told, "Warning Preempting Preempted in order to admit critical pod") {
			t.Errorf("events: %v", told)
		}
		// The next one finds no pod that it may preempt.
		h.createAs("last", v1.PodSpec{Containers: named("e"), Priority: ptr.To[int32](2_000_000_000)})
		h.eventually("rejected", func() bool { return h.named("last").Status.Phase == v1.PodFailed })
		if p := h.named("last"); p.Status.Reason != "UnexpectedAdmissionError" || p.Status.Message != "Pod was rejected: Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: pods, q: 1), ]" {
			t.Errorf("%+v", p.Status)
		}
	})
}

// TestAdmittedTogether checks that of pods which come at the same time as many are admitted as there is
// room for.
func TestAdmittedTogether(t *testing.T) {
	onHost(t, func(h *host) {
		h.stop()
		h.maxPods = 3
		names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		for _, name := range names {
			h.createAs(name, v1.PodSpec{Containers: named("c")})
		}
		h.start()
		h.eventually("settled", func() bool {
			up, out := 0, 0
			for _, name := range names {
				switch p := h.named(name); {
				case running(p, "c"):
					up++
				case p.Status.Reason == "OutOfpods":
					out++
				}
			}
			return up == 3 && out == len(names)-3
		})
	})
}

// TestSidecarsEnd checks that sidecars are stopped after the containers that need them, the last first, or
// all together when the time is up, and that all preStop hooks run at once.
func TestSidecarsEnd(t *testing.T) {
	for _, c := range []struct {
		hook, grace int64 // how long the container's hook takes, and the pod has
		want        string
	}{
		{5, 30, "exec one 0, exec two 0, stop c 5 25, stop two 5 25, stop one 5 25"},
		{60, 10, "exec one 0, exec two 0, stop c 10 2, stop one 10 2, stop two 10 2"},
	} {
		onHost(t, func(h *host) {
			sidecars, containers := named("one", "two"), named("c")
			for i := range sidecars {
				sidecars[i].RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
				sidecars[i].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"hook"}}}}
			}
			containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: c.hook}}}
			h.create(v1.PodSpec{InitContainers: sidecars, Containers: containers, TerminationGracePeriodSeconds: &c.grace})
			h.until("running", func(p *v1.Pod) bool { return running(p, "c") })
			p := h.pod()
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = ptr.To(metav1.Now()), &c.grace
			begun := time.Now()
			if _, err := h.client.CoreV1().Pods("n").Update(h.Context(), p, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			h.eventually("stopped", func() bool { return len(h.runtime.Calls()) == 5 })
			calls := h.runtime.Calls()
			// Those of one time may come in any order, unless one waits for another one.
			if c.hook > c.grace {
				slices.SortStableFunc(calls, func(a, b critest.Call) int {
					return cmp.Or(cmp.Compare(a.What, b.What), a.At.Compare(b.At), cmp.Compare(a.Container, b.Container))
				})
			} else {
				slices.SortStableFunc(calls[:2], func(a, b critest.Call) int { return cmp.Compare(a.Container, b.Container) })
			}
			var got []string
			for _, call := range calls {
				text := fmt.Sprintf("%s %s %d", call.What, call.Container, call.At.Sub(begun)/time.Second)
				if call.What == "stop" {
					text += fmt.Sprintf(" %d", call.Timeout)
				}
				got = append(got, text)
			}
			if all := strings.Join(got, ", "); all != c.want {
				t.Errorf("%s; want %s", all, c.want)
			}
		})
	}
}

// TestPodLevelResize checks that a container without limits, which has its pod's, is given the new ones when
// the pod is resized, and one with its own is not.
func TestPodLevelResize(t *testing.T) {
	onHost(t, func(h *host) {
		memory := func(q string) v1.ResourceList { return v1.ResourceList{v1.ResourceMemory: resource.MustParse(q)} }
		c := named("own", "none")
		c[0].Resources.Limits = memory("16Mi")
		h.create(v1.PodSpec{Containers: c, Resources: &v1.ResourceRequirements{Limits: memory("64Mi"), Requests: memory("64Mi")}})
		h.until("running", func(p *v1.Pod) bool { return running(p, "own", "none") })
		limits := func() map[string]int64 {
			out := map[string]int64{}
			for _, c := range h.runtime.Containers() {
				out[c.Metadata.Name] = c.Linux.Resources.MemoryLimitInBytes >> 20
			}
			return out
		}
		if got := limits(); !maps.Equal(got, map[string]int64{"own": 16, "none": 64}) {
			t.Errorf("limits before: %v", got)
		}
		p := h.pod()
		p.Spec.Resources = &v1.ResourceRequirements{Limits: memory("96Mi"), Requests: memory("96Mi")}
		p.Generation++
		if _, err := h.client.CoreV1().Pods("n").Update(h.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		h.eventually("resized", func() bool { return maps.Equal(limits(), map[string]int64{"own": 16, "none": 96}) })
		p = h.until("told", func(p *v1.Pod) bool {
			return p.Status.Resources != nil && p.Status.Resources.Limits.Memory().String() == "96Mi"
		})
		if r := state(p, "none").Resources; r == nil || len(r.Limits) != 0 {
			t.Errorf("resources of the container: %v", r)
		}
		h.created("own", "none")
	})
}
