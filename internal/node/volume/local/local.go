// Package local gives pods folders and devices of the machine that are
// PersistentVolumes (https://kubernetes.io/docs/concepts/storage/volumes/#local).
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/mount-utils"
	"k8s.io/utils/exec"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

// Plugin makes local volumes.
type Plugin struct{ volume.Unmounter }

// Name is kubernetes.io/local-volume.
func (Plugin) Name() string { return "kubernetes.io/local-volume" }

// Supports reports whether the volume is a local one.
func (Plugin) Supports(s *volume.Spec) bool {
	return s.Persistent != nil && s.Persistent.Spec.Local != nil
}

// Mount binds the folder, or mounts the file system of the device, which it makes
// if there is none.
func (Plugin) Mount(_ context.Context, s *volume.Spec) (volume.Mounted, error) {
	pv := s.Persistent
	source, readOnly := pv.Spec.Local.Path, s.ReadOnly()
	if !filepath.IsAbs(source) {
		return volume.Mounted{}, fmt.Errorf("LocalVolume volume path %q is not absolute", source)
	}
	info, err := os.Stat(source)
	if errors.Is(err, fs.ErrNotExist) {
		return volume.Mounted{}, fmt.Errorf("path %q does not exist", source)
	}
	if err != nil {
		return volume.Mounted{}, err
	}
	device := info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
	if s.Block() {
		if !device {
			return volume.Mounted{}, fmt.Errorf("volumeMode is Block, and path %q is no block device", source)
		}
		return volume.Mounted{Device: source, ReadOnly: readOnly}, nil
	}
	out := volume.Mounted{HostPath: s.Dir, ReadOnly: readOnly, Relabel: true}
	mounter := &mount.SafeFormatAndMount{Interface: mount.New(""), Exec: exec.New()}
	mounted, err := mounter.IsMountPoint(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return volume.Mounted{}, err
	}
	if !mounted {
		if err := os.MkdirAll(s.Dir, 0o750); err != nil {
			return volume.Mounted{}, err
		}
		options := pv.Spec.MountOptions
		if readOnly {
			options = append([]string{"ro"}, options...)
		}
		if device {
			err = mounter.FormatAndMount(source, s.Dir, ptr.Deref(pv.Spec.Local.FSType, "ext4"), options)
		} else {
			err = mounter.Mount(source, s.Dir, "", append([]string{"bind"}, options...))
		}
		if err != nil {
			return volume.Mounted{}, errors.Join(err, os.Remove(s.Dir))
		}
	}
	if group := s.FSGroup(); group != nil && !readOnly {
		var policy *v1.PodFSGroupChangePolicy
		if c := s.Pod.Spec.SecurityContext; c != nil {
			policy = c.FSGroupChangePolicy
		}
		return out, volume.SetGroup(s.Dir, *group, policy, false)
	}
	return out, nil
}
