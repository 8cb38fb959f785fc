package conformance

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

// Commands, arguments and images.

var _ = InContainers("[sig-node] Containers should use the image defaults if command and args are blank", func(t *T) {
	t.prints(t.script("p", "", first(func(c *v1.Container) { c.Command = nil })), "the default of the image\n")
})

var _ = InContainers("[sig-node] Containers should be able to override the image's default arguments (container cmd)", func(t *T) {
	t.prints(t.script("p", "", first(func(c *v1.Container) { c.Command, c.Args = nil, []string{"echo", "override", "arguments"} })), "override arguments\n")
})

var _ = InContainers("[sig-node] Containers should be able to override the image's default command (container entrypoint)", func(t *T) {
	t.prints(t.script("p", "", first(func(c *v1.Container) { c.Command = []string{"echo", "override command"} })), "override command\n")
})

var _ = InContainers("[sig-node] Containers should be able to override the image's default command and arguments", func(t *T) {
	t.prints(t.script("p", "", first(func(c *v1.Container) {
		c.Command, c.Args = []string{"echo", "override"}, []string{"command and", "arguments"}
	})), "override command and arguments\n")
})

// Lifecycle hooks.

// listener returns a pod that prints the requests that it gets.
func (t *T) listener() (name, ip string) {
	t.Helper()
	p := t.run("listener", nil)
	return p.Name, p.Status.PodIP
}

// hooked returns a pod with a hook that requests a path from the listener: a postStart
// hook, or a preStop hook.
func (t *T) hooked(ip, path string, exec, start bool) *v1.Pod {
	h := &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Host: ip}}
	h.HTTPGet.Port.IntVal = 8080
	if exec {
		h = &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"wget", "-q", "-O", "-", "http://" + ip + ":8080" + path}}}
	}
	return t.script("hooked", "trap exit TERM; sleep 1000 & wait", first(func(c *v1.Container) {
		c.Lifecycle = &v1.Lifecycle{PreStop: h}
		if start {
			c.Lifecycle = &v1.Lifecycle{PostStart: h}
		}
	}), func(p *v1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](30) })
}

func hookTest(exec, start bool) func(*T) {
	return func(t *T) {
		listener, ip := t.listener()
		t.makePod(t.hooked(ip, "/called", exec, start))
		t.inPhase("hooked", v1.PodRunning)
		if !start {
			if log := got[string](t)(t.log(listener, "")); strings.Contains(log, "/called") {
				t.Errorf("the hook ran too early: %s", log)
			}
			t.must(t.Client.CoreV1().Pods(t.NS).Delete(t.Context(), "hooked", remove))
		}
		t.hears(listener, "", "GET /called ")
	}
}

var (
	_ = OverNetwork("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart exec hook properly", hookTest(true, true))
	_ = OverNetwork("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart http hook properly", hookTest(false, true))
	_ = OverNetwork("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop exec hook properly", hookTest(true, false))
	_ = OverNetwork("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop http hook properly", hookTest(false, false))
	_ = OverNetwork("[sig-node] PreStop should call prestop when killing a pod", hookTest(true, false))
)

// Termination.

// messages runs a pod to its end and checks the message of its container.
func messages(script, want string, phase v1.PodPhase, change func(*v1.Container)) func(*T) {
	return func(t *T) {
		t.makePod(t.script("p", script, first(change)))
		p := t.inPhase("p", phase)
		if got := p.Status.ContainerStatuses[0].State.Terminated.Message; got != want {
			t.Errorf("message %q, want %q", got, want)
		}
	}
}

func fallback(c *v1.Container) {
	c.TerminationMessagePolicy = v1.TerminationMessageFallbackToLogsOnError
}

