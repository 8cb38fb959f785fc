package envtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Programs are the names under which envtest looks for what it runs.
var Programs = []string{"kube-apiserver", "etcd", "kubectl"}

// Link makes links in the folder dir, which it makes too, from each of Programs to
// the program at path. It replaces links, and no other file.
func Link(dir, path string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range Programs {
		link := filepath.Join(dir, name)
		info, err := os.Lstat(link)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case info.Mode().Type() != fs.ModeSymlink:
			return fmt.Errorf("%s is there, and no link: choose another folder, or remove it", link)
		default:
			if err := os.Remove(link); err != nil {
				return err
			}
		}
		if err := os.Symlink(path, link); err != nil {
			return err
		}
	}
	return nil
}
