package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/util/sets"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// plugin is one that has registered, or had with an earlier agent.
type plugin struct {
	client  pluginapi.DevicePluginClient // nil where it has not registered with this agent
	options *pluginapi.DevicePluginOptions
	end     context.CancelFunc // of its watch

	// Manager.mu is over what follows.
	devices map[string]*pluginapi.Device
	// stopped is when it ended, or the agent started without it; zero while it is there.
	stopped time.Time
}

// connect makes a connection to a plug-in's socket.
func connect(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
}

// healthy returns the IDs of its devices that are healthy: none once it has ended.
func (p *plugin) healthy() sets.Set[string] {
	out := sets.New[string]()
	for id, d := range p.devices {
		if d.Health == pluginapi.Healthy && p.stopped.IsZero() {
			out.Insert(id)
		}
	}
	return out
}

// onNodes reports whether a device tells which NUMA nodes it is of.
func (p *plugin) onNodes() bool {
	for _, d := range p.devices {
		if d.Topology != nil {
			return true
		}
	}
	return false
}

// watch calls update with the plug-in's devices whenever they change, until the plug-in
// ends.
func (p *plugin) watch(ctx context.Context, update func([]*pluginapi.Device)) error {
	s, err := p.client.ListAndWatch(ctx, &pluginapi.Empty{})
	if err != nil {
		return fmt.Errorf("ListAndWatch: %w", err)
	}
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ListAndWatch: %w", err)
		}
		update(r.Devices)
	}
}

// allocateTimeout bounds a plug-in's calls that upstream does not.
const allocateTimeout = 2 * time.Minute

func (p *plugin) gone() error {
	if p.client == nil {
		return errors.New("the device plug-in has not registered")
	}
	return nil
}

func (p *plugin) allocate(ctx context.Context, ids []string) (*pluginapi.AllocateResponse, error) {
	if err := p.gone(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, allocateTimeout)
	defer cancel()
	return p.client.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: ids}}})
}

func (p *plugin) preStart(ctx context.Context, ids []string) error {
	if err := p.gone(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pluginapi.KubeletPreStartContainerRPCTimeoutInSecs*time.Second)
	defer cancel()
	_, err := p.client.PreStartContainer(ctx, &pluginapi.PreStartContainerRequest{DevicesIds: ids})
	return err
}

// preferred returns which n of the devices the plug-in would give, those that have to be
// among them included.
func (p *plugin) preferred(ctx context.Context, devices, must []string, n int) (sets.Set[string], error) {
	if err := p.gone(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, allocateTimeout)
	defer cancel()
	r, err := p.client.GetPreferredAllocation(ctx, &pluginapi.PreferredAllocationRequest{ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{
		{AvailableDeviceIDs: devices, MustIncludeDeviceIDs: must, AllocationSize: int32(n)}}})
	if err != nil {
		return nil, fmt.Errorf("device plugin GetPreferredAllocation rpc failed with err: %w", err)
	}
	if len(r.ContainerResponses) == 0 {
		return nil, nil
	}
	return sets.New(r.ContainerResponses[0].DeviceIDs...), nil
}
