package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// instance is a process that a data folder has at most one of: it holds a lock on a file
// there, with its number in it, for as long as it lives, so that a number that was given
// to another process since is not taken for it.
type instance struct{ name, file, again string }

// The server of a data folder, and the agent, which may be beside it.
var (
	serverInstance = instance{"server", "keelson.pid", "stopped; keelson up starts it again with all its objects"}
	agentInstance  = instance{"agent", "agent.pid", "stopped; keelson agent starts the node again, without a token"}
)

func (i instance) path(dataDir string) string { return filepath.Join(dataDir, i.file) }

// running returns the number of the process in dataDir, 0 if there is none.
func (i instance) running(dataDir string) (int, error) {
	f, err := os.OpenFile(i.path(dataDir), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		return 0, nil
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s is damaged: %w", i.path(dataDir), err)
	}
	return pid, nil
}

// lock returns the locked file. The lock is that of a process, and of those which
// it hands the file on to.
func (i instance) lock(dataDir string) (*os.File, error) {
	// The store and the keys in it are closed to others; pods' folders are not.
	if err := os.MkdirAll(dataDir, 0o711); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(i.path(dataDir), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another keelson %s is at work on %s: stop it with keelson down, or give another --data-dir", i.name, dataDir)
	}
	return f, nil
}

// write writes the number of a process into the locked file.
func write(lock *os.File, pid int) error {
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err := lock.WriteAt([]byte(strconv.Itoa(pid)+"\n"), 0)
	return err
}

// lockEnv is the environment variable with the number of the file descriptor of the lock
// that keelson up has handed on.
const lockEnv = "KEELSON_LOCK_FD"

// claim makes this process that of the folder, until release is called, unless keelson
// up has done so already. The lock is kept from the processes that this one starts: the
// container runtime outlives it.
func (i instance) claim(dataDir string) (release func(), err error) {
	if fd, err := strconv.Atoi(os.Getenv(lockEnv)); err == nil {
		syscall.CloseOnExec(fd)
		return func() {}, os.Unsetenv(lockEnv)
	}
	if dataDir == "" {
		return func() {}, nil
	}
	f, err := i.lock(dataDir)
	if err != nil {
		return nil, err
	}
	release = func() { f.Close() }
	if err := write(f, os.Getpid()); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// end asks the process in dataDir to end, and waits until it has. It reports whether
// there was one.
func (i instance) end(ctx context.Context, dataDir string) (bool, error) {
	pid, err := i.running(dataDir)
	if err != nil || pid == 0 {
		return false, err
	}
	f, err := os.Open(i.path(dataDir))
	if err != nil {
		return true, err
	}
	defer f.Close()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return true, fmt.Errorf("stopping process %d: %w", pid, err)
	}
	ended := make(chan error, 1)
	// The lock is free when the process has ended.
	go func() { ended <- syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }()
	tell := time.NewTicker(3 * time.Second)
	defer tell.Stop()
	limit := time.After(time.Minute)
	for begun := time.Now(); ; {
		select {
		case err := <-ended:
			return true, err
		case <-tell.C:
			fmt.Printf("waiting for process %d to answer its last requests and end, %s\n", pid, time.Since(begun).Round(time.Second))
		case <-limit:
			return true, fmt.Errorf("process %d has not ended within a minute: see its log (keelson up's is %s)", pid, logFile(dataDir))
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
}
