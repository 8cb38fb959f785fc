package projected

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWrite checks that files change all at once, what is gone is removed, and
// nothing is written where nothing changed.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	put := func(files map[string]string) string {
		t.Helper()
		m := map[string]file{}
		for k, v := range files {
			m[k] = file{data: []byte(v), mode: 0o640}
		}
		if err := write(dir, m, nil); err != nil {
			t.Fatal(err)
		}
		link, err := os.Readlink(filepath.Join(dir, dataLink))
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	first := put(map[string]string{"a": "1", "d/b": "2"})
	if read("a") != "1" || read("d/b") != "2" {
		t.Errorf("a: %s, d/b: %s", read("a"), read("d/b"))
	}
	if info, err := os.Stat(filepath.Join(dir, "a")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode: %v, %v", info, err)
	}
	if again := put(map[string]string{"a": "1", "d/b": "2"}); again != first {
		t.Error("the same files were written again")
	}
	second := put(map[string]string{"a": "3", "c": "4"})
	if second == first || read("a") != "3" || read("c") != "4" {
		t.Errorf("a: %s, c: %s", read("a"), read("c"))
	}
	for _, gone := range []string{"d", first} {
		if _, err := os.Lstat(filepath.Join(dir, gone)); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", gone, err)
		}
	}
}
