// Package projected makes volumes of API objects: config maps, secrets, the
// pod's own fields, service account tokens, and several of these in one. A
// reader sees all of the old or all of the new files; what may be secret is in
// memory, never on disk.
package projected

import (
	"context"
	"os"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

// Source gives the objects.
type Source interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	// Token returns the pod's token for a use, which the volume names.
	Token(ctx context.Context, p *v1.Pod, use string, t *v1.ServiceAccountTokenProjection) (string, error)
	// TrustBundle is certificates in PEM.
	TrustBundle(ctx context.Context, p *v1.ClusterTrustBundleProjection) ([]byte, error)
	// PodCertificate returns a private key of the pod and its certificate chain, in PEM, for
	// a use, which the volume names.
	PodCertificate(ctx context.Context, p *v1.Pod, use string, c *v1.PodCertificateProjection) (key, chain []byte, err error)
}

// kind is a kind of volume that is made of API objects.
type kind struct {
	name     string
	onDisk   bool
	supports func(*v1.Volume) bool
	// sources are the volume's, each kind being a special case of projected.
	sources func(*v1.Volume) ([]v1.VolumeProjection, *int32)
}

var kinds = []kind{
	{"kubernetes.io/configmap", true, func(v *v1.Volume) bool { return v.ConfigMap != nil }, func(v *v1.Volume) ([]v1.VolumeProjection, *int32) {
		c := v.ConfigMap
		return []v1.VolumeProjection{{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: c.LocalObjectReference, Items: c.Items, Optional: c.Optional}}}, c.DefaultMode
	}},
	{"kubernetes.io/secret", false, func(v *v1.Volume) bool { return v.Secret != nil }, func(v *v1.Volume) ([]v1.VolumeProjection, *int32) {
		s := v.Secret
		return []v1.VolumeProjection{{Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: s.SecretName}, Items: s.Items, Optional: s.Optional}}}, s.DefaultMode
	}},
	{"kubernetes.io/downward-api", false, func(v *v1.Volume) bool { return v.DownwardAPI != nil }, func(v *v1.Volume) ([]v1.VolumeProjection, *int32) {
		return []v1.VolumeProjection{{DownwardAPI: &v1.DownwardAPIProjection{Items: v.DownwardAPI.Items}}}, v.DownwardAPI.DefaultMode
	}},
	{"kubernetes.io/projected", false, func(v *v1.Volume) bool { return v.Projected != nil }, func(v *v1.Volume) ([]v1.VolumeProjection, *int32) {
		return v.Projected.Sources, v.Projected.DefaultMode
	}},
}

// Plugins returns the kinds; allocatable is what the downward API gives for limits
// that are not set.
func Plugins(s Source, allocatable func() v1.ResourceList) []volume.Plugin {
	out := make([]volume.Plugin, len(kinds))
	for i := range kinds {
		out[i] = &plugin{kind: kinds[i], source: s, allocatable: allocatable}
	}
	return out
}

// Uses reports whether the volume has anything of the config map or secret of
// that name.
func Uses(v *v1.Volume, configMap, secret string) bool {
	for _, k := range kinds {
		if !k.supports(v) {
			continue
		}
		sources, _ := k.sources(v)
		for i := range sources {
			if c := sources[i].ConfigMap; c != nil && configMap != "" && c.Name == configMap {
				return true
			}
			if c := sources[i].Secret; c != nil && secret != "" && c.Name == secret {
				return true
			}
		}
	}
	return false
}

// Trusts reports whether the volume has certificates of the cluster's trust bundles.
func Trusts(v *v1.Volume) bool {
	return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s v1.VolumeProjection) bool { return s.ClusterTrustBundle != nil })
}

// Made reports whether the volume is of one of the kinds here.
func Made(v *v1.Volume) bool {
	for _, k := range kinds {
		if k.supports(v) {
			return true
		}
	}
	return false
}

type plugin struct {
	volume.Unmounter
	kind
	source      Source
	allocatable func() v1.ResourceList
}

func (p *plugin) Name() string                 { return p.name }
func (p *plugin) Supports(s *volume.Spec) bool { return p.supports(s.Volume) }

func (p *plugin) Mount(ctx context.Context, s *volume.Spec) (volume.Mounted, error) {
	out := volume.Mounted{HostPath: s.Dir, ReadOnly: true, Relabel: true}
	sources, mode := p.sources(s.Volume)
	content, err := p.files(ctx, s, sources, os.FileMode(ptr.Deref(mode, 0o644)))
	if err != nil {
		return out, err
	}
	if p.onDisk {
		err = os.MkdirAll(s.Dir, 0o755)
	} else {
		err = volume.Tmpfs(s.Dir, 0, true)
	}
	if err != nil {
		return out, err
	}
	if err := os.Chmod(s.Dir, 0o777); err != nil {
		return out, err
	}
	if err := own(s.Dir, s.FSGroup()); err != nil {
		return out, err
	}
	return out, write(s.Dir, content, s.FSGroup())
}