var (
	_ = InContainers("[sig-node] Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set as non-root user and at a non-default path",
		messages("echo -n DONE > /dev/termination-custom-log", "DONE", v1.PodSucceeded, func(c *v1.Container) {
			c.TerminationMessagePath, c.SecurityContext = "/dev/termination-custom-log", &v1.SecurityContext{RunAsUser: ptr.To[int64](1000)}
		}))
	_ = InContainers("[sig-node] Container Runtime blackbox test on terminated container should report termination message from log output if TerminationMessagePolicy FallbackToLogsOnError is set",
		messages("echo -n DONE; exit 1", "DONE", v1.PodFailed, fallback))
	_ = InContainers("[sig-node] Container Runtime blackbox test on terminated container should report termination message as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set",
		messages("echo -n DONE", "", v1.PodSucceeded, fallback))
	_ = InContainers("[sig-node] Container Runtime blackbox test on terminated container should report termination message from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set",
		messages("echo -n OK > /dev/termination-log; echo DONE", "OK", v1.PodSucceeded, fallback))
)

var _ = InContainers("[sig-node] Container Runtime blackbox test when starting a container that exits should run with the expected status", func(t *T) {
	// It fails once, then ends well, then goes on.
	const script = `echo x >> /count/x; case $(wc -l < /count/x) in 1) exit 1;; 2) exit 0;; *) sleep 1000;; esac`
	for _, c := range []struct {
		policy   v1.RestartPolicy
		phase    v1.PodPhase
		running  bool
		restarts int32
	}{
		{v1.RestartPolicyAlways, v1.PodRunning, true, 2},
		{v1.RestartPolicyOnFailure, v1.PodSucceeded, false, 1},
		{v1.RestartPolicyNever, v1.PodFailed, false, 0},
	} {
		name := strings.ToLower(string(c.policy))
		t.makePod(t.script(name, script, emptyDir("count", "/count"), func(p *v1.Pod) { p.Spec.RestartPolicy = c.policy }))
		t.pod(name, func(p *v1.Pod) error {
			if len(p.Status.ContainerStatuses) != 1 {
				return fmt.Errorf("no status yet")
			}
			s := p.Status.ContainerStatuses[0]
			if p.Status.Phase != c.phase || s.RestartCount != c.restarts || s.Ready != c.running || (s.State.Running != nil) != c.running || (s.State.Terminated != nil) == c.running {
				return fmt.Errorf("%s: %+v", p.Status.Phase, s)
			}
			return nil
		})
	}
})

// Init containers.

// initialized returns a pod of two init containers and an app.
func (t *T) initialized(policy v1.RestartPolicy, init1, init2, app string) *v1.Pod {
	return t.script("p", app, func(p *v1.Pod) {
		p.Spec.RestartPolicy = policy
		for i, s := range []string{init1, init2} {
			p.Spec.InitContainers = append(p.Spec.InitContainers, v1.Container{Name: fmt.Sprintf("init%d", i+1), Image: t.Busybox, Command: []string{"sh", "-c", s}})
		}
	})
}

func initializedCondition(p *v1.Pod) *v1.PodCondition {
	i := slices.IndexFunc(p.Status.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.PodInitialized })
	if i < 0 {
		return &v1.PodCondition{}
	}
	return &p.Status.Conditions[i]
}

func initWell(policy v1.RestartPolicy, app string, phase v1.PodPhase) func(*T) {
	return func(t *T) {
		t.makePod(t.initialized(policy, "true", "true", app))
		p := t.inPhase("p", phase)
		if c := initializedCondition(p); c.Status != v1.ConditionTrue {
			t.Errorf("condition %+v", c)
		}
		for _, s := range p.Status.InitContainerStatuses {
			if !s.Ready || s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 {
				t.Errorf("%s: %+v", s.Name, s.State)
			}
		}
	}
}

var (
	_ = InContainers("[sig-node] InitContainer should invoke init containers on a RestartNever pod", initWell(v1.RestartPolicyNever, "true", v1.PodSucceeded))
	_ = InContainers("[sig-node] InitContainer should invoke init containers on a RestartAlways pod", initWell(v1.RestartPolicyAlways, "sleep 1000", v1.PodRunning))
)

