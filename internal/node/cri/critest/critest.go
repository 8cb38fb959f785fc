// Package critest is a container runtime in memory, for tests of its clients:
// sandboxes and containers run until a test makes them exit.
package critest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
)

// Runtime is a container runtime. A call that it does not know panics.
type Runtime struct {
	runtimeapi.RuntimeServiceClient
	runtimeapi.ImageServiceClient

	mu         sync.Mutex
	n          int
	status     *runtimeapi.StatusResponse
	absent     map[string]error // images that are not there, and cannot be pulled
	refused    map[string]error // images that are there, and cannot be pulled
	sandboxes  map[string]*sandbox
	containers map[string]*container
	created    []string
	calls      []Call
	watchers   map[chan *runtimeapi.ContainerEventResponse]bool
}

// Call is a call that stops a container, or runs a command in it.
type Call struct {
	// What is "stop" or "exec".
	What, Container string
	At              time.Time
	// Timeout is how long the container has to stop, in seconds.
	Timeout int64
}

type sandbox struct {
	*runtimeapi.PodSandboxStatus
	config *runtimeapi.PodSandboxConfig
}

type container struct {
	*runtimeapi.ContainerStatus
	sandbox string
	config  *runtimeapi.ContainerConfig
}

// New makes a runtime that has nothing.
func New() *Runtime {
	r := &Runtime{watchers: map[chan *runtimeapi.ContainerEventResponse]bool{}, absent: map[string]error{}, refused: map[string]error{}}
	r.SetFeatures(&runtimeapi.RuntimeFeatures{})
	r.Lose()
	return r
}

// Client returns the client of the runtime.
func (r *Runtime) Client() *cri.Client {
	return &cri.Client{RuntimeServiceClient: r, ImageServiceClient: r, RuntimeName: "critest", RuntimeVersion: "1"}
}

// SetFeatures sets the features of the runtime, and of each handler.
func (r *Runtime) SetFeatures(f *runtimeapi.RuntimeFeatures, handlers ...*runtimeapi.RuntimeHandler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ok := []*runtimeapi.RuntimeCondition{{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}}
	r.status = &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: ok}, Features: f, RuntimeHandlers: handlers}
}

// FailPulls has pulls of an image fail with the error.
func (r *Runtime) FailPulls(image string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.absent[image] = err
}

// RefusePulls makes pulls of an image that is there fail with the error.
func (r *Runtime) RefusePulls(image string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused[image] = err
}

// Lose forgets all sandboxes and containers, as a machine that restarts does.
func (r *Runtime) Lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandboxes, r.containers = map[string]*sandbox{}, map[string]*container{}
}

// Created returns the names of all containers that were ever created, in order.
func (r *Runtime) Created() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.created)
}

// Calls returns the calls in their order.
func (r *Runtime) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Containers returns the configurations of the containers.
func (r *Runtime) Containers() (out []*runtimeapi.ContainerConfig) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		out = append(out, c.config)
	}
	return out
}

// Sandboxes returns the configurations of the sandboxes that there are.
func (r *Runtime) Sandboxes() []*runtimeapi.PodSandboxConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.PodSandboxConfig
	for _, id := range slices.Sorted(maps.Keys(r.sandboxes)) {
		out = append(out, r.sandboxes[id].config)
	}
	return out
}

// Exit ends the newest running container of that name with the code, and
// reports whether there was one.
func (r *Runtime) Exit(name string, code int32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var newest *container
	for _, c := range r.containers {
		if c.Metadata.Name == name && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING && (newest == nil || c.CreatedAt > newest.CreatedAt) {
			newest = c
		}
	}
	if newest == nil {
		return false
	}
	r.exit(newest, code)
	return true
}

func (r *Runtime) exit(c *container, code int32) {
	c.State, c.ExitCode, c.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, code, r.now()
	if c.Reason = "Error"; code == 0 {
		c.Reason = "Completed"
	}
	r.tell(c.sandbox)
}

// now never gives the same time twice, as clocks do not.
func (r *Runtime) now() int64 { r.n++; return time.Now().UnixNano() + int64(r.n) }

func (r *Runtime) id(kind string) string { r.n++; return fmt.Sprintf("%s-%04d", kind, r.n) }

