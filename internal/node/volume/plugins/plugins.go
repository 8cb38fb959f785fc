// Package plugins lists the kinds of volumes that a node can make.
package plugins

import (
	"context"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/node/source"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/node/volume/emptydir"
	"keelson.dev/keelson/internal/node/volume/hostpath"
	"keelson.dev/keelson/internal/node/volume/image"
	"keelson.dev/keelson/internal/node/volume/local"
	"keelson.dev/keelson/internal/node/volume/nfs"
	"keelson.dev/keelson/internal/node/volume/projected"
)

// All returns the plug-ins, for a node that has allocatable for pods.
func All(s projected.Source, allocatable func() v1.ResourceList) []volume.Plugin {
	return append(projected.Plugins(s, allocatable),
		&emptydir.Plugin{Allocatable: allocatable},
		hostpath.Plugin{}, image.Plugin{}, local.Plugin{}, nfs.Plugin{},
	)
}

// OnChange returns what brings the volumes of the manager up to date after a change.
func OnChange(ctx context.Context, m *volume.Manager) func(source.Change) {
	return func(c source.Change) {
		m.Refresh(ctx, c.Namespace, c.Pod, c.Object, func(v *v1.Volume) bool {
			switch {
			case c.Pod != "":
				return projected.Made(v)
			case c.TrustBundles:
				return projected.Trusts(v)
			}
			return projected.Uses(v, c.ConfigMap, c.Secret)
		})
	}
}