var _ = InContainers("[sig-node] InitContainer should not start app containers if init containers fail on a RestartAlways pod", func(t *T) {
	t.makePod(t.initialized(v1.RestartPolicyAlways, "false", "true", "sleep 1000"))
	t.pod("p", func(p *v1.Pod) error {
		if len(p.Status.InitContainerStatuses) == 0 || p.Status.InitContainerStatuses[0].RestartCount < 2 {
			return fmt.Errorf("%+v", p.Status.InitContainerStatuses)
		}
		c := initializedCondition(p)
		if p.Status.Phase != v1.PodPending || c.Status != v1.ConditionFalse || c.Reason != "ContainersNotInitialized" || c.Message != "containers with incomplete status: [init1 init2]" {
			t.Fatalf("%s: %+v", p.Status.Phase, c)
		}
		for _, s := range []v1.ContainerStatus{p.Status.InitContainerStatuses[1], p.Status.ContainerStatuses[0]} {
			if s.State.Waiting == nil || s.State.Waiting.Reason != "PodInitializing" {
				t.Fatalf("%s: %+v", s.Name, s.State)
			}
		}
		return nil
	})
})

var _ = InContainers("[sig-node] InitContainer should not start app containers and fail the pod if init containers fail on a RestartNever pod", func(t *T) {
	t.makePod(t.initialized(v1.RestartPolicyNever, "true", "false", "true"))
	p := t.inPhase("p", v1.PodFailed)
	if c := initializedCondition(p); c.Status != v1.ConditionFalse || c.Reason != "ContainersNotInitialized" || c.Message != "containers with incomplete status: [init2]" {
		t.Errorf("condition %+v", c)
	}
	if s := p.Status.InitContainerStatuses[1]; s.State.Terminated == nil || s.State.Terminated.ExitCode != 1 {
		t.Errorf("init2: %+v", s.State)
	}
	if s := p.Status.ContainerStatuses[0]; s.State.Waiting == nil {
		t.Errorf("the app: %+v", s.State)
	}
})

// Ephemeral containers.

func (t *T) addEphemeral(pod, name, script string) {
	t.Helper()
	p := got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Get(t.Context(), pod, get))
	p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, v1.EphemeralContainer{TargetContainerName: "main", EphemeralContainerCommon: v1.EphemeralContainerCommon{
		Name: name, Image: t.Busybox, Command: []string{"sh", "-c", script}, Stdin: true, TTY: true}})
	harness.Succeeds(t, "an ephemeral container", func() error {
		_, err := t.Client.CoreV1().Pods(t.NS).UpdateEphemeralContainers(t.Context(), pod, p, update)
		return err
	})
}

var _ = InContainers("[sig-node] Ephemeral Containers will start an ephemeral container in an existing pod", func(t *T) {
	t.makePod(t.script("p", "sleep 1000"))
	t.inPhase("p", v1.PodRunning)
	t.addEphemeral("p", "debugger", "while true; do echo polo; sleep 1; done")
	t.hears("p", "debugger", "polo")
})

var _ = InContainers("[sig-node] Ephemeral Containers should update the ephemeral containers in an existing pod", func(t *T) {
	t.makePod(t.script("p", "sleep 1000"))
	t.inPhase("p", v1.PodRunning)
	t.addEphemeral("p", "debugger1", "while true; do echo polo; sleep 1; done")
	t.hears("p", "debugger1", "polo")
	patch := patchOf(dict{"spec": dict{"ephemeralContainers": []dict{{"name": "debugger2", "image": t.Busybox, "command": []string{"sh", "-c", "while true; do echo marco; sleep 1; done"}}}}})
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), "p", types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "ephemeralcontainers"))
	t.hears("p", "debugger2", "marco")
	if p := t.inPhase("p", v1.PodRunning); len(p.Spec.EphemeralContainers) != 2 {
		t.Errorf("%d ephemeral containers", len(p.Spec.EphemeralContainers))
	}
})

