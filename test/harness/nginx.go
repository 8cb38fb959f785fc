package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Nginx is Debian's nginx on the machine's network, for tests of controllers that configure
// one. The configurations name the file pid in Dir as that of its process.
type Nginx struct {
	Dir     string
	process *exec.Cmd
}

// Serve checks the configuration, and starts nginx with it or has nginx read it.
func (n *Nginx) Serve(ctx context.Context, config []byte) error {
	file := filepath.Join(n.Dir, "nginx.conf")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "nginx", "-t", "-p", n.Dir, "-c", file).CombinedOutput(); err != nil {
		return fmt.Errorf("nginx: %w: %s", err, out)
	}
	if n.process != nil {
		return n.process.Process.Signal(syscall.SIGHUP)
	}
	n.process = exec.Command("nginx", "-p", n.Dir, "-c", file, "-g", "daemon off;") //nolint:noctx // Stop ends it
	if err := n.process.Start(); err != nil {
		n.process = nil
		return err
	}
	// nginx handles signals only once it has written this file.
	if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, Patience, true, func(context.Context) (bool, error) {
		_, err := os.Stat(filepath.Join(n.Dir, "pid"))
		return err == nil, nil
	}); err != nil {
		return fmt.Errorf("nginx does not start: %w", err)
	}
	return nil
}

// Stop ends nginx, if it runs.
func (n *Nginx) Stop() error {
	if n.process == nil {
		return nil
	}
	return errors.Join(n.process.Process.Signal(syscall.SIGQUIT), n.process.Wait())
}
