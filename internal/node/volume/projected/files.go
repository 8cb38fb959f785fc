package projected

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/downward"
	"keelson.dev/keelson/internal/node/volume"
)

// files returns the content that sources make.
func (p *plugin) files(ctx context.Context, s *volume.Spec, sources []v1.VolumeProjection, mode os.FileMode) (map[string]file, error) {
	out := map[string]file{}
	keys := func(kind, name string, items []v1.KeyToPath, data map[string][]byte, optional bool) error {
		if len(items) == 0 {
			for k, b := range data {
				out[k] = file{data: b, mode: mode}
			}
			return nil
		}
		for _, it := range items {
			b, ok := data[it.Key]
			if !ok {
				if optional {
					continue
				}
				return fmt.Errorf("references non-existent %s key: %s", kind, it.Key)
			}
			md := mode
			if it.Mode != nil {
				md = os.FileMode(*it.Mode)
			}
			path, err := inside(it.Path)
			if err != nil {
				return err
			}
			out[path] = file{data: b, mode: md}
		}
		return nil
	}
	for i := range sources {
		src := &sources[i]
		switch {
		case src.ConfigMap != nil:
			optional := ptr.Deref(src.ConfigMap.Optional, false)
			c, err := p.source.ConfigMap(ctx, s.Pod.Namespace, src.ConfigMap.Name)
			if apierrors.IsNotFound(err) && optional {
				continue
			}
			if err != nil {
				return nil, err
			}
			data := make(map[string][]byte, len(c.Data)+len(c.BinaryData))
			for k, v := range c.Data {
				data[k] = []byte(v)
			}
			for k, v := range c.BinaryData {
				data[k] = v
			}
			if err := keys("config", c.Name, src.ConfigMap.Items, data, optional); err != nil {
				return nil, err
			}
		case src.Secret != nil:
			optional := ptr.Deref(src.Secret.Optional, false)
			c, err := p.source.Secret(ctx, s.Pod.Namespace, src.Secret.Name)
			if apierrors.IsNotFound(err) && optional {
				continue
			}
			if err != nil {
				return nil, err
			}
			if err := keys("secret", c.Name, src.Secret.Items, c.Data, optional); err != nil {
				return nil, err
			}
		case src.DownwardAPI != nil:
			for _, it := range src.DownwardAPI.Items {
				md := mode
				if it.Mode != nil {
					md = os.FileMode(*it.Mode)
				}
				path, err := inside(it.Path)
				if err != nil {
					return nil, err
				}
				var value string
				switch {
				case it.FieldRef != nil:
					value, err = downward.Field(s.Pod, it.FieldRef.FieldPath)
				case it.ResourceFieldRef != nil:
					c := containerOf(s.Pod, it.ResourceFieldRef.ContainerName)
					if c == nil {
						return nil, fmt.Errorf("container %q not found", it.ResourceFieldRef.ContainerName)
					}
					value, err = downward.Resource(s.Pod, c, it.ResourceFieldRef, p.allocatable())
				}
				if err != nil {
					return nil, err
				}
				out[path] = file{data: []byte(value), mode: md}
			}
		case src.ServiceAccountToken != nil:
			path, err := inside(src.ServiceAccountToken.Path)
			if err != nil {
				return nil, err
			}
			t, err := p.source.Token(ctx, s.Pod, s.Volume.Name+"/"+src.ServiceAccountToken.Path, src.ServiceAccountToken)
			if err != nil {
				return nil, fmt.Errorf("failed to fetch token: %w", err)
			}
			out[path] = private(s, []byte(t), mode)
		case src.ClusterTrustBundle != nil:
			path, err := inside(src.ClusterTrustBundle.Path)
			if err != nil {
				return nil, err
			}
			b, err := p.source.TrustBundle(ctx, src.ClusterTrustBundle)
			if err != nil {
				return nil, err
			}
			out[path] = file{data: b, mode: mode}
		case src.PodCertificate != nil:
			c := src.PodCertificate
			key, chain, err := p.source.PodCertificate(ctx, s.Pod, fmt.Sprintf("%s/%d", s.Volume.Name, i), c)
			if err != nil {
				return nil, fmt.Errorf("failed to get a certificate of the pod: %w", err)
			}
			for at, data := range map[string][]byte{c.CredentialBundlePath: slices.Concat(key, chain), c.KeyPath: key, c.CertificateChainPath: chain} {
				if at == "" {
					continue
				}
				path, err := inside(at)
				if err != nil {
					return nil, err
				}
				out[path] = private(s, data, mode)
			}
		default:
			return nil, errors.New("a source of this projected volume is not supported by this node")
		}
	}
	return out, nil
}

// private returns a file that only the pod's user and group can read, if the pod
// names either.
func private(s *volume.Spec, data []byte, mode os.FileMode) file {
	f := file{data: data, mode: mode, user: s.User()}
	if f.user != nil || s.FSGroup() != nil {
		f.mode = 0o600 // its user, and its group, which is given the right to read it below
	}
	return f
}

func inside(path string) (string, error) {
	c := filepath.Clean(path)
	if filepath.IsAbs(c) || c == ".." || strings.HasPrefix(c, "../") || strings.HasPrefix(c, "..") {
		return "", fmt.Errorf("invalid path: must be relative and not begin with '..': %s", path)
	}
	return c, nil
}

func containerOf(p *v1.Pod, name string) *v1.Container {
	for _, cs := range [][]v1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range cs {
			if cs[i].Name == name {
				return &cs[i]
			}
		}
	}
	return nil
}
