package harness

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Process is a server in a process of its own, which can be killed and started again.
type Process struct {
	t       testing.TB
	command func() *exec.Cmd
	cmd     *exec.Cmd
}

// StartProcess runs the command until the end of the test. The program prints a line
// when it is ready, or "error" and the reason; its standard input is closed when the
// test's process ends.
func StartProcess(t testing.TB, command func() *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, command: command}
	p.Start()
	t.Cleanup(p.Kill)
	return p
}

// Run runs a program until the end of the test, or of the test's process. What it has
// written last is shown if the test fails.
func Run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	said, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = said, said, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b, err := os.ReadFile(said.Name()); err == nil && t.Failed() {
			t.Logf("%s said at last:\n%s", filepath.Base(cmd.Path), b[max(0, len(b)-8000):])
		}
	})
}

// Self returns the test's own program with these variables in its environment (NAME=value),
// which its TestMain checks.
func Self(env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// Start starts the process, also after Kill, and returns when it is ready.
func (p *Process) Start() {
	p.t.Helper()
	p.cmd = p.command()
	p.cmd.Stderr, p.cmd.SysProcAttr = os.Stderr, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if _, err := p.cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	lines, ready := bufio.NewScanner(out), false
	for !ready && lines.Scan() {
		if strings.HasPrefix(lines.Text(), "error") {
			p.t.Fatal(lines.Text())
		}
		ready = strings.HasPrefix(lines.Text(), "ready")
	}
	if !ready {
		p.t.Fatalf("%s ended before it was ready", p.cmd.Path)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
}

// Kill kills the process.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// Pid returns the process's ID.
func (p *Process) Pid() int { return p.cmd.Process.Pid }
