// Package podresources serves what the containers of a node have of its devices, CPUs,
// memory and claims, to agents that monitor them (KEP-606,
// https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/#monitoring-device-plugin-resources).
// It may import dra, exclusive and podspec.
package podresources

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"keelson.dev/keelson/internal/node/deviceplugin"
	"keelson.dev/keelson/internal/node/dra"
	"keelson.dev/keelson/internal/node/exclusive"
	"keelson.dev/keelson/internal/node/memorymanager"
	"keelson.dev/keelson/internal/node/podspec"
)

const (
	// Socket is that of the service, below the node's folder.
	Socket = "pod-resources/kubelet.sock"
	// A kubelet answers so many requests a second, so many of them at once.
	perSecond, burst = 100, 10
)

// Server serves the resources of a node's pods.
type Server struct {
	podresources.UnimplementedPodResourcesListerServer
	// Pods gives the node's pods with their statuses.
	Pods func() []*v1.Pod
	// Given has what containers have for themselves, Claims the devices of their claims.
	Given  *exclusive.Manager
	Claims *dra.Manager
	// Called counts the calls of a method, and the errors.
	Called func(method string, err error)

	limit *rate.Limiter // a kubelet's where nil
}

// Serve serves at the socket until ctx ends.
func (s *Server) Serve(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	limit := s.limit
	if limit == nil {
		limit = rate.NewLimiter(perSecond, burst)
	}
	g := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, in any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if !limit.Allow() {
			return nil, status.Error(codes.ResourceExhausted, "rejected by rate limit")
		}
		out, err := handle(ctx, in)
		s.Called(filepath.Base(info.FullMethod), err)
		return out, err
	}))
	podresources.RegisterPodResourcesListerServer(g, s)
	context.AfterFunc(ctx, g.Stop)
	if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// List implements podresources.PodResourcesListerServer: the pods that have not ended.
func (s *Server) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	out := &podresources.ListPodResourcesResponse{}
	for _, pod := range s.Pods() {
		if !podspec.Terminal(pod.Status.Phase) {
			out.PodResources = append(out.PodResources, s.of(pod))
		}
	}
	slices.SortFunc(out.PodResources, func(a, b *podresources.PodResources) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// Get implements podresources.PodResourcesListerServer.
func (s *Server) Get(_ context.Context, r *podresources.GetPodResourcesRequest) (*podresources.GetPodResourcesResponse, error) {
	for _, pod := range s.Pods() {
		if pod.Namespace == r.PodNamespace && pod.Name == r.PodName {
			return &podresources.GetPodResourcesResponse{PodResources: s.of(pod)}, nil
		}
	}
	return nil, fmt.Errorf("pod %s in namespace %s not found", r.PodName, r.PodNamespace)
}

// GetAllocatableResources implements podresources.PodResourcesListerServer.
func (s *Server) GetAllocatableResources(context.Context, *podresources.AllocatableResourcesRequest) (*podresources.AllocatableResourcesResponse, error) {
	return &podresources.AllocatableResourcesResponse{Devices: devices(s.Given.Devices.All()), CpuIds: ids(s.Given.CPUs.Allocatable().List()), Memory: memory(s.Given.Memory.Allocatable())}, nil
}

// of returns what the containers and the sidecars of a pod have.
func (s *Server) of(pod *v1.Pod) *podresources.PodResources {
	out := &podresources.PodResources{Name: pod.Name, Namespace: pod.Namespace}
	for _, c := range podspec.Containers(pod) {
		if podspec.IsEphemeral(pod, c.Name) || podspec.EndsBefore(pod, c.Name) {
			continue
		}
		out.Containers = append(out.Containers, s.container(pod, c))
	}
	return out
}

func (s *Server) container(pod *v1.Pod, c *v1.Container) *podresources.ContainerResources {
	uid := types.UID(pod.UID)
	out := &podresources.ContainerResources{Name: c.Name, Devices: devices(s.Given.Devices.Devices(uid, c.Name)),
		CpuIds: ids(s.Given.CPUs.Exclusive(uid, c.Name).List()), Memory: memory(s.Given.Memory.Blocks(uid, c.Name))}
	for _, claim := range s.Claims.Of(pod, c) {
		r := &podresources.DynamicResource{ClaimName: claim.Name, ClaimNamespace: claim.Namespace}
		for _, d := range claim.Devices {
			to := &podresources.ClaimResource{DriverName: d.Driver, PoolName: d.Pool, DeviceName: d.Device}
			if d.Share != "" {
				to.ShareId = &d.Share
			}
			for _, name := range d.CDI {
				to.CdiDevices = append(to.CdiDevices, &podresources.CDIDevice{Name: name})
			}
			r.ClaimResources = append(r.ClaimResources, to)
		}
		out.DynamicResources = append(out.DynamicResources, r)
	}
	return out
}

func devices(all []deviceplugin.Device) (out []*podresources.ContainerDevices) {
	for _, d := range all {
		to := &podresources.ContainerDevices{ResourceName: d.Resource, DeviceIds: []string{d.ID}}
		if len(d.Nodes) > 0 {
			to.Topology = topology(d.Nodes)
		}
		out = append(out, to)
	}
	return out
}

func memory(blocks []memorymanager.Block) (out []*podresources.ContainerMemory) {
	for _, b := range blocks {
		if b.Size > 0 {
			out = append(out, &podresources.ContainerMemory{MemoryType: string(b.Type), Size: b.Size, Topology: topology(ids(b.Nodes))})
		}
	}
	return out
}

func topology(nodes []int64) *podresources.TopologyInfo {
	out := &podresources.TopologyInfo{}
	for _, n := range nodes {
		out.Nodes = append(out.Nodes, &podresources.NUMANode{ID: n})
	}
	return out
}

func ids(of []int) []int64 {
	out := make([]int64, len(of))
	for i, n := range of {
		out[i] = int64(n)
	}
	return out
}
