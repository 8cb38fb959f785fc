package emptydir

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

func TestMount(t *testing.T) {
	group := int64(os.Getgid())
	for _, c := range []struct {
		group *int64
		want  fs.FileMode
	}{{nil, fs.ModeDir | 0o777}, {&group, fs.ModeDir | fs.ModeSetgid | 0o777}} {
		s := &volume.Spec{Dir: filepath.Join(t.TempDir(), "v"), Volume: &v1.Volume{VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
			Pod: &v1.Pod{Spec: v1.PodSpec{SecurityContext: &v1.PodSecurityContext{FSGroup: c.group}}}}
		p := &Plugin{}
		m, err := p.Mount(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(m.HostPath)
		if err != nil || info.Mode() != c.want {
			t.Errorf("group %v: %v, %v", c.group, info.Mode(), err)
		}
		// What a container did to it stays.
		if err := os.Chmod(s.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Mount(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(s.Dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("after a second time: %v, %v", info.Mode(), err)
		}
	}
}

func TestSize(t *testing.T) {
	limited := v1.Container{Resources: v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi")}}}
	for _, c := range []struct {
		name       string
		limit      string
		containers []v1.Container
		want       int64
	}{
		{"the node's", "", []v1.Container{{}}, 1 << 30},
		{"its own", "16Mi", []v1.Container{limited}, 16 << 20},
		{"the pod's", "1Gi", []v1.Container{limited, limited}, 128 << 20},
		{"one container has none", "256Mi", []v1.Container{limited, {}}, 256 << 20},
	} {
		e := &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}
		if c.limit != "" {
			e.SizeLimit = ptr.To(resource.MustParse(c.limit))
		}
		p := &Plugin{Allocatable: func() v1.ResourceList { return v1.ResourceList{v1.ResourceMemory: resource.MustParse("1Gi")} }}
		if got := p.size(&volume.Spec{Pod: &v1.Pod{Spec: v1.PodSpec{Containers: c.containers}}, Volume: &v1.Volume{VolumeSource: v1.VolumeSource{EmptyDir: e}}}); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
