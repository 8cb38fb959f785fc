package sysctl

import (
	"fmt"
	"regexp"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
)

// safe are the parameters that have a value in each namespace and do not harm
// others, with the first kernel in which that is so (0 is every kernel).
var safe = []struct{ name, since string }{
	{"kernel.shm_rmid_forced", ""},
	{"net.ipv4.ip_local_port_range", ""},
	{"net.ipv4.tcp_syncookies", ""},
	{"net.ipv4.ping_group_range", ""},
	{"net.ipv4.ip_unprivileged_port_start", ""},
	{"net.ipv4.ip_local_reserved_ports", "3.16"},
	{"net.ipv4.tcp_keepalive_time", "4.5"},
	{"net.ipv4.tcp_fin_timeout", "4.6"},
	{"net.ipv4.tcp_keepalive_intvl", "4.5"},
	{"net.ipv4.tcp_keepalive_probes", "4.5"},
	{"net.ipv4.tcp_rmem", "4.15"},
	{"net.ipv4.tcp_wmem", "4.15"},
}

// The namespaces that parameters belong to.
const (
	ipc     = "ipc"
	network = "net"
)

// namespace returns the namespace that has its own value of the parameter, empty
// where the value is the machine's.
func namespace(name string) string {
	switch {
	case name == "kernel.sem", strings.HasPrefix(name, "kernel.shm"), strings.HasPrefix(name, "kernel.msg"), strings.HasPrefix(name, "fs.mqueue."):
		return ipc
	case strings.HasPrefix(name, "net."):
		return network
	}
	return ""
}

// dotted writes a name of either form (net/ipv4/x, net.ipv4.x) with dots between
// its parts; as sysctl(8), the first separator determines the form.
func dotted(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		return name
	}
	return strings.NewReplacer("/", ".", ".", "/").Replace(name)
}

// List is the parameters that pods of a node may set.
type List struct {
	names    map[string]bool
	prefixes []string
}

// pattern is the form of a parameter's name, or of a prefix of names.
var pattern = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9*]$`)

// New makes the list of a node: the safe parameters of a kernel (its release,
// as uname -r has it) and the allowed ones, each a name or a prefix that ends
// in *.
func New(kernel string, allowed []string) (*List, error) {
	l := &List{names: map[string]bool{}}
	running, err := version.ParseGeneric(kernel)
	if err != nil {
		return nil, fmt.Errorf("kernel %q: %w", kernel, err)
	}
	for _, s := range safe {
		if s.since == "" || running.AtLeast(version.MustParseGeneric(s.since)) {
			l.names[s.name] = true
		}
	}
	for _, a := range allowed {
		name := dotted(a)
		if !pattern.MatchString(name) {
			return nil, fmt.Errorf("allowed unsafe sysctl %q: wanted a parameter's name, or the beginning of names and *", a)
		}
		prefix, many := strings.CutSuffix(name, "*")
		if namespace(prefix) == "" {
			return nil, fmt.Errorf("the sysctls %q are not known to be namespaced", a)
		}
		if many {
			l.prefixes = append(l.prefixes, prefix)
		} else {
			l.names[name] = true
		}
	}
	return l, nil
}

// Check returns an error that names a parameter which the pod may not set and
// why, nil if it may set all of its own.
func (l *List) Check(pod *v1.PodSpec) error {
	if pod.SecurityContext == nil {
		return nil
	}
	for _, s := range pod.SecurityContext.Sysctls {
		name := dotted(s.Name)
		allowed := l.names[name]
		for _, p := range l.prefixes {
			allowed = allowed || strings.HasPrefix(name, p)
		}
		if !allowed {
			return fmt.Errorf("%q not allowlisted", name)
		}
		if ns := namespace(name); ns == ipc && pod.HostIPC || ns == network && pod.HostNetwork {
			return fmt.Errorf("%q not allowed with host %s enabled", name, ns)
		}
	}
	return nil
}