func (r *Runtime) tell(id string) {
	s := r.sandboxes[id]
	if s == nil {
		return
	}
	for w := range r.watchers {
		w <- &runtimeapi.ContainerEventResponse{PodSandboxStatus: s.PodSandboxStatus}
	}
}

func notFound(id string) error { return status.Errorf(codes.NotFound, "%s is not known", id) }

// events is the stream of a watcher.
type events struct {
	grpc.ClientStream
	ctx context.Context
	c   chan *runtimeapi.ContainerEventResponse
}

func (e *events) Recv() (*runtimeapi.ContainerEventResponse, error) {
	select {
	case ev := <-e.c:
		return ev, nil
	case <-e.ctx.Done():
		return nil, e.ctx.Err()
	}
}

func (r *Runtime) GetContainerEvents(ctx context.Context, _ *runtimeapi.GetEventsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[runtimeapi.ContainerEventResponse], error) {
	e := &events{ctx: ctx, c: make(chan *runtimeapi.ContainerEventResponse, 1000)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers[e.c] = true
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, e.c)
	})
	return e, nil
}

func (r *Runtime) Status(context.Context, *runtimeapi.StatusRequest, ...grpc.CallOption) (*runtimeapi.StatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status, nil
}

func (r *Runtime) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest, ...grpc.CallOption) (*runtimeapi.RuntimeConfigResponse, error) {
	return nil, status.Error(codes.Unimplemented, "no configuration")
}

func (r *Runtime) RunPodSandbox(_ context.Context, in *runtimeapi.RunPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.RunPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.id("sandbox")
	r.sandboxes[id] = &sandbox{config: in.Config, PodSandboxStatus: &runtimeapi.PodSandboxStatus{
		Id: id, Metadata: in.Config.Metadata, State: runtimeapi.PodSandboxState_SANDBOX_READY, CreatedAt: r.now(), Labels: in.Config.Labels,
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: fmt.Sprintf("10.0.0.%d", r.n%250+1)},
	}}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (r *Runtime) StopPodSandbox(_ context.Context, in *runtimeapi.StopPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.StopPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sandboxes[in.PodSandboxId]; s != nil {
		s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		for _, c := range r.containers {
			if c.sandbox == s.Id && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				r.exit(c, 137)
			}
		}
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

func (r *Runtime) RemovePodSandbox(_ context.Context, in *runtimeapi.RemovePodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.RemovePodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sandboxes, in.PodSandboxId)
	maps.DeleteFunc(r.containers, func(_ string, c *container) bool { return c.sandbox == in.PodSandboxId })
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (r *Runtime) PodSandboxStatus(_ context.Context, in *runtimeapi.PodSandboxStatusRequest, _ ...grpc.CallOption) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[in.PodSandboxId]
	if s == nil {
		return nil, notFound(in.PodSandboxId)
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{
		Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels, Network: s.Network,
	}}, nil
}

