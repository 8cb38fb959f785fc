package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server of the comparison, and what belongs to it.
type process struct {
	name string
	cmds []*exec.Cmd
	url  string
	log  string
	// ready is how long the start took.
	ready time.Duration
	// collection is the path of the custom resources, below the URL.
	collection string
	client     *client
}

// run starts a program whose output goes to a file; it ends with ctx.
func (p *process) run(ctx context.Context, program string, args ...string) (io.Reader, error) {
	c := exec.CommandContext(ctx, program, args...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	log, err := os.Create(filepath.Join(p.log, fmt.Sprintf("%s-%d.log", p.name, len(p.cmds))))
	if err != nil {
		return nil, err
	}
	c.Stderr = log
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	p.cmds = append(p.cmds, c)
	return out, nil
}

// line reads the first line, and drops the rest.
func line(r io.Reader) (string, error) {
	b := bufio.NewReader(r)
	s, err := b.ReadString('\n')
	go io.Copy(io.Discard, b) //nolint:errcheck // until the program ends
	return strings.TrimSpace(s), err
}

// cpu is the processor time that the processes have used.
func (p *process) cpu() (time.Duration, error) {
	var ticks int64
	for _, c := range p.cmds {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
		if err != nil {
			return 0, err
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		for _, i := range []int{11, 12} { // utime and stime, in hundredths of a second
			n, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// memory is the processes' resident memory in MB.
func (p *process) memory() (float64, error) {
	var kb int64
	for _, c := range p.cmds {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
		if err != nil {
			return 0, err
		}
		for l := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(l, "VmRSS:"); ok {
				n, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				if err != nil {
					return 0, err
				}
				kb += n
			}
		}
	}
	return float64(kb) / 1000, nil
}

func (p *process) stop() error {
	var errs []error
	for i := len(p.cmds) - 1; i >= 0; i-- {
		c := p.cmds[i]
		_ = c.Process.Signal(syscall.SIGTERM)
		var exit *exec.ExitError
		if err := c.Wait(); err != nil && !errors.As(err, &exit) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// started waits until path answers 200, and notes how long that took.
func (p *process) started(ctx context.Context, begin time.Time, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		code, _, err := p.client.do(ctx, "GET", p.url+path, "", nil)
		if err == nil && code == 200 {
			p.ready = time.Since(begin)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not become ready; see %s: %w", p.name, p.log, errors.Join(err, ctx.Err()))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func startKeelson(ctx context.Context, o settings, dir string) (*process, error) {
	p := &process{name: "keelson", log: dir}
	data := filepath.Join(dir, "keelson")
	begin := time.Now()
	args := []string{"server", "--data-dir", data, "--no-node", "--listen", "127.0.0.1:0"}
	out, err := p.run(ctx, o.keelson, args...)
	if err != nil {
		return nil, err
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		if _, addr, ok := strings.Cut(s.Text(), "API server on "); ok {
			p.url = "https://" + addr
			break
		}
	}
	go io.Copy(io.Discard, out) //nolint:errcheck // until the program ends
	if p.url == "" {
		return nil, fmt.Errorf("%s did not start; see %s", o.keelson, dir)
	}
	cert, err := adminCertificate(filepath.Join(data, "admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	p.client = newClient(&cert)
	return p, p.started(ctx, begin, "/readyz")
}

func startPeer(ctx context.Context, o settings, dir string) (*process, error) {
	p := &process{name: "peer", log: dir, client: newClient(nil)}
	client, peer := "http://127.0.0.1:"+freePort(), "http://127.0.0.1:"+freePort()
	begin := time.Now()
	out, err := p.run(ctx, o.etcd, "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--log-level", "error", "--quota-backend-bytes", "4294967296")
	if err != nil {
		return nil, err
	}
	go io.Copy(io.Discard, out) //nolint:errcheck // until the program ends
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if out, err = p.run(ctx, self, "peer", client, dir); err != nil {
		return nil, err
	}
	if p.url, err = line(out); err != nil {
		return nil, fmt.Errorf("the peer did not start; see %s: %w", dir, err)
	}
	return p, p.started(ctx, begin, "/readyz")
}

func startLimit(ctx context.Context, dir string) (*process, error) {
	p := &process{name: "limit", log: dir, client: newClient(nil)}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out, err := p.run(ctx, self, "limit")
	if err != nil {
		return nil, err
	}
	p.url, err = line(out)
	return p, err
}
