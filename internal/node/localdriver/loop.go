package localdriver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// findLoop returns the loop device of a file (loop(4)), "" if it has none.
func findLoop(path string) (string, error) {
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	for _, b := range backing {
		text, err := os.ReadFile(b)
		if err == nil && strings.TrimSuffix(string(text), "\n") == path {
			return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(b))), nil
		}
	}
	return "", nil
}

// attachLoop attaches a loop device to a file, or returns the one that it has.
func attachLoop(path string) (string, error) {
	if device, err := findLoop(path); err != nil || device != "" {
		return device, err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("block volumes need loop devices: %w", err)
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("finding a free loop device: %w", err)
		}
		device := fmt.Sprintf("/dev/loop%d", n)
		loop, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			return "", err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd())}
		copy(config.Info.File_name[:], path)
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		err = errors.Join(err, loop.Close())
		if errors.Is(err, unix.EBUSY) {
			continue // another process took it meanwhile
		}
		if err != nil {
			return "", fmt.Errorf("attaching %s to %s: %w", path, device, err)
		}
		return device, nil
	}
}

// onLoop opens the loop device of a file for f, if it has one.
func onLoop(path string, f func(fd int) error) error {
	device, err := findLoop(path)
	if err != nil || device == "" {
		return err
	}
	loop, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f(int(loop.Fd())), loop.Close())
}

// detachLoop detaches a file's loop device.
func detachLoop(path string) error {
	return onLoop(path, func(fd int) error { return unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0) })
}

// refreshLoop updates the size of a file's loop device.
func refreshLoop(path string) error {
	return onLoop(path, func(fd int) error { return unix.IoctlSetInt(fd, unix.LOOP_SET_CAPACITY, 0) })
}
