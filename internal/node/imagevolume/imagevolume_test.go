package imagevolume

import "testing"

func TestSnapshotterOf(t *testing.T) {
	for config, want := range map[string]string{
		"": "overlayfs", "{}": "overlayfs", `{"containerd":{"snapshotter":"native"}}`: "native", "not JSON": "overlayfs",
	} {
		if got := snapshotterOf(config); got != want {
			t.Errorf("%q: %s, want %s", config, got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	if got := options([]string{"ro", "index=off", "lowerdir=/a:/b"}); got != "index=off,lowerdir=/a:/b" {
		t.Errorf("options %q", got)
	}
}

func TestIsRoot(t *testing.T) {
	for dir, want := range map[string]bool{"/proc": true, t.TempDir(): false, "/no/such/folder": false} {
		if got, err := isRoot(dir); err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", dir, got, err, want)
		}
	}
}
