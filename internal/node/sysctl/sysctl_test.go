package sysctl

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestCheck(t *testing.T) {
	l, err := New("5.10.0-33-amd64", []string{"kernel.msg*", "net.core.somaxconn", "net/ipv4/conf/*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name             string
		hostNet, hostIPC bool
		want             string
	}{
		{"net.ipv4.tcp_syncookies", false, false, ""},
		{"net/ipv4/tcp_syncookies", false, false, ""},
		{"net.ipv4.tcp_syncookies", true, false, `"net.ipv4.tcp_syncookies" not allowed with host net enabled`},
		{"kernel.shm_rmid_forced", false, true, `"kernel.shm_rmid_forced" not allowed with host ipc enabled`},
		{"kernel.msgmax", false, false, ""},
		{"net.core.somaxconn", false, false, ""},
		{"net.core.rmem_max", false, false, `"net.core.rmem_max" not allowlisted`},
		{"net/ipv4/conf/eth0.1/forwarding", false, false, ""},
		{"vm.swappiness", false, false, `"vm.swappiness" not allowlisted`},
		{"net.ipv4.tcp_rmem", false, false, ""},
	} {
		got := ""
		if err := l.Check(&v1.PodSpec{HostNetwork: c.hostNet, HostIPC: c.hostIPC, SecurityContext: &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: c.name}}}}); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if l.Check(&v1.PodSpec{}) != nil {
		t.Error("a pod without a security context")
	}
}

func TestNew(t *testing.T) {
	old, err := New("3.10.0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if old.names["net.ipv4.tcp_rmem"] || !old.names["net.ipv4.tcp_syncookies"] {
		t.Errorf("safe on an old kernel: %v", old.names)
	}
	for _, bad := range []string{"vm.swappiness", "", "*", "net.**", "Net.x"} {
		if _, err := New("6.1", []string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
