package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// IsMount reports whether something is mounted at dir: it is on another device
// than the folder that it is in.
func IsMount(dir string) (bool, error) {
	device := func(path string) (uint64, error) {
		info, err := os.Lstat(path)
		if err != nil {
			return 0, err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return 0, fmt.Errorf("%s: no device", path)
		}
		return st.Dev, nil
	}
	own, err := device(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	parent, err := device(filepath.Dir(dir))
	return own != parent, err
}

// Tmpfs mounts memory of at most size bytes (0 is half of the machine's) at dir,
// which it makes. If something is mounted there it does nothing. Memory that
// secrets are in is not swapped out where the kernel can promise that.
func Tmpfs(dir string, size int64, secret bool) error {
	if mounted, err := IsMount(dir); err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	options := ""
	if size > 0 {
		options = fmt.Sprintf("size=%d", size)
	}
	if secret {
		with := "noswap" // since Linux 6.3
		if options != "" {
			with += "," + options
		}
		if unix.Mount("tmpfs", dir, "tmpfs", 0, with) == nil {
			return nil
		}
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("mounting tmpfs at %s: %w", dir, err)
	}
	return nil
}

// Detach takes down all that is mounted at dir.
func Detach(dir string) error {
	for {
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
				return nil // nothing, or nothing more, is mounted there
			}
			return fmt.Errorf("unmounting %s: %w", dir, err)
		}
	}
}

// DetachBelow takes down all that is mounted below dir, the last first.
func DetachBelow(dir string) error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for _, point := range below(string(info), dir) {
		errs = append(errs, Detach(point))
	}
	return errors.Join(errs...)
}

// below returns the mount points below dir in the text of a mountinfo (proc(5)), the
// last one first.
func below(info, dir string) (out []string) {
	for line := range strings.Lines(info) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		point := unescaped.Replace(f[4])
		if strings.HasPrefix(point, dir+"/") {
			out = append(out, point)
		}
	}
	slices.Reverse(out)
	return out
}

// unescaped are the characters that the kernel writes as numbers.
var unescaped = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
