// Package etcdtest runs etcd for tests.
package etcdtest

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"keelson.dev/keelson/test/harness"
)

// Server is an etcd of one member.
type Server struct {
	URL string
	// Cert and Key are the files of a certificate for clients of a server with TLS,
	// and its key. The server has the same certificate, which is its own authority.
	Cert, Key string

	t    testing.TB
	args []string
	log  string
	cmd  *exec.Cmd
}

// Start starts the installed etcd, which ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t, &Server{URL: "http://" + harness.FreeAddress(t)})
}

// StartTLS starts etcd with TLS and client certificates.
func StartTLS(t testing.TB) *Server {
	t.Helper()
	s := &Server{URL: "https://" + harness.FreeAddress(t)}
	pair, err := transport.SelfCert(zap.NewNop(), t.TempDir(), []string{"127.0.0.1:0"}, 1, x509.ExtKeyUsageClientAuth)
	if err != nil {
		t.Fatal(err)
	}
	s.Cert, s.Key = pair.CertFile, pair.KeyFile
	return start(t, s, "--cert-file="+s.Cert, "--key-file="+s.Key, "--client-cert-auth", "--trusted-ca-file="+s.Cert)
}

func start(t testing.TB, s *Server, args ...string) *Server {
	t.Helper()
	dir, peer := t.TempDir(), "http://"+harness.FreeAddress(t)
	s.t, s.log = t, filepath.Join(dir, "log")
	s.args = append(args, "--name=test", "--data-dir="+filepath.Join(dir, "data"), "--log-level=error", "--logger=zap",
		"--listen-client-urls="+s.URL, "--advertise-client-urls="+s.URL,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=test="+peer)
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

// Run starts the server, also after Kill, and waits until it answers.
func (s *Server) Run() {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command("etcd", s.args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("starting etcd: %v: install it with make test-packages", err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	if _, err := s.Client().Get(ctx, "ready"); err != nil {
		s.Kill()
		said, _ := os.ReadFile(s.log)
		s.t.Fatalf("etcd does not answer: %v\n%s", err, said)
	}
}

// Kill kills the server; its data stays.
func (s *Server) Kill() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// PID returns the ID of the server's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Client returns a client of its own, which ends with the test.
func (s *Server) Client() *clientv3.Client {
	s.t.Helper()
	o := clientv3.Config{Endpoints: []string{s.URL}, Logger: zap.NewNop()}
	var err error
	if s.Cert != "" {
		info := transport.TLSInfo{TrustedCAFile: s.Cert, CertFile: s.Cert, KeyFile: s.Key}
		if o.TLS, err = info.ClientConfig(); err != nil {
			s.t.Fatal(err)
		}
	}
	c, err := clientv3.New(o)
	if err != nil {
		s.t.Fatal(fmt.Errorf("etcd at %s: %w", s.URL, err))
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}
