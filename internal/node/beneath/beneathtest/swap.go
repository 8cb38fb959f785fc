// Package beneathtest changes folders under the eyes of those who walk them, as the containers of
// pods may.
package beneathtest

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Swap has files of a folder take each other's place, again and again, until the function that it
// returns is called. pairs has the name of one by that of the other.
func Swap(t *testing.T, dir string, pairs map[string]string) (end func()) {
	t.Helper()
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			for a, b := range pairs {
				select {
				case <-stop:
					ended <- nil
					return
				default:
				}
				if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, a), unix.AT_FDCWD, filepath.Join(dir, b), unix.RENAME_EXCHANGE); err != nil {
					ended <- err
					return
				}
			}
		}
	}()
	return func() {
		t.Helper()
		close(stop)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
