package projected

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// file is one file of a volume that is made of API objects.
type file struct {
	data []byte
	mode os.FileMode
	user *int64 // its owner, root where nil
}

const dataLink = "..data"

// write puts files into dir so that a reader sees all of the old or all of the
// new: a new folder beside, and one rename of the link ..data to it. The files
// themselves are links through it. Nothing is written if nothing has changed.
func write(dir string, files map[string]file, gid *int64) error {
	if same(dir, files) {
		return nil
	}
	fresh, err := os.MkdirTemp(dir, ".."+time.Now().UTC().Format("2006_01_02_15_04_05.")+"*")
	if err != nil {
		return err
	}
	old, _ := os.Readlink(filepath.Join(dir, dataLink))
	if err := fill(fresh, files, gid); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	tmp := filepath.Join(dir, "..data_tmp")
	os.Remove(tmp)
	if err := os.Symlink(filepath.Base(fresh), tmp); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	top := map[string]bool{}
	for path := range files {
		first, _, _ := strings.Cut(path, "/")
		top[first] = true
	}
	for name := range top {
		link := filepath.Join(dir, name)
		if _, err := os.Lstat(link); errors.Is(err, os.ErrNotExist) {
			if err := os.Symlink(filepath.Join(dataLink, name), link); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") && !top[e.Name()] {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	if old != "" && old != filepath.Base(fresh) {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

// fill writes the files. With a group, it owns files and folders and may read
// them, and what is made in them is its own, too.
func fill(dir string, files map[string]file, gid *int64) error {
	for path, f := range files {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, f.data, f.mode); err != nil {
			return err
		}
		user := -1
		if f.user != nil {
			user = int(*f.user)
		}
		if err := os.Lchown(full, user, -1); err != nil {
			return err
		}
		if err := os.Chmod(full, f.mode); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if err := os.Chmod(path, 0o755); err != nil { // whatever the umask is
				return err
			}
		}
		return own(path, gid)
	})
}

// own gives a file or folder to the group, to read.
func own(path string, gid *int64) error {
	if gid == nil {
		return nil
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if err := os.Lchown(path, -1, int(*gid)); err != nil {
		return err
	}
	mode := info.Mode() | 0o440
	if info.IsDir() {
		mode |= 0o110 | fs.ModeSetgid
	}
	return os.Chmod(path, mode)
}

func same(dir string, files map[string]file) bool {
	root := filepath.Join(dir, dataLink)
	if _, err := os.Stat(root); err != nil {
		return false
	}
	count := 0
	err := filepath.Walk(root+"/", func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if info.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f, ok := files[rel]
		if !ok {
			return errors.New("gone")
		}
		b, err := os.ReadFile(p)
		if err != nil || !bytes.Equal(b, f.data) {
			return errors.New("changed")
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || f.user != nil && int64(st.Uid) != *f.user || info.Mode().Perm()&^0o440 != f.mode.Perm()&^0o440 {
			return errors.New("has another owner or mode")
		}
		count++
		return nil
	})
	return err == nil && count == len(files)
}