// Files and limits of the kubelet.

var _ = InContainers("[sig-node] Kubelet when scheduling a busybox command in a pod should print the output to logs", func(t *T) {
	t.prints(t.script("p", "echo 'Hello World'; sleep 1"), "Hello World\n")
})

var _ = InContainers("[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason", func(t *T) {
	t.makePod(t.script("p", "false"))
	p := t.inPhase("p", v1.PodFailed)
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode == 0 || s.Reason != "Error" {
		t.Errorf("state %+v", s)
	}
})

var _ = InContainers("[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete", func(t *T) {
	t.makePod(t.script("p", "false", func(p *v1.Pod) { p.Spec.RestartPolicy = v1.RestartPolicyAlways }))
	t.waitsFor("p", "CrashLoopBackOff")
	t.must(t.Client.CoreV1().Pods(t.NS).Delete(t.Context(), "p", remove))
	t.gone(t.Dynamic.Resource(v1.SchemeGroupVersion.WithResource("pods")).Namespace(t.NS), "p")
})

var _ = InContainers("[sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem", func(t *T) {
	t.prints(t.script("p", "echo test > /file; test ! -e /file && echo 'not written'", first(func(c *v1.Container) { c.SecurityContext = &v1.SecurityContext{ReadOnlyRootFilesystem: ptr.To(true)} })),
		"Read-only file system", "not written\n")
})

var _ = InContainers("[sig-node] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts", func(t *T) {
	t.prints(t.script("p", "cat /etc/hosts", func(p *v1.Pod) {
		p.Spec.HostAliases = []v1.HostAlias{{IP: "123.45.67.89", Hostnames: []string{"foo", "bar"}}}
	}), "# Kubernetes-managed hosts file.", "# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar\n")
})

var _ = InContainers("[sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file", func(t *T) {
	const managed = "# Kubernetes-managed hosts file"
	// own mounts a file of its own at /etc/hosts.
	own := func(p *v1.Pod) {
		t.Helper()
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: "hosts", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "hosts"}}}})
		c := p.Spec.Containers[0].DeepCopy()
		c.Name, c.VolumeMounts = "own", []v1.VolumeMount{{Name: "hosts", MountPath: "/etc/hosts", SubPath: "hosts"}}
		p.Spec.Containers = append(p.Spec.Containers, *c)
	}
	t.makeConfigMap("hosts", map[string]string{"hosts": "127.0.0.1 own\n"})
	for name, network := range map[string]bool{"pod": false, "host": true} {
		t.makePod(t.script(name, "sleep 1000", own, func(p *v1.Pod) { p.Spec.HostNetwork = network }))
		t.inPhase(name, v1.PodRunning)
		if out := t.inContainer(name, "main", "cat", "/etc/hosts"); !strings.HasPrefix(out, managed) || strings.Contains(out, "(host network)") != network {
			t.Errorf("%s: %s", name, out)
		}
		if out := t.inContainer(name, "own", "cat", "/etc/hosts"); out != "127.0.0.1 own\n" {
			t.Errorf("%s, of its own: %s", name, out)
		}
	}
})

var _ = InContainers("[sig-node] ImageVolume should succeed with pod and pull policy of Always", func(t *T) {
	t.makePod(t.script("p", "sleep 1000", func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "image", VolumeSource: v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: t.Busybox, PullPolicy: v1.PullAlways}}}}
		p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "image", MountPath: "/volume"}}
	}))
	t.inPhase("p", v1.PodRunning)
	if out := t.inContainer("p", "main", "cat", "/volume/etc/passwd"); !strings.HasPrefix(out, "root:") {
		t.Errorf("the image's file: %s", out)
	}
	if out, err := t.kubectl("", "exec", "p", "--", "touch", "/volume/etc/new"); err == nil || !strings.Contains(out, "Read-only file system") {
		t.Errorf("a write to the image: %v %s", err, out)
	}
})
