package machine

import (
	"slices"
	"testing"
)

func TestMountsBelow(t *testing.T) {
	const mountinfo = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /run/keelson-default/state/sandboxes/a/shm rw - tmpfs shm rw
31 22 0:26 / /run/keelson-defaulted/x rw - tmpfs shm rw
32 22 0:27 / /data/my\040cluster/node/pods/1/volumes/v rw - tmpfs tmpfs rw
33 32 0:28 / /data/my\040cluster/node/pods/1/volumes/v/sub rw - tmpfs tmpfs rw
34
`
	got := mountsBelow(mountinfo, []string{"/data/my cluster/node", "/run/keelson-default"})
	want := []string{"/run/keelson-default/state/sandboxes/a/shm", "/data/my cluster/node/pods/1/volumes/v", "/data/my cluster/node/pods/1/volumes/v/sub"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRunName(t *testing.T) {
	if got := runName("/var/lib/keelson"); got != "default" {
		t.Errorf("the default folder: %s", got)
	}
	if a, b := runName("/a/folder/with/a/long/name"), runName("/a/folder/with/a/long/name2"); len(a) != 8 || len(b) != 8 || a == b {
		t.Errorf("other folders: %q, %q, want two names of 8 bytes", a, b)
	}
}
