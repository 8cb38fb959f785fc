package csi

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/localdriver"
)

// attachedName is the name of the driver attached.
const attachedName = "attached.csi.keelson.dev"

// attached is a driver of volumes that must be attached to a node, and staged there,
// before they are published, and that grow on the node, too. It refuses calls in
// another order. The volumes themselves are the local driver's.
type attached struct {
	*localdriver.Driver
	socket string

	mu         sync.Mutex
	nodes      map[string]string            // of attached volumes, by ID
	staged     map[string]string            // paths, by ID
	parameters map[string]map[string]string // that may be modified, by ID
	grown      map[string]int64             // bytes that the node's part has, by ID
}

// serveAttached serves the driver at a socket, and its registration at another one, until the
// end of the test.
func serveAttached(t testing.TB, dir, socket, register string) *attached {
	t.Helper()
	for _, kind := range []string{"volumes", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(dir, kind), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d := &attached{Driver: &localdriver.Driver{Dir: dir, Node: "node", Version: "test", Clock: clock.RealClock{}}, socket: socket,
		nodes: map[string]string{}, staged: map[string]string{}, parameters: map[string]map[string]string{}, grown: map[string]int64{}}
	s := grpc.NewServer()
	csi.RegisterIdentityServer(s, d)
	csi.RegisterControllerServer(s, d)
	csi.RegisterNodeServer(s, d)
	registration.RegisterRegistrationServer(s, d)
	for _, path := range []string{socket, register} {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = s.Serve(l) }()
	}
	t.Cleanup(s.Stop)
	return d
}

// state tells of the volumes of which something is left, beside those of the local
// driver.
func (d *attached) state() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprintf("attached %v, staged %v", d.nodes, d.staged)
}

func (d *attached) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: attachedName, Endpoint: d.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *attached) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: attachedName, VendorVersion: "test"}, nil
}

func (d *attached) ControllerGetCapabilities(ctx context.Context, r *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	out, err := d.Driver.ControllerGetCapabilities(ctx, r)
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME, csi.ControllerServiceCapability_RPC_MODIFY_VOLUME} {
		out.Capabilities = append(out.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}}})
	}
	return out, err
}

func (d *attached) CreateVolume(ctx context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	out, err := d.Driver.CreateVolume(ctx, r)
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.parameters[out.Volume.VolumeId] = maps.Clone(r.MutableParameters)
	}
	return out, err
}

func (d *attached) ControllerModifyVolume(_ context.Context, r *csi.ControllerModifyVolumeRequest) (*csi.ControllerModifyVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parameters[r.VolumeId] = maps.Clone(r.MutableParameters)
	return &csi.ControllerModifyVolumeResponse{}, nil
}

func (d *attached) parameter(volume, name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.parameters[volume][name]
}

func (d *attached) ControllerPublishVolume(_ context.Context, r *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if on, ok := d.nodes[r.VolumeId]; ok && on != r.NodeId {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is attached to %s", r.VolumeId, on)
	}
	d.nodes[r.VolumeId] = r.NodeId
	return &csi.ControllerPublishVolumeResponse{PublishContext: map[string]string{"device": r.VolumeId}}, nil
}

func (d *attached) ControllerUnpublishVolume(_ context.Context, r *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, ok := d.staged[r.VolumeId]; ok {
		return nil, status.Errorf(codes.Internal, "volume %s is to be detached, and staged at %s", r.VolumeId, at)
	}
	delete(d.nodes, r.VolumeId)
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

func (d *attached) ControllerExpandVolume(ctx context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	out, err := d.Driver.ControllerExpandVolume(ctx, r)
	if err == nil {
		out.NodeExpansionRequired = true
	}
	return out, err
}

func (d *attached) NodeGetCapabilities(ctx context.Context, r *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	out, err := d.Driver.NodeGetCapabilities(ctx, r)
	for _, t := range []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, csi.NodeServiceCapability_RPC_EXPAND_VOLUME} {
		out.Capabilities = append(out.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}})
	}
	return out, err
}

func (d *attached) NodeStageVolume(ctx context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.nodes[r.VolumeId] != d.Node || r.PublishContext["device"] != r.VolumeId {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is staged with %v, and attached to %q", r.VolumeId, r.PublishContext, d.nodes[r.VolumeId])
	}
	_, err := d.Driver.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{VolumeId: r.VolumeId, TargetPath: r.StagingTargetPath, VolumeCapability: r.VolumeCapability})
	if err != nil {
		return nil, err
	}
	d.staged[r.VolumeId] = r.StagingTargetPath
	return &csi.NodeStageVolumeResponse{}, nil
}

func (d *attached) NodeUnstageVolume(ctx context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.Driver.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: r.VolumeId, TargetPath: r.StagingTargetPath}); err != nil {
		return nil, err
	}
	delete(d.staged, r.VolumeId)
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *attached) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at := d.staged[r.VolumeId]; at == "" || at != r.StagingTargetPath {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is to be published from %q, and staged at %q", r.VolumeId, r.StagingTargetPath, at)
	}
	return d.Driver.NodePublishVolume(ctx, r)
}

func (d *attached) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.staged[r.VolumeId] == "" {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is not staged", r.VolumeId)
	}
	d.grown[r.VolumeId] = r.CapacityRange.GetRequiredBytes()
	return &csi.NodeExpandVolumeResponse{CapacityBytes: d.grown[r.VolumeId]}, nil
}

func (d *attached) size(volume string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.grown[volume]
}

// left returns the files and folders of the driver's volumes and snapshots.
func (d *attached) left() ([]string, error) {
	found, err := filepath.Glob(filepath.Join(d.Dir, "*", "*"))
	slices.Sort(found)
	return found, err
}
