// Package hostpath gives pods paths of the machine.
package hostpath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

// Plugin makes hostPath volumes.
type Plugin struct{}

// Name is kubernetes.io/host-path.
func (Plugin) Name() string { return "kubernetes.io/host-path" }

// Supports reports whether the volume is a hostPath.
func (Plugin) Supports(s *volume.Spec) bool { return source(s) != nil }

func source(s *volume.Spec) *v1.HostPathVolumeSource {
	if s.Persistent != nil {
		return s.Persistent.Spec.HostPath
	}
	return s.Volume.HostPath
}

// Unmount does nothing: the path is the machine's.
func (Plugin) Unmount(context.Context, string) error { return nil }

// Mount checks that the path is what the volume says it is, and makes it where
// the volume says so.
func (Plugin) Mount(_ context.Context, s *volume.Spec) (volume.Mounted, error) {
	h := source(s)
	if s.Block() {
		return volume.Mounted{}, errors.New("a hostPath volume cannot be of volumeMode Block")
	}
	return volume.Mounted{HostPath: h.Path, ReadOnly: s.ReadOnly()}, check(h.Path, ptr.Deref(h.Type, v1.HostPathUnset))
}

func check(path string, t v1.HostPathType) error {
	if t == v1.HostPathUnset {
		return nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		switch t {
		case v1.HostPathDirectoryOrCreate:
			return os.MkdirAll(path, 0o755)
		case v1.HostPathFileOrCreate:
			f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	for _, k := range []struct {
		types []v1.HostPathType
		is    func(fs.FileMode) bool
		name  string
	}{
		{[]v1.HostPathType{v1.HostPathDirectory, v1.HostPathDirectoryOrCreate}, fs.FileMode.IsDir, "directory"},
		{[]v1.HostPathType{v1.HostPathFile, v1.HostPathFileOrCreate}, fs.FileMode.IsRegular, "file"},
		{[]v1.HostPathType{v1.HostPathSocket}, func(m fs.FileMode) bool { return m&fs.ModeSocket != 0 }, "socket file"},
		{[]v1.HostPathType{v1.HostPathCharDev}, func(m fs.FileMode) bool { return m&fs.ModeCharDevice != 0 }, "character device"},
		{[]v1.HostPathType{v1.HostPathBlockDev}, func(m fs.FileMode) bool { return m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0 }, "block device"},
	} {
		if !slices.Contains(k.types, t) {
			continue
		}
		if err != nil || !k.is(info.Mode()) {
			return fmt.Errorf("hostPath type check failed: %s is not a %s", path, k.name)
		}
		return nil
	}
	return fmt.Errorf("%s is an invalid volume type", t)
}
