package conformance

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// secured sets the first container's security context.
func secured(c v1.SecurityContext) func(*v1.Pod) {
	return first(func(k *v1.Container) { k.SecurityContext = &c })
}

// ids is a script that prints the IDs of a process's user and group.
const ids = "echo uid=$(id -u) gid=$(id -g)"

var (
	_ = InContainers("[sig-node] Security Context When creating a container with runAsUser should run the container with uid 65534", func(t *T) {
		t.prints(t.script("p", ids, secured(v1.SecurityContext{RunAsUser: ptr.To[int64](65534)})), "uid=65534 ")
	})
	_ = InContainers("[sig-node] Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup", func(t *T) {
		t.prints(t.script("p", ids, secured(v1.SecurityContext{RunAsUser: ptr.To[int64](1001), RunAsGroup: ptr.To[int64](2002)})), "uid=1001 gid=2002\n")
	})
	_ = InContainers("[sig-node] Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup", func(t *T) {
		t.prints(t.script("p", ids, func(p *v1.Pod) {
			p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: ptr.To[int64](1001), RunAsGroup: ptr.To[int64](2002)}
		}), "uid=1001 gid=2002\n")
	})
	_ = InContainers("[sig-node] Security Context When creating a pod with privileged should run the container as unprivileged when false", func(t *T) {
		t.prints(t.script("p", "ip link add dummy0 type bridge || true", secured(v1.SecurityContext{Privileged: ptr.To(false)})), "Operation not permitted")
	})
	_ = InContainers("[sig-node] Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false", func(t *T) {
		t.output(t.script("p", "touch checkfile", secured(v1.SecurityContext{ReadOnlyRootFilesystem: ptr.To(false)})))
	})
	_ = InContainers("[sig-node] Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false", func(t *T) {
		// A program with the set-user-ID bit runs as the user that started it.
		t.prints(t.script("p", "cp /bin/busybox /v/id", emptyDir("v", "/v"), func(p *v1.Pod) {
			install := p.Spec.Containers[0].DeepCopy()
			install.Name, install.Command = "install", []string{"sh", "-c", "cp /bin/busybox /v/id && chmod 4755 /v/id"}
			p.Spec.InitContainers = []v1.Container{*install}
			c := &p.Spec.Containers[0]
			c.Command = []string{"sh", "-c", `echo "effective=$(/v/id -u)"; grep NoNewPrivs /proc/self/status`}
			c.SecurityContext = &v1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), RunAsUser: ptr.To[int64](1000)}
		}), "effective=1000\n", "NoNewPrivs:\t1\n")
	})
)

func sysctls(pairs ...string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.SecurityContext = &v1.PodSecurityContext{}
		for i := 0; i < len(pairs); i += 2 {
			p.Spec.SecurityContext.Sysctls = append(p.Spec.SecurityContext.Sysctls, v1.Sysctl{Name: pairs[i], Value: pairs[i+1]})
		}
	}
}

var _ = InContainers("[sig-node] Sysctls [LinuxOnly] should support sysctls", func(t *T) {
	t.prints(t.script("p", "sysctl kernel.shm_rmid_forced", sysctls("kernel.shm_rmid_forced", "1")), "kernel.shm_rmid_forced = 1")
})

var _ = It("[sig-node] Sysctls [LinuxOnly] should reject invalid sysctls", func(t *T) {
	p := pod("p", nil)
	sysctls("foo-", "bar", "kernel.shmmax", "100000000", "safe-and-unsafe", "100000000", "bar..", "42")(p)
	_, err := t.Client.CoreV1().Pods(t.NS).Create(t.Context(), p, create)
	if err == nil {
		t.Fatal("the pod was taken")
	}
	for name, invalid := range map[string]bool{`"foo-"`: true, `"bar.."`: true, `"safe-and-unsafe"`: false, `"kernel.shmmax"`: false} {
		if strings.Contains(err.Error(), "Invalid value: "+name) != invalid {
			t.Errorf("%s is invalid: %v, want %v, in: %v", name, !invalid, invalid, err)
		}
	}
})
