package nfs

import (
	"path/filepath"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/mount-utils"

	"keelson.dev/keelson/internal/node/volume"
)

func TestMount(t *testing.T) {
	inline := func(server string, readOnly bool) *volume.Spec {
		return &volume.Spec{Volume: &v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{NFS: &v1.NFSVolumeSource{Server: server, Path: "/x", ReadOnly: readOnly}}}}
	}
	persistent := inline("", false)
	persistent.Volume = &v1.Volume{VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ReadOnly: true}}}
	persistent.Persistent = &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: v1.PersistentVolumeSpec{
		MountOptions: []string{"hard"}, PersistentVolumeSource: v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{Server: "fd00::1", Path: "/y"}}}}
	for name, c := range map[string]struct {
		spec     *volume.Spec
		device   string
		options  []string
		readOnly bool
	}{
		"inline":     {inline("s", false), "s:/x", nil, false},
		"read-only":  {inline("s", true), "s:/x", []string{"ro"}, true},
		"persistent": {persistent, "[fd00::1]:/y", []string{"ro", "hard"}, true},
	} {
		m := mount.NewFakeMounter(nil)
		c.spec.Dir = filepath.Join(t.TempDir(), "v")
		got, err := Plugin{Mounter: m}.Mount(t.Context(), c.spec)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.MountPoints) != 1 || m.MountPoints[0].Device != c.device || m.MountPoints[0].Type != "nfs" || !slices.Equal(m.MountPoints[0].Opts, c.options) || got.ReadOnly != c.readOnly {
			t.Errorf("%s: %v, %v", name, m.MountPoints, got)
		}
		if _, err := (Plugin{Mounter: m}).Mount(t.Context(), c.spec); err != nil || len(m.MountPoints) != 1 {
			t.Errorf("%s: mounted again: %v, %v", name, m.MountPoints, err)
		}
	}
}

// TestMountNoOption checks that a pod's author cannot give mount(8) an option in place of a server.
func TestMountNoOption(t *testing.T) {
	m := mount.NewFakeMounter(nil)
	s := &volume.Spec{Dir: filepath.Join(t.TempDir(), "v"), Volume: &v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{NFS: &v1.NFSVolumeSource{Server: "--fstab=/a", Path: "/b"}}}}
	if _, err := (Plugin{Mounter: m}).Mount(t.Context(), s); err == nil || len(m.MountPoints) > 0 {
		t.Errorf("mounted: %v (%v)", m.MountPoints, err)
	}
}
