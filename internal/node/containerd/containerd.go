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
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

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

// Endpoint is the CRI socket.
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
	config := filepath.Join(o.Dir, "config.toml")
	if err := os.WriteFile(config, []byte(o.config()), 0o644); err != nil {
		return nil, err
	}
	if r.alive() != 0 {
		return r, r.wait(ctx)
	}
	os.Remove(o.socket())
	log, err := os.OpenFile(o.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("containerd", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting containerd: %w", err)
	}
	if err := os.WriteFile(o.pid(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { cancel(fmt.Errorf("containerd ended: %v: see %s", cmd.Wait(), o.log())) }()
	return r, r.wait(ctx)
}

// alive gives the process of a containerd that was started here, 0 if it has ended.
func (r *Runtime) alive() int {
	b, err := os.ReadFile(r.o.pid())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), r.o.Dir) {
		return 0
	}
	return pid
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

// binDir: this containerd takes one folder of plug-ins; the first that exists.
func (o *Options) binDir() string {
	for _, d := range o.CNIBin {
		if _, err := os.Stat(d); err == nil {
			return d
		}
	}
	return "/opt/cni/bin"
}

// removePods stops and removes all pods' sandboxes, with their containers.
func (r *Runtime) removePods(ctx context.Context) error {
	c, err := cri.Connect(ctx, r.Endpoint())
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range list.Items {
		_, err := c.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id})
		if err == nil {
			_, err = c.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.Id})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Stop ends every pod and then containerd, and leaves no mount behind. Images
// are kept.
func (r *Runtime) Stop(ctx context.Context) error {
	if _, err := os.Stat(r.o.State); errors.Is(err, fs.ErrNotExist) {
		return r.unmount()
	}
	pid := r.alive()
	if pid == 0 {
		// It has ended without its containers, which only it can end.
		if _, err := Start(ctx, r.o); err != nil {
			return err
		}
		pid = r.alive()
	}
	errs := []error{r.removePods(ctx)}
	errs = append(errs, terminate(ctx, pid))
	os.Remove(r.o.pid())
	errs = append(errs, r.unmount(), os.RemoveAll(r.o.State))
	return errors.Join(errs...)
}

// terminate ends a process and waits for its end, through a descriptor of it.
func terminate(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// unmount takes down what is still mounted below the runtime's folders.
func (r *Runtime) unmount() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var points []string
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		if len(f) > 4 && (strings.HasPrefix(f[4], r.o.State+"/") || strings.HasPrefix(f[4], r.o.Dir+"/")) {
			points = append(points, f[4])
		}
	}
	slices.Reverse(points)
	var errs []error
	for _, p := range points {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// Existing is a containerd that was started before with these options, running
// or not.
func Existing(o Options) *Runtime { return &Runtime{o} }
