// Package image gives the volumes that are images a folder. What is in it is mounted
// by the runtime, or before the start of a container, when the image has been pulled
// as for a container (internal/node/pod).
package image

import (
	"context"
	"os"

	"keelson.dev/keelson/internal/node/volume"
)

// Plugin makes the folders of image volumes.
type Plugin struct{ volume.Unmounter }

// Name is kubernetes.io/image.
func (Plugin) Name() string { return "kubernetes.io/image" }

// Supports reports whether the volume is an image.
func (Plugin) Supports(s *volume.Spec) bool { return s.Volume.Image != nil }

// Mount makes the folder.
func (Plugin) Mount(_ context.Context, s *volume.Spec) (volume.Mounted, error) {
	return volume.Mounted{HostPath: s.Dir, ReadOnly: true}, os.MkdirAll(s.Dir, 0o755)
}
