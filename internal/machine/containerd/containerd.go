package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/renameio/v2"

	"keelson.dev/keelson/internal/node/cri"
)

// Options of a private containerd.
type Options struct {
	// Dir holds its data, configuration and log; its state (sockets, mounts
	// of running containers) is in State.
	Dir, State string
	// CNIConf is the folder of the CNI configuration; CNIBin those of the plug-ins.
	CNIConf string
	CNIBin  []string
	// Hosts is the folder of the registries' configuration (hosts.toml).
	Hosts string
	// PauseImage is the sandboxes' image.
	PauseImage string
}

// Runtime is a running containerd.
type Runtime struct{ o Options }

const startTimeout = 30 * time.Second

func (o *Options) socket() string { return filepath.Join(o.State, "containerd.sock") }
func (o *Options) pid() string    { return filepath.Join(o.State, "containerd.pid") }
func (o *Options) log() string    { return filepath.Join(o.Dir, "containerd.log") }

func (o *Options) configFile() string { return filepath.Join(o.Dir, "config.toml") }

// Endpoint returns the CRI socket.
func (r *Runtime) Endpoint() string { return "unix://" + r.o.socket() }

// Start starts containerd, or finds the one that it started before: containers
// and their runtime outlive the agent.
func Start(ctx context.Context, o Options) (*Runtime, error) {
	for _, need := range []struct{ program, pkg string }{{"containerd", "containerd"}, {"runc", "runc"}} {
		if _, err := exec.LookPath(need.program); err != nil {
			return nil, fmt.Errorf("no container runtime: %s is not in PATH: install it (apt-get install %s), or start a CRI runtime", need.program, need.pkg)
		}
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a node needs root to run containers: use sudo, or run keelson server without a node")
	}
	r := &Runtime{o}
	for _, d := range []string{o.Dir, o.State, o.Hosts} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, err
		}
	}
	if err := renameio.WriteFile(o.configFile(), []byte(o.config()), 0o644); err != nil {
		return nil, err
	}
	if r.alive() != nil {
		return r, r.wait(ctx)
	}
	return r, r.launch(ctx)
}

// launch starts the process and returns when it answers CRI.
func (r *Runtime) launch(ctx context.Context) error {
	if err := os.Remove(r.o.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.sweep()
	log, err := os.OpenFile(r.o.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("containerd", "--config", r.o.configFile())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting containerd: %w", err)
	}
	if err := renameio.WriteFile(r.o.pid(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		_ = cmd.Wait()
		cancel(fmt.Errorf("containerd ended: %s: see %s", cmd.ProcessState, r.o.log()))
	}()
	return r.wait(ctx)
}

// sweep removes the folders of containers that a containerd was removing when it was killed:
// it renames them first, to a hidden name, and does not look at those when it starts.
func (r *Runtime) sweep() {
	hidden, _ := filepath.Glob(filepath.Join(r.o.State, "state", "io.containerd.runtime.v2.task", "*", ".*"))
	for _, dir := range hidden {
		if _, err := os.Stat(filepath.Join(dir, "rootfs")); errors.Is(err, fs.ErrNotExist) { // nothing is mounted there
			_ = os.RemoveAll(dir)
		}
	}
}

// alive returns the process of a containerd that was started here, nil if it has
// ended.
func (r *Runtime) alive() *process {
	b, err := os.ReadFile(r.o.pid())
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil
	}
	// The number may be another process's by now; after it was opened, it cannot
	// become that.
	p, err := open(pid)
	if err != nil {
		return nil
	}
	if cmdline := p.cmdline(); !slices.Contains(cmdline, r.o.configFile()) {
		p.Close()
		return nil
	}
	return p
}

// wait returns when the socket answers CRI.
func (r *Runtime) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("containerd did not answer within %s: see %s", startTimeout, r.o.log()))
	defer cancel()
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(r.o.State); err != nil {
		return err
	}
	for {
		if _, err := os.Stat(r.o.socket()); err == nil {
			c, err := cri.Connect(ctx, r.Endpoint())
			if err != nil {
				return err
			}
			return c.Close()
		}
		select {
		case <-w.Events:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (o *Options) config() string {
	return fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing", "io.containerd.internal.v1.opt"]

[grpc]
  address = %q

[ttrpc]
  address = %q

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  # Not every machine lets root lower the score.
  restrict_oom_score_adj = true
  # What is left of a network namespace is then found below the state folder.
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = %q
    bin_dir = %q

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %q
`, filepath.Join(o.Dir, "root"), filepath.Join(o.State, "state"), o.socket(), o.socket()+".ttrpc", o.PauseImage, o.CNIConf, o.binDir(), o.Hosts)
}

// binDir returns the first folder of CNI plug-ins that exists: this containerd
// takes only one.
func (o *Options) binDir() string {
	for _, d := range o.CNIBin {
		if _, err := os.Stat(d); err == nil {
			return d
		}
	}
	return "/opt/cni/bin"
}

// Existing returns a containerd that was started before with these options, running
// or not.
func Existing(o Options) *Runtime { return &Runtime{o} }
