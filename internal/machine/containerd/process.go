package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process refers to a process by a descriptor, which is not affected when the
// process ID is reused (pidfd_open(2)).
type process struct {
	pid int
	f   *os.File
}

// open fails with ESRCH where there is no such process.
func open(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &process{pid, os.NewFile(uintptr(fd), "pidfd "+strconv.Itoa(pid))}, nil
}

// Close closes the descriptor.
func (p *process) Close() error { return p.f.Close() }

// cmdline returns the command line, empty for a process that has ended.
func (p *process) cmdline() []string { return cmdline(p.pid) }

func cmdline(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(string(bytes.TrimSuffix(b, []byte{0})), "\x00")
}

func (p *process) signal(s unix.Signal) error {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), s, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(sent, unix.ESRCH) {
		return nil
	}
	return sent
}

// wait returns nil when the process has ended, or ctx's error when that ends
// first. It may be called once: the end of ctx sets the descriptor's deadline.
func (p *process) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	// The descriptor is readable when the process has ended.
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if errors.Is(err, unix.EINTR) {
			return false
		}
		failed = err
		return err != nil || n > 0
	})
	if ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, failed)
}

// terminate asks the process to end, kills it when ctx ends or the time is up,
// and returns when it has ended.
func (p *process) terminate(ctx context.Context, within time.Duration) error {
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if p.wait(ctx) == nil {
		return nil
	}
	return kill(p.pid)
}

// kill ends the process and returns when it has ended.
func kill(pid int) error {
	p, err := open(pid)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), killTimeout, fmt.Errorf("process %d does not end, although it was killed", pid))
	defer cancel()
	return p.wait(ctx)
}

// killTimeout is how long the kernel may take to end a process that was killed.
const killTimeout = 10 * time.Second

// processes returns the IDs of all processes of the machine.
func processes() (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parents returns each process's parent, by ID.
func parents(pids []int) map[int]int {
	out := map[int]int{}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// pid (name) state parent …; a name may contain any character.
		var state string
		var parent int
		if _, err := fmt.Sscan(string(b[bytes.LastIndexByte(b, ')')+1:]), &state, &parent); err == nil {
			out[pid] = parent
		}
	}
	return out
}
