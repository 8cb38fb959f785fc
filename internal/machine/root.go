package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// kubeletRoot is where a kubelet has its state, and where plug-ins of all kinds look for
// it: most have the path in their manifests.
const kubeletRoot = "/var/lib/kubelet"

// rootFile names, in the node's folder, the file with the path of its root.
const rootFile = "root-dir"

// rootParts are what a node has in its root.
var rootParts = []string{"pods", "plugins", "plugins_registry", "device-plugins", "pod-resources", "cpu_manager_state", "memory_manager_state", "dra.json", "image_pulls.json", "graceful_shutdown_state"}

// Root returns the folder of the node's pods and of what plug-ins share with it.
func (m *Machine) Root() string { return m.root }

// chooseRoot returns the root: the one that is asked for, the one that the node has had,
// a kubelet's for the default data folder if there is no kubelet, else the node's folder.
func chooseRoot(dir, asked, kubelet string) string {
	if asked != "" {
		return asked
	}
	if b, err := os.ReadFile(filepath.Join(dir, rootFile)); err == nil {
		// A loss of power may leave another content.
		if root, whole := strings.CutSuffix(string(b), "\n"); whole && filepath.IsAbs(root) && filepath.Clean(root) == root && !strings.ContainsAny(root, "\x00\n") {
			return root
		}
		if !has(dir, "pods") {
			return kubelet
		}
	}
	if has(dir, "pods") || !unused(kubelet) {
		return dir
	}
	return kubelet
}

// has reports whether a folder has something in the folder of that name.
func has(dir, name string) bool {
	entries, err := os.ReadDir(filepath.Join(dir, name))
	return err == nil && len(entries) > 0
}

// unused reports whether the folder is no kubelet's: it is not there, or has nothing but
// the seccomp profiles that are put there for pods.
func unused(kubelet string) bool {
	entries, err := os.ReadDir(kubelet)
	return errors.Is(err, fs.ErrNotExist) || err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "seccomp" })
}

// claimRoot makes the root and notes that it is this node's.
func (m *Machine) claimRoot() error {
	if err := errors.Join(os.MkdirAll(m.root, 0o755), os.MkdirAll(m.dir, 0o755)); err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(m.dir, rootFile), []byte(m.root+"\n"), 0o644)
}

// Erase removes what the node has in its root, for good. Clean comes before it.
func (m *Machine) Erase() error {
	if b, err := os.ReadFile(filepath.Join(m.dir, rootFile)); err != nil || strings.TrimSpace(string(b)) != m.root || m.root == m.dir {
		return nil //nolint:nilerr // it was never started, or has all in its folder
	}
	var errs []error
	for _, name := range rootParts {
		errs = append(errs, os.RemoveAll(filepath.Join(m.root, name)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("erasing %s: %w", m.root, err)
	}
	_ = os.Remove(m.root) // what is not ours stays, and with it the folder
	return nil
}
