package pluginregistry

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/clock"
)

// driver is a plug-in; told receives the results of its registrations.
type driver struct {
	registration.UnimplementedRegistrationServer
	name string
	told chan *registration.RegistrationStatus
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: d.name, Endpoint: "/x", SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	d.told <- s
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) serve(t *testing.T, path string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	registration.RegisterRegistrationServer(s, d)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(l) }()
	return sync.OnceFunc(func() { s.Stop(); <-ended; _ = os.Remove(path) })
}

// handler keeps the names of what has registered.
type handler struct {
	mu    sync.Mutex
	names []string
	fail  error
}

func (h *handler) Register(_ context.Context, name, _ string, _ []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		err := h.fail
		h.fail = nil
		return err
	}
	h.names = append(h.names, name)
	return nil
}

func (h *handler) Deregister(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names = slices.DeleteFunc(h.names, func(n string) bool { return n == name })
}

func (h *handler) has(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.names, name)
}

// TestRegistry checks that a plug-in registers whenever it comes, is asked
// again after an error, and is forgotten with its socket.
func TestRegistry(t *testing.T) {
	dir, err := os.MkdirTemp("", "registry") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &driver{name: "d", told: make(chan *registration.RegistrationStatus, 10)}
	stop := d.serve(t, filepath.Join(dir, "d.sock"))
	defer stop()
	h := &handler{fail: errors.New("not yet")}
	r := &Registry{Dir: dir, Handlers: map[string]Handler{registration.CSIPlugin: h}, Clock: clock.RealClock{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if s := <-d.told; s.PluginRegistered || s.Error != "not yet" {
		t.Errorf("told %v", s)
	}
	if s := <-d.told; !s.PluginRegistered || !h.has("d") {
		t.Errorf("told %v", s)
	}
	late := &driver{name: "late", told: make(chan *registration.RegistrationStatus, 10)}
	stopLate := late.serve(t, filepath.Join(dir, "late.sock"))
	defer stopLate()
	if s := <-late.told; !s.PluginRegistered || !h.has("late") {
		t.Errorf("told %v", s)
	}
	stop()
	for h.has("d") {
		select {
		case <-t.Context().Done():
			t.Fatal("the plug-in is not forgotten")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if !h.has("late") {
		t.Error("the other is forgotten")
	}
}
