package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// mounts returns the mounts of a container whose environment is env, and makes the
// files that are mounted beside its volumes.
func (c *Converter) mounts(ctx context.Context, r *Run, env map[string]string) ([]*runtimeapi.Mount, error) {
	pod, spec := r.Pod, r.Container
	var out []*runtimeapi.Mount
	hosts := false
	for i := range spec.VolumeMounts {
		m := &spec.VolumeMounts[i]
		vol, ok := r.Volumes[m.Name]
		if !ok {
			return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, spec.Name)
		}
		path := vol.HostPath
		if path == "" {
			return nil, fmt.Errorf("volume %q is a device, and cannot be mounted into container %q", m.Name, spec.Name)
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			var err error
			if sub, err = expandPath(m.SubPathExpr, env); err != nil {
				return nil, err
			}
		}
		id, image := r.Images[m.Name]
		if image {
			out = append(out, &runtimeapi.Mount{ContainerPath: m.MountPath, Readonly: true, ImageSubPath: sub, Image: &runtimeapi.ImageSpec{Image: id}})
			continue
		}
		if sub != "" {
			var err error
			if path, err = c.SubPath(pod.UID, vol, m.Name, spec.Name, i, sub); err != nil {
				return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, spec.Name, err)
			}
		}
		mount := &runtimeapi.Mount{ContainerPath: m.MountPath, HostPath: path, Readonly: m.ReadOnly || vol.ReadOnly, SelinuxRelabel: vol.Relabel && selinuxEnabled()}
		var err error
		if mount.RecursiveReadOnly, err = c.recursiveReadOnly(ctx, pod, m); err != nil {
			return nil, err
		}
		if m.MountPropagation != nil {
			switch *m.MountPropagation {
			case v1.MountPropagationHostToContainer:
				mount.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
			case v1.MountPropagationBidirectional:
				mount.Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
			}
		}
		out = append(out, mount)
		hosts = hosts || m.MountPath == "/etc/hosts"
	}
	if !hosts {
		path, err := c.writeHosts(pod, r.IPs)
		if err != nil {
			return nil, err
		}
		ro := spec.SecurityContext != nil && ptr.Deref(spec.SecurityContext.ReadOnlyRootFilesystem, false)
		out = append(out, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: path, Readonly: ro})
	}
	if spec.TerminationMessagePath != "" {
		path := c.Layout.Termination(pod, spec.Name, r.Count)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o666)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Chmod(0o666), f.Close()); err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: spec.TerminationMessagePath, HostPath: path})
	}
	return out, c.ownMounts(pod, out)
}

// ownMounts gives the mounts of a pod with users of its own the users of the pod, so that what is
// root's on the machine is its root's there (https://kep.k8s.io/127, Handling of volumes).
func (c *Converter) ownMounts(pod *v1.Pod, mounts []*runtimeapi.Mount) error {
	users, err := c.usersIn(pod)
	if err != nil || users.Mode != runtimeapi.NamespaceMode_POD {
		return err
	}
	for _, m := range mounts {
		m.UidMappings, m.GidMappings = users.Uids, users.Gids
	}
	return nil
}

// volumeDevices returns the devices of a container's block volumes.
func volumeDevices(r *Run) ([]*runtimeapi.Device, error) {
	var out []*runtimeapi.Device
	for i := range r.Container.VolumeDevices {
		d := &r.Container.VolumeDevices[i]
		vol, ok := r.Volumes[d.Name]
		if !ok || vol.Device == "" {
			return nil, fmt.Errorf("cannot find volume %q to pass into container %q", d.Name, r.Container.Name)
		}
		permissions := "mrw"
		if vol.ReadOnly {
			permissions = "r"
		}
		out = append(out, &runtimeapi.Device{ContainerPath: d.DevicePath, HostPath: vol.Device, Permissions: permissions})
	}
	return out, nil
}

// recursiveReadOnly reports whether mounts below a read-only mount are
// read-only, too (https://kep.k8s.io/3857).
func (c *Converter) recursiveReadOnly(ctx context.Context, pod *v1.Pod, m *v1.VolumeMount) (bool, error) {
	mode := ptr.Deref(m.RecursiveReadOnly, v1.RecursiveReadOnlyDisabled)
	if !m.ReadOnly || mode == v1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	handler, err := c.RuntimeHandler(ctx, pod)
	if err != nil {
		return false, err
	}
	f, err := c.CRI.Features(ctx)
	if err != nil {
		return false, err
	}
	can := f.RecursiveReadOnly(handler)
	if mode == v1.RecursiveReadOnlyEnabled && !can {
		return false, fmt.Errorf("failed to resolve recursive read-only mode: volume %q requested recursive read-only mode, but it is not supported by the runtime", m.Name)
	}
	return can, nil
}