func selected(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func (r *Runtime) ListPodSandbox(_ context.Context, in *runtimeapi.ListPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &runtimeapi.ListPodSandboxResponse{}
	for _, s := range r.sandboxes {
		if selected(s.Labels, in.GetFilter().GetLabelSelector()) {
			out.Items = append(out.Items, &runtimeapi.PodSandbox{Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels})
		}
	}
	slices.SortFunc(out.Items, func(a, b *runtimeapi.PodSandbox) int { return cmp.Compare(a.Id, b.Id) })
	return out, nil
}

func (r *Runtime) CreateContainer(_ context.Context, in *runtimeapi.CreateContainerRequest, _ ...grpc.CallOption) (*runtimeapi.CreateContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sandboxes[in.PodSandboxId] == nil {
		return nil, notFound(in.PodSandboxId)
	}
	id := r.id("container")
	r.created = append(r.created, in.Config.Metadata.Name)
	r.containers[id] = &container{sandbox: in.PodSandboxId, config: in.Config, ContainerStatus: &runtimeapi.ContainerStatus{
		Id: id, Metadata: in.Config.Metadata, State: runtimeapi.ContainerState_CONTAINER_CREATED, CreatedAt: r.now(),
		Image: in.Config.Image, ImageRef: in.Config.Image.Image, Labels: in.Config.Labels, Annotations: in.Config.Annotations,
	}}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

func (r *Runtime) StartContainer(_ context.Context, in *runtimeapi.StartContainerRequest, _ ...grpc.CallOption) (*runtimeapi.StartContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[in.ContainerId]
	if c == nil {
		return nil, notFound(in.ContainerId)
	}
	c.State, c.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, r.now()
	r.tell(c.sandbox)
	return &runtimeapi.StartContainerResponse{}, nil
}

func (r *Runtime) StopContainer(_ context.Context, in *runtimeapi.StopContainerRequest, _ ...grpc.CallOption) (*runtimeapi.StopContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[in.ContainerId]; c != nil && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		r.calls = append(r.calls, Call{"stop", c.Metadata.Name, time.Now(), in.Timeout})
		r.exit(c, 137)
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

func (r *Runtime) RemoveContainer(_ context.Context, in *runtimeapi.RemoveContainerRequest, _ ...grpc.CallOption) (*runtimeapi.RemoveContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.containers, in.ContainerId)
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (r *Runtime) ListContainers(_ context.Context, in *runtimeapi.ListContainersRequest, _ ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &runtimeapi.ListContainersResponse{}
	for _, c := range r.containers {
		if selected(c.Labels, in.GetFilter().GetLabelSelector()) {
			out.Containers = append(out.Containers, &runtimeapi.Container{Id: c.Id, PodSandboxId: c.sandbox, Metadata: c.Metadata, State: c.State, CreatedAt: c.CreatedAt, Labels: c.Labels})
		}
	}
	slices.SortFunc(out.Containers, func(a, b *runtimeapi.Container) int { return cmp.Compare(a.Id, b.Id) })
	return out, nil
}

func (r *Runtime) ContainerStatus(_ context.Context, in *runtimeapi.ContainerStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[in.ContainerId]
	if c == nil {
		return nil, notFound(in.ContainerId)
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{
		Id: c.Id, Metadata: c.Metadata, State: c.State, CreatedAt: c.CreatedAt, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt, ExitCode: c.ExitCode,
		Image: c.Image, ImageRef: c.ImageRef, Reason: c.Reason, Labels: c.Labels, Annotations: c.Annotations,
	}}, nil
}

func (r *Runtime) UpdateContainerResources(_ context.Context, in *runtimeapi.UpdateContainerResourcesRequest, _ ...grpc.CallOption) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[in.ContainerId]
	if c == nil {
		return nil, notFound(in.ContainerId)
	}
	c.config.Linux.Resources = in.Linux
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

func (r *Runtime) ImageStatus(_ context.Context, in *runtimeapi.ImageStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ImageStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.absent[in.Image.Image] != nil {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: in.Image.Image}}, nil
}

func (r *Runtime) PullImage(_ context.Context, in *runtimeapi.PullImageRequest, _ ...grpc.CallOption) (*runtimeapi.PullImageResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmp.Or(r.absent[in.Image.Image], r.refused[in.Image.Image]); err != nil {
		return nil, err
	}
	return &runtimeapi.PullImageResponse{ImageRef: in.Image.Image}, nil
}

func (r *Runtime) ListImages(context.Context, *runtimeapi.ListImagesRequest, ...grpc.CallOption) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{}, nil
}

func (r *Runtime) ReopenContainerLog(context.Context, *runtimeapi.ReopenContainerLogRequest, ...grpc.CallOption) (*runtimeapi.ReopenContainerLogResponse, error) {
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

func (r *Runtime) ExecSync(_ context.Context, in *runtimeapi.ExecSyncRequest, _ ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[in.ContainerId]; c != nil {
		r.calls = append(r.calls, Call{"exec", c.Metadata.Name, time.Now(), in.Timeout})
	}
	return &runtimeapi.ExecSyncResponse{}, nil
}

// ListContainerStats has stats of no container.
func (r *Runtime) ListContainerStats(context.Context, *runtimeapi.ListContainerStatsRequest, ...grpc.CallOption) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{}, nil
}

// ImageFsInfo reports that images are on the machine's root file system.
func (r *Runtime) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest, ...grpc.CallOption) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/"}}}}, nil
}
