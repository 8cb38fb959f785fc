package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/klog/v2"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Listen makes the socket that plug-ins register at. Those of an earlier agent see that
// it is another, and register again.
func (m *Manager) Listen() (net.Listener, error) {
	if err := os.MkdirAll(m.Dir, 0o750); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 {
			if err := os.Remove(filepath.Join(m.Dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	return net.Listen("unix", filepath.Join(m.Dir, socket))
}

// Run serves registrations at l, and watches the plug-ins, until ctx ends.
func (m *Manager) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	m.ctx = ctx
	m.mu.Unlock()
	s := grpc.NewServer()
	pluginapi.RegisterRegistrationServer(s, registration{m: m})
	context.AfterFunc(ctx, s.Stop)
	err := s.Serve(l)
	cancel()
	m.watches.Wait()
	if errors.Is(err, grpc.ErrServerStopped) {
		err = nil
	}
	return err
}

// registration is the service that plug-ins register with.
type registration struct {
	pluginapi.UnimplementedRegistrationServer
	m *Manager
}

// Register implements pluginapi.RegistrationServer.
func (s registration) Register(_ context.Context, r *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	s.m.Registered(r.ResourceName)
	if !slices.Contains(pluginapi.SupportedVersions[:], r.Version) {
		return nil, fmt.Errorf("requested API version %q is not supported by kubelet. Supported version is %q", r.Version, pluginapi.SupportedVersions)
	}
	if !extended(r.ResourceName) {
		return nil, fmt.Errorf("the ResourceName %q is invalid", r.ResourceName)
	}
	if r.Endpoint == "" || filepath.Base(r.Endpoint) != r.Endpoint {
		return nil, fmt.Errorf("the Endpoint %q is no name of a socket in %s", r.Endpoint, s.m.Dir)
	}
	conn, err := connect(filepath.Join(s.m.Dir, r.Endpoint))
	if err != nil {
		return nil, err
	}
	if err := s.m.add(r.ResourceName, conn, r.Options); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &pluginapi.Empty{}, nil
}

// Register implements pluginregistry.Handler, for plug-ins that are found by a socket in
// the node's plugins_registry folder.
func (m *Manager) Register(ctx context.Context, name, endpoint string, versions []string) error {
	if !slices.ContainsFunc(versions, func(v string) bool { return slices.Contains(pluginapi.SupportedVersions[:], v) }) {
		return fmt.Errorf("manager for plugin versions %v is not supported", versions)
	}
	if !extended(name) {
		return fmt.Errorf("invalid name of device plugin socket: the ResourceName %q is invalid", name)
	}
	conn, err := connect(endpoint)
	if err != nil {
		return err
	}
	options, err := pluginapi.NewDevicePluginClient(conn).GetDevicePluginOptions(ctx, &pluginapi.Empty{})
	if err == nil {
		m.Registered(name)
		err = m.add(name, conn, options)
	}
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

// Deregister implements pluginregistry.Handler.
func (m *Manager) Deregister(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.plugins[name]; p != nil && p.end != nil {
		p.end()
	}
}

// extended reports whether the name is one of an extended resource: neither Kubernetes'
// own, nor one that a quota could not name.
func extended(name string) bool {
	domain, _, qualified := strings.Cut(name, "/")
	return qualified && !strings.HasSuffix(domain, "kubernetes.io") && !strings.HasPrefix(name, v1.DefaultResourceRequestsPrefix) &&
		len(validation.IsQualifiedName(v1.DefaultResourceRequestsPrefix+name)) == 0
}

// add takes a plug-in, in place of the one that the resource has, and watches it. Until
// it has reported its devices the resource has those of the former plug-in.
func (m *Manager) add(resource string, conn *grpc.ClientConn, options *pluginapi.DevicePluginOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil || m.ctx.Err() != nil {
		return errors.New("the node's agent is about to end, or has not begun")
	}
	p := &plugin{client: pluginapi.NewDevicePluginClient(conn), options: options, devices: map[string]*pluginapi.Device{}}
	if old := m.plugins[resource]; old != nil {
		p.devices, p.stopped = old.devices, old.stopped
		if old.end != nil {
			old.end()
		}
	}
	var ctx context.Context
	ctx, p.end = context.WithCancel(m.ctx)
	m.plugins[resource] = p
	delete(m.removed, resource)
	log := klog.FromContext(ctx).WithValues("resource", resource)
	log.Info("A device plug-in registered")
	m.watches.Go(func() {
		defer conn.Close()
		err := p.watch(ctx, func(devices []*pluginapi.Device) { m.update(ctx, resource, p, devices) })
		if m.ctx.Err() == nil {
			log.Info("A device plug-in ended", "err", err)
		}
		m.mu.Lock()
		current := m.plugins[resource] == p
		if current {
			p.stopped = m.Clock.Now()
		}
		m.mu.Unlock()
		if current && m.ctx.Err() == nil {
			m.changed(resource)
		}
	})
	return nil
}

// update sets the devices that a plug-in reports.
func (m *Manager) update(ctx context.Context, resource string, p *plugin, devices []*pluginapi.Device) {
	m.mu.Lock()
	p.devices = map[string]*pluginapi.Device{}
	for _, d := range devices {
		p.devices[d.ID] = d
	}
	p.stopped = time.Time{}
	err := m.save()
	m.mu.Unlock()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Keeping what devices there are failed")
	}
	m.changed(resource)
}

// changed reports a change of the resource's devices.
func (m *Manager) changed(resource string) {
	m.mu.Lock()
	var pods []types.UID
	for uid, containers := range m.given {
		for _, resources := range containers {
			if resources[resource] != nil && !slices.Contains(pods, uid) {
				pods = append(pods, uid)
			}
		}
	}
	m.mu.Unlock()
	m.Changed(pods)
}
