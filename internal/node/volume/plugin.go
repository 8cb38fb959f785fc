package volume

import (
	"context"

	v1 "k8s.io/api/core/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"
)

// Mounted is a volume that is ready on this machine: a folder or file, or a
// device.
type Mounted struct {
	HostPath string
	// Device is the path of a block volume's device; such a one has no HostPath.
	Device   string
	ReadOnly bool
	// Relabel reports whether the runtime may give the volume the SELinux label
	// of its pod.
	Relabel bool
}

// Spec is a volume that is to be made.
type Spec struct {
	Pod    *v1.Pod
	Volume *v1.Volume
	// Claim and Persistent are what the volume is of, where it is a claim's. Its
	// kind is then that of Persistent.
	Claim      *v1.PersistentVolumeClaim
	Persistent *v1.PersistentVolume
	// Migrated reports whether the volume is of a kind that was built into Kubernetes, and is
	// a CSI driver's now.
	Migrated bool
	// Dir is where the plug-in may put the volume; its parent exists.
	Dir string
}

// Name returns the name that the volume has on the node: its own, or that of its
// PersistentVolume.
func (s *Spec) Name() string {
	if s.Persistent != nil {
		return s.Persistent.Name
	}
	return s.Volume.Name
}

// ReadOnly reports whether the pod only reads the volume of a claim.
func (s *Spec) ReadOnly() bool {
	c := s.Volume.PersistentVolumeClaim
	return c != nil && c.ReadOnly
}

// Block reports whether the pod sees the volume as a device.
func (s *Spec) Block() bool {
	return s.Persistent != nil && ptr.Deref(s.Persistent.Spec.VolumeMode, v1.PersistentVolumeFilesystem) == v1.PersistentVolumeBlock
}

// FSGroup returns the group that owns the volume's files, nil for none
// (https://kubernetes.io/docs/tasks/configure-pod-container/security-context/).
func (s *Spec) FSGroup() *int64 {
	if c := s.Pod.Spec.SecurityContext; c != nil {
		return c.FSGroup
	}
	return nil
}

// User returns the user that all of the pod's containers run as, nil if there is
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
	// Name returns the kind's name as upstream has it (kubernetes.io/empty-dir);
	// the volumes' folders are below one of that name.
	Name() string
	// Supports reports whether the volume is of this kind. Its Dir is not known
	// yet.
	Supports(s *Spec) bool
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

// Measurer is a plug-in that knows more of its volumes than their file systems tell.
type Measurer interface {
	Plugin
	// Stats returns the size and the use of a volume that Mount has made ready, nil if
	// they are not known.
	Stats(ctx context.Context, s *Spec) (*statsapi.FsStats, error)
}

// Periodic is a plug-in whose volumes are looked at from time to time while they
// are in use.
type Periodic interface {
	Plugin
	// Again brings the volume up to date, which Mount has made ready.
	Again(ctx context.Context, s *Spec) error
}
