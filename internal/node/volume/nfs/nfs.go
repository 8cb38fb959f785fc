// Package nfs gives pods exports of NFS servers
// (https://kubernetes.io/docs/concepts/storage/volumes/#nfs), by the machine's
// mount.nfs.
package nfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/mount-utils"

	"keelson.dev/keelson/internal/node/volume"
)

// Plugin makes NFS volumes.
type Plugin struct {
	volume.Unmounter
	// Mounter mounts; that of the machine where nil.
	Mounter mount.Interface
}

// Name is kubernetes.io/nfs.
func (Plugin) Name() string { return "kubernetes.io/nfs" }

// Supports reports whether the volume is an export.
func (Plugin) Supports(s *volume.Spec) bool { return source(s) != nil }

func source(s *volume.Spec) *v1.NFSVolumeSource {
	if s.Persistent != nil {
		return s.Persistent.Spec.NFS
	}
	return s.Volume.NFS
}

// Mount mounts the export.
func (p Plugin) Mount(_ context.Context, s *volume.Spec) (volume.Mounted, error) {
	n := source(s)
	if s.Block() {
		return volume.Mounted{}, errors.New("an NFS volume cannot be of volumeMode Block")
	}
	if strings.HasPrefix(n.Server, "-") {
		// mount(8) would take it for one of its options, such as another fstab.
		return volume.Mounted{}, fmt.Errorf("%q is not the name of an NFS server", n.Server)
	}
	mounter := p.Mounter
	if mounter == nil {
		mounter = mount.New("")
	}
	out := volume.Mounted{HostPath: s.Dir, ReadOnly: n.ReadOnly || s.ReadOnly()}
	mounted, err := mounter.IsMountPoint(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || mounted {
		return out, err
	}
	if err := os.MkdirAll(s.Dir, 0o750); err != nil {
		return out, err
	}
	var options []string
	if out.ReadOnly {
		options = append(options, "ro")
	}
	if s.Persistent != nil {
		options = append(options, s.Persistent.Spec.MountOptions...)
	}
	server := n.Server
	if strings.Contains(server, ":") && !strings.HasPrefix(server, "[") {
		server = "[" + server + "]" // IPv6
	}
	if err := mounter.Mount(server+":"+n.Path, s.Dir, "nfs", options); err != nil {
		return out, errors.Join(err, os.Remove(s.Dir))
	}
	return out, nil
}
