package cgroup

import "path/filepath"

// RemoveAll removes the cgroups of a node whose pods have all ended, with the
// root that was made for them.
func RemoveAll(driver, root string) error {
	m, err := New(Driver(driver))
	if err != nil {
		return err
	}
	if err := m.Remove(Pods(root)); err != nil || root == "" {
		return err
	}
	return m.Remove(Name{filepath.Clean(root)})
}
