package localdriver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/clock"
)

const (
	// Name is the name of the driver.
	Name = "local.csi.keelson.dev"
	// Topology is the topology key whose value is the node of a volume.
	Topology = "topology." + Name + "/node"
)

// Driver serves the identity, controller and node services of one node.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	// Dir holds the volumes and snapshots.
	Dir string
	// Node is the node's name.
	Node string
	// Version is the driver's version.
	Version string
	Clock   clock.PassiveClock

	// mu serializes the creation, deletion and change of volumes and snapshots, but for what takes
	// long of them: busy are those under way, by their folders.
	mu     sync.Mutex
	busy   map[string]operation
	quota  quota
	socket string
}

// Serve serves the driver at a socket, and its registration at another one, as
// node-driver-registrar does, until ctx is done.
func (d *Driver) Serve(ctx context.Context, socket, register string) error {
	for _, kind := range []string{volumes, snapshots} {
		if err := os.MkdirAll(filepath.Join(d.Dir, kind), 0o700); err != nil {
			return err
		}
	}
	d.quota, d.socket = quotaOf(d.Dir), socket
	if err := d.sweep(); err != nil {
		return err
	}
	own := grpc.NewServer()
	csi.RegisterIdentityServer(own, d)
	csi.RegisterControllerServer(own, d)
	csi.RegisterNodeServer(own, d)
	servers := map[string]*grpc.Server{socket: own}
	if register != "" {
		r := grpc.NewServer()
		registration.RegisterRegistrationServer(r, d)
		servers[register] = r
	}
	ended := make(chan error, len(servers))
	listeners := map[string]net.Listener{}
	// The driver listens before it registers.
	for _, path := range []string{socket, register} {
		if servers[path] == nil {
			continue
		}
		l, err := listen(path)
		if err != nil {
			return errors.Join(err, closeAll(listeners))
		}
		listeners[path] = l
	}
	for path, s := range servers {
		go func() { ended <- s.Serve(listeners[path]) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
		ended <- nil
	}
	for _, s := range servers {
		s.Stop()
	}
	for range servers {
		<-ended
	}
	return err
}

// listen listens on the socket, and replaces one that a killed process left.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}

func closeAll(all map[string]net.Listener) error {
	var errs []error
	for _, l := range all {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// GetInfo describes the driver to the node's agent.
func (d *Driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: Name, Endpoint: d.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

// NotifyRegistrationStatus takes the agent's answer.
func (d *Driver) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !s.PluginRegistered {
		return nil, fmt.Errorf("the node's agent refuses driver %s: %s", Name, s.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// GetPluginInfo implements csi.IdentityServer.
func (d *Driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: Name, VendorVersion: d.Version}, nil
}

// GetPluginCapabilities implements csi.IdentityServer.
func (d *Driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	service := func(t csi.PluginCapability_Service_Type) *csi.PluginCapability {
		return &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: t}}}
	}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		service(csi.PluginCapability_Service_CONTROLLER_SERVICE),
		service(csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS),
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE}}},
	}}, nil
}

// Probe implements csi.IdentityServer.
func (d *Driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}
