package volume

import (
	"context"

	v1 "k8s.io/api/core/v1"
)

// Mounted is a volume that is ready on this machine.
type Mounted struct {
	HostPath string
	ReadOnly bool
	// Relabel: the runtime may give the volume the SELinux label of its pod.
	Relabel bool
}

// Spec is a volume that is to be made.
type Spec struct {
	Pod    *v1.Pod
	Volume *v1.Volume
	// Dir is where the plug-in may put the volume; its parent exists.
	Dir string
}

// FSGroup is the group that owns the volume's files, nil for none
// (https://kubernetes.io/docs/tasks/configure-pod-container/security-context/).
func (s *Spec) FSGroup() *int64 {
	if c := s.Pod.Spec.SecurityContext; c != nil {
		return c.FSGroup
	}
	return nil
}

// User is the user that all of the pod's containers run as, nil if there is
// none that the pod names for all of them.
func (s *Spec) User() *int64 {
	var all *int64
	var pod *int64
	if c := s.Pod.Spec.SecurityContext; c != nil {
		pod = c.RunAsUser
	}
	for _, containers := range [][]v1.Container{s.Pod.Spec.InitContainers, s.Pod.Spec.Containers} {
		for i := range containers {
			user := pod
			if c := containers[i].SecurityContext; c != nil && c.RunAsUser != nil {
				user = c.RunAsUser
			}
			if user == nil || all != nil && *all != *user {
				return nil
			}
			all = user
		}
	}
	return all
}

// Plugin makes volumes of one kind.
type Plugin interface {
	// Name is the kind's name as upstream has it (kubernetes.io/empty-dir);
	// the volumes' folders are below one of that name.
	Name() string
	// Supports reports whether the volume is of this kind.
	Supports(v *v1.Volume) bool
	// Mount makes the volume ready, or brings it up to date: it is called again
	// after a change, and by an agent that finds the pod running.
	Mount(ctx context.Context, s *Spec) (Mounted, error)
	// Unmount takes down what Mount has mounted at or below dir, which is
	// removed afterwards.
	Unmount(ctx context.Context, dir string) error
}

// Unmounter is a plug-in's Unmount for kinds that mount at most the folder
// itself.
type Unmounter struct{}

// Unmount takes down what is mounted at dir.
func (Unmounter) Unmount(_ context.Context, dir string) error { return Detach(dir) }
