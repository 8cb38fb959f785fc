// Package plugins lists the kinds of volumes that a node can make.
package plugins

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/source"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/node/volume/emptydir"
	"keelson.dev/keelson/internal/node/volume/hostpath"
	"keelson.dev/keelson/internal/node/volume/image"
	"keelson.dev/keelson/internal/node/volume/local"
	"keelson.dev/keelson/internal/node/volume/netdisk"
	"keelson.dev/keelson/internal/node/volume/nfs"
	"keelson.dev/keelson/internal/node/volume/projected"
)

// All returns the plug-ins, for a node with a folder that has allocatable for pods.
func All(s projected.Source, allocatable func() v1.ResourceList, root string, client kubernetes.Interface, c clock.Clock) []volume.Plugin {
	return slices.Concat(projected.Plugins(s, allocatable), []volume.Plugin{
		&emptydir.Plugin{Allocatable: allocatable},
		hostpath.Plugin{}, image.Plugin{}, local.Plugin{}, nfs.Plugin{},
	}, netdisk.New(root, client, c))
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
