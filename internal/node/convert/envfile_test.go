package convert

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

func TestParseEnvFile(t *testing.T) {
	for _, c := range []struct {
		text string
		want map[string]string
		err  string
	}{
		{"", map[string]string{}, ""},
		{"\n  # a comment='x'\n\t\nA='1'\n  B = ' two $X \\n # no comment ' \nEMPTY=''", map[string]string{"A": "1", "B": ` two $X \n # no comment `, "EMPTY": ""}, ""},
		{"M='line1\nline2\n'\r\nN='x'\n", map[string]string{"M": "line1\nline2\n", "N": "x"}, ""},
		{"A='1'\nA='2'\n", map[string]string{"A": "2"}, ""},
		{"A=1\n", nil, "line 1: the value of A has to be in single quotes"},
		{"\nA=\"1\"\n", nil, "line 2: the value of A has to be in single quotes"},
		{"A='1\n2'\nB", nil, "line 3: wanted NAME='value', found no '='"},
		{"A='1''2'\n", nil, "line 1: nothing may follow the closing single quote of the value of A"},
		{"A='1'$B\n", nil, "line 1: nothing may follow the closing single quote of the value of A"},
		{"A='1' # why\n", nil, "line 1: nothing may follow the closing single quote of the value of A"},
		{"A='1\n", nil, "line 1: the value of A has no closing single quote"},
		{"='1'\n", nil, `line 1: "" is no variable's name`},
	} {
		got, err := parseEnvFile(c.text)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)) {
			t.Errorf("%q: error %v, want %q", c.text, err, c.err)
		}
		if err == nil && !maps.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestFileValue(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	for path, text := range map[string]string{filepath.Join(dir, "good"): "A='1'\n", filepath.Join(dir, "bad"): "A=1\n", outside: "A='no'\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	volumes := map[string]volume.Mounted{"v": {HostPath: dir}}
	for _, c := range []struct {
		volume, path, key string
		optional          bool
		want              string
		ok                bool
		err               string
	}{
		{"v", "good", "A", false, "1", true, ""},
		{"v", "good", "B", true, "", false, ""},
		{"v", "none", "A", true, "", false, ""},
		{"v", "good", "B", false, "", false, `environment variable key "B" not found in file "good"`},
		{"v", "none", "A", false, "", false, `failed to open environment variable file "none"`},
		{"v", "bad", "A", true, "", false, "has to be in single quotes"},
		{"v", "link", "A", true, "", false, "leads out of its folder"},
		{"v", "pipe", "A", true, "", false, "not a regular file"},
		{"v", ".", "A", true, "", false, "not a regular file"},
		{"other", "good", "A", true, "", false, `cannot find volume "other"`},
	} {
		got, ok, err := fileValue(volumes, &v1.FileKeySelector{VolumeName: c.volume, Path: c.path, Key: c.key, Optional: ptr.To(c.optional)})
		if got != c.want || ok != c.ok {
			t.Errorf("%s/%s %s: %q %v, want %q %v", c.volume, c.path, c.key, got, ok, c.want, c.ok)
		}
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s/%s %s: error %v, want %q", c.volume, c.path, c.key, err, c.err)
		}
	}
}
