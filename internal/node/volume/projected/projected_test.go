package projected

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

type objects struct{}

func (objects) ConfigMap(_ context.Context, _, name string) (*v1.ConfigMap, error) {
	if name == "absent" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &v1.ConfigMap{Data: map[string]string{"a": "A", "b": "B"}}, nil
}

func (objects) Secret(context.Context, string, string) (*v1.Secret, error) {
	return &v1.Secret{Data: map[string][]byte{"key": []byte("secret")}}, nil
}

func (objects) Token(_ context.Context, _ *v1.Pod, use string, _ *v1.ServiceAccountTokenProjection) (string, error) {
	return "token of " + use, nil
}

func (objects) TrustBundle(context.Context, *v1.ClusterTrustBundleProjection) ([]byte, error) {
	return []byte("trust"), nil
}

func (objects) PodCertificate(_ context.Context, _ *v1.Pod, use string, _ *v1.PodCertificateProjection) (key, chain []byte, err error) {
	return []byte("key of " + use), []byte(", chain"), nil
}

// TestCertificates checks that the key and its chain are in one file, or in
// two.
func TestCertificates(t *testing.T) {
	s := &volume.Spec{Volume: &v1.Volume{Name: "v"}, Dir: t.TempDir(), Pod: &v1.Pod{Spec: v1.PodSpec{SecurityContext: &v1.PodSecurityContext{FSGroup: ptr.To[int64](1)}, Containers: []v1.Container{{}}}}}
	got, err := (&plugin{source: objects{}}).files(t.Context(), s, []v1.VolumeProjection{
		{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{Path: "ca.pem"}},
		{PodCertificate: &v1.PodCertificateProjection{CredentialBundlePath: "bundle.pem"}},
		{PodCertificate: &v1.PodCertificateProjection{KeyPath: "key.pem", CertificateChainPath: "chain.pem"}},
	}, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]file{
		"ca.pem":     {data: []byte("trust"), mode: 0o644},
		"bundle.pem": {data: []byte("key of v/1, chain"), mode: 0o600},
		"key.pem":    {data: []byte("key of v/2"), mode: 0o600},
		"chain.pem":  {data: []byte(", chain"), mode: 0o600},
	} {
		if f := got[path]; string(f.data) != string(want.data) || f.mode != want.mode {
			t.Errorf("%s: %q %v, want %q %v", path, f.data, f.mode, want.data, want.mode)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d files", len(got))
	}
}

// TestModes checks that a token is for the pod's user alone, or its group, and
// readable by all only where the pod names neither.
func TestModes(t *testing.T) {
	user, group := int64(os.Getuid()), int64(os.Getgid())
	for _, c := range []struct {
		name                 string
		user, group          *int64
		token, secret, other fs.FileMode
	}{
		{"neither", nil, nil, 0o644, 0o400, 0o644},
		{"user", &user, nil, 0o600, 0o400, 0o644},
		{"group", nil, &group, 0o640, 0o440, 0o644},
		{"both", &user, &group, 0o640, 0o440, 0o644},
	} {
		s := &volume.Spec{Volume: &v1.Volume{Name: "v"}, Dir: t.TempDir(), Pod: &v1.Pod{Spec: v1.PodSpec{
			SecurityContext: &v1.PodSecurityContext{RunAsUser: c.user, FSGroup: c.group}, Containers: []v1.Container{{}}}}}
		p := &plugin{source: objects{}}
		content, err := p.files(t.Context(), s, []v1.VolumeProjection{
			{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
			{Secret: &v1.SecretProjection{Items: []v1.KeyToPath{{Key: "key", Path: "in/key", Mode: ptr.To[int32](0o400)}}}},
			{ConfigMap: &v1.ConfigMapProjection{}},
			{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "absent"}, Optional: ptr.To(true)}},
		}, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time nothing has changed
			if err := write(s.Dir, content, c.group); err != nil {
				t.Fatal(err)
			}
		}
		for path, want := range map[string]fs.FileMode{"token": c.token, "in/key": c.secret, "a": c.other, "b": c.other} {
			info, err := os.Stat(filepath.Join(s.Dir, path))
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %s: %v, %v, want %v", c.name, path, info.Mode(), err, want)
			}
		}
		if b, err := os.ReadFile(filepath.Join(s.Dir, "token")); err != nil || string(b) != "token of v/token" {
			t.Errorf("%s: %q, %v", c.name, b, err)
		}
		if info, err := os.Stat(filepath.Join(s.Dir, "in")); err != nil || c.group != nil && info.Mode()&fs.ModeSetgid == 0 {
			t.Errorf("%s: folder: %v, %v", c.name, info.Mode(), err)
		}
	}
}

func TestUses(t *testing.T) {
	v := &v1.Volume{VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
		{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "c"}}},
		{Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: "s"}}}}}}}
	secret := &v1.Volume{VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "s"}}}
	for _, c := range []struct {
		v                 *v1.Volume
		configMap, secret string
		want              bool
	}{{v, "c", "", true}, {v, "", "s", true}, {v, "s", "", false}, {v, "", "c", false}, {secret, "", "s", true}, {secret, "", "", false}, {&v1.Volume{}, "c", "s", false}} {
		if got := Uses(c.v, c.configMap, c.secret); got != c.want {
			t.Errorf("%q, %q: %v", c.configMap, c.secret, got)
		}
	}
}
