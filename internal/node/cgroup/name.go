package cgroup

import (
	"fmt"
	"path"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Driver names the maker of cgroups: the agent itself, or systemd.
type Driver string

// The drivers, as kubelets call them.
const (
	Cgroupfs Driver = "cgroupfs"
	Systemd  Driver = "systemd"
)

// Validate returns an error for an unknown driver; an empty one stands for the
// runtime's.
func (d Driver) Validate() error {
	switch d {
	case "", Cgroupfs, Systemd:
		return nil
	}
	return fmt.Errorf("%q: must be %s or %s", string(d), Cgroupfs, Systemd)
}

// Name is a cgroup by its path, from the root of the pods' cgroups down.
type Name []string

// Pods returns the cgroup of all pods of a node, below a root ("" is the machine's).
func Pods(root string) Name {
	var n Name
	for _, part := range strings.Split(root, "/") {
		if part != "" {
			n = append(n, part)
		}
	}
	return append(n, "kubepods")
}

// Class returns the cgroup of the pods of a class, which for guaranteed pods is that
// of all pods.
func (n Name) Class(class v1.PodQOSClass) Name {
	switch class {
	case v1.PodQOSBurstable, v1.PodQOSBestEffort:
		return n.child(strings.ToLower(string(class)))
	}
	return n
}

// Pod returns the cgroup of a pod in the cgroup of its class.
func (n Name) Pod(uid string) Name { return n.child("pod" + uid) }

func (n Name) child(part string) Name { return append(n[:len(n):len(n)], part) }

// Parent returns the name as CRI's cgroup_parent has it.
func (n Name) Parent(d Driver) string {
	if d != Systemd {
		return "/" + strings.Join(n, "/")
	}
	parts := n.slices()
	return parts[len(parts)-1]
}

// Path returns where the cgroup is below a hierarchy's mount point.
func (n Name) Path(d Driver) string {
	if d != Systemd {
		return path.Join(n...)
	}
	return path.Join(n.slices()...)
}

// slices returns the systemd slices that lead to the cgroup: a dash in a slice's
// name means that it is inside another one.
func (n Name) slices() []string {
	out, name := make([]string, len(n)), ""
	for i, part := range n {
		if i > 0 {
			name += "-"
		}
		name += strings.ReplaceAll(part, "-", "_")
		out[i] = name + ".slice"
	}
	return out
}
