package hostpath

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "file"), filepath.Join(dir, "socket")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	absent := filepath.Join(dir, "absent")
	failed := "hostPath type check failed: "
	for _, c := range []struct {
		path string
		t    v1.HostPathType
		want string // "made" if the path is to be there afterwards
	}{
		{absent, v1.HostPathUnset, ""},
		{absent, v1.HostPathFile, failed + absent + " is not a file"},
		{absent, v1.HostPathDirectory, failed + absent + " is not a directory"},
		{absent, v1.HostPathSocket, failed + absent + " is not a socket file"},
		{absent, v1.HostPathCharDev, failed + absent + " is not a character device"},
		{absent, v1.HostPathBlockDev, failed + absent + " is not a block device"},
		{filepath.Join(dir, "a", "b"), v1.HostPathDirectoryOrCreate, "made"},
		{filepath.Join(dir, "new"), v1.HostPathFileOrCreate, "made"},
		{filepath.Join(dir, "a", "b"), v1.HostPathFileOrCreate, failed + filepath.Join(dir, "a", "b") + " is not a file"},
		{file, v1.HostPathDirectoryOrCreate, failed + file + " is not a directory"},
		{file, v1.HostPathFile, ""},
		{dir, v1.HostPathDirectory, ""},
		{socket, v1.HostPathSocket, ""},
		{socket, v1.HostPathFile, failed + socket + " is not a file"},
		{"/dev/null", v1.HostPathCharDev, ""},
		{"/dev/null", v1.HostPathBlockDev, failed + "/dev/null is not a block device"},
		{dir, "Odd", "Odd is an invalid volume type"},
	} {
		err := check(c.path, c.t)
		_, stat := os.Stat(c.path)
		got := ""
		if err != nil {
			got = err.Error()
		} else if c.want == "made" && stat == nil {
			got = "made"
		}
		if got != c.want {
			t.Errorf("%s as %q: %q, want %q", c.path, c.t, got, c.want)
		}
	}
	if _, err := os.Stat(absent); err == nil {
		t.Error("a check made the path")
	}
}
