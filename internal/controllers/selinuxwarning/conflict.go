package selinuxwarning

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// use is how a pod uses a volume.
type use struct {
	label  string // of the files; empty where the nodes choose it
	policy v1.PodSELinuxChangePolicy
}

// conflict is a difference between two pods' uses of a volume, from the view of the
// first.
type conflict struct{ property, reason, value, other string }

// conflicts compares the uses of a volume by two pods.
func conflicts(a, b use) (out []conflict) {
	if a.policy != b.policy {
		out = append(out, conflict{"SELinuxChangePolicy", "SELinuxChangePolicyConflict", string(a.policy), string(b.policy)})
	}
	if differ(a.label, b.label) {
		out = append(out, conflict{"SELinux label", "SELinuxLabelConflict", a.label, b.label})
	}
	return out
}

// differ reports whether two labels cannot be the same: a part that is not given is
// what the node has by default.
func differ(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	x, y := strings.SplitN(a, ":", 4), strings.SplitN(b, ":", 4)
	for i := range min(len(x), len(y)) {
		if x[i] != "" && y[i] != "" && x[i] != y[i] {
			return true
		}
	}
	return false
}

// message tells pod of a conflict with another; of one in another namespace it says no
// more than that there is one.
func (c conflict) message(pod, other *v1.Pod) string {
	if pod.Namespace != other.Namespace {
		return fmt.Sprintf("%s%q conflicts with another pod that uses the same volume as this pod with a different %s. "+
			"If both pods land on the same node, only one of them may access the volume.", c.property, c.value, c.property)
	}
	return fmt.Sprintf("%s %q conflicts with pod %s that uses the same volume as this pod with %s %q. "+
		"If both pods land on the same node, only one of them may access the volume.", c.property, c.value, other.Name, c.property, c.other)
}

// label returns the label that options make, with the parts that they give.
func label(o *v1.SELinuxOptions) string {
	if o == nil {
		return ""
	}
	l := strings.Join([]string{o.User, o.Role, o.Type, o.Level}, ":")
	if l == ":::" {
		return ""
	}
	return l
}

// labels returns the different labels of the containers of a pod that mount a volume.
func labels(p *v1.Pod, volume string) (out []string) {
	var own *v1.SELinuxOptions
	if s := p.Spec.SecurityContext; s != nil {
		own = s.SELinuxOptions
	}
	for _, list := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			c := &list[i]
			if !slices.ContainsFunc(c.VolumeMounts, func(m v1.VolumeMount) bool { return m.Name == volume }) {
				continue
			}
			options := own
			if c.SecurityContext != nil && c.SecurityContext.SELinuxOptions != nil {
				options = c.SecurityContext.SELinuxOptions
			}
			if l := label(options); !slices.Contains(out, l) {
				out = append(out, l)
			}
		}
	}
	return out
}

// useOf returns how a pod uses a volume with one label, whose driver may mount it with
// that.
func useOf(p *v1.Pod, label string, mountable bool) use {
	u := use{label, v1.SELinuxChangePolicyMountOption}
	if s := p.Spec.SecurityContext; s != nil && s.SELinuxChangePolicy != nil {
		u.policy = *s.SELinuxChangePolicy
	}
	if !mountable || u.policy == v1.SELinuxChangePolicyRecursive || label == "" {
		// The container runtime changes the labels of the files, one by one.
		return use{"", v1.SELinuxChangePolicyRecursive}
	}
	return u
}
