// Package etcdtest runs etcd for tests.
package etcdtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Server is an etcd of one member.
type Server struct {
	URL  string
	t    testing.TB
	args []string
	log  string
	cmd  *exec.Cmd
}

// Start starts the installed etcd, which ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	dir := t.TempDir()
	client, peer := "http://"+free(t), "http://"+free(t)
	s := &Server{t: t, URL: client, log: filepath.Join(dir, "log"), args: []string{
		"--name=test", "--data-dir=" + filepath.Join(dir, "data"), "--log-level=error", "--logger=zap",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=test=" + peer,
	}}
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

// free is an address on loopback that nobody listens at.
func free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Run starts the server, again after Kill, and waits until it answers.
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

// Kill ends the server at once; its data stays.
func (s *Server) Kill() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// Client is a client of its own, which ends with the test.
func (s *Server) Client() *clientv3.Client {
	s.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.URL}, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(fmt.Errorf("etcd at %s: %w", s.URL, err))
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}
