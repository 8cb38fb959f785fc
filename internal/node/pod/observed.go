package pod

import (
	"context"
	"sort"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/restart"
)

// observed holds the sandboxes and containers that the runtime has of one pod.
type observed struct {
	sandboxes  []*runtimeapi.PodSandboxStatus           // newest first
	containers map[string][]*runtimeapi.ContainerStatus // by name, newest first
	sandboxOf  map[string]string                        // container ID to sandbox ID
	// anew is when all containers were last asked to start anew, in nanoseconds as
	// the runtime counts, and anewBy the container whose exit asked for it; 0 if
	// none has.
	anew   int64
	anewBy string
}

// ready returns the newest sandbox if it is ready.
func (o *observed) ready() *runtimeapi.PodSandboxStatus {
	if len(o.sandboxes) > 0 && o.sandboxes[0].State == runtimeapi.PodSandboxState_SANDBOX_READY {
		return o.sandboxes[0]
	}
	return nil
}

// newest returns the newest container of that name, or nil.
func (o *observed) newest(name string) *runtimeapi.ContainerStatus {
	if l := o.containers[name]; len(l) > 0 {
		return l[0]
	}
	return nil
}

// current returns the newest container of that name if it is in the newest sandbox
// and not from before all containers were asked to start anew.
func (o *observed) current(name string) *runtimeapi.ContainerStatus {
	c := o.newest(name)
	if c == nil || len(o.sandboxes) == 0 || o.sandboxOf[c.Id] != o.sandboxes[0].Id || c.CreatedAt < o.anew {
		return nil
	}
	return c
}

// restartAll notes the last exit in the newest sandbox that has all containers
// of the pod start anew. The runtime keeps the container that ended so at least
// until all others have been created again, so that nothing else need be kept.
func (o *observed) restartAll(pod *v1.Pod) {
	for _, c := range podspec.Containers(pod) {
		for _, st := range o.containers[c.Name] {
			if st.State == runtimeapi.ContainerState_CONTAINER_EXITED && len(o.sandboxes) > 0 && o.sandboxOf[st.Id] == o.sandboxes[0].Id &&
				restart.After(&pod.Spec, c, st.ExitCode) == restart.Pod {
				if st.FinishedAt > o.anew {
					o.anew, o.anewBy = st.FinishedAt, c.Name
				}
			}
		}
	}
}

// stale reports whether all containers are to start anew and none has yet.
func (o *observed) stale(pod *v1.Pod) bool {
	for name, l := range o.containers {
		if l[0].CreatedAt >= o.anew && !podspec.IsEphemeral(pod, name) {
			return false
		}
	}
	return o.anew > 0
}

func (o *observed) running() []*runtimeapi.ContainerStatus {
	var out []*runtimeapi.ContainerStatus
	for _, l := range o.containers {
		for _, c := range l {
			if c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				out = append(out, c)
			}
		}
	}
	return out
}

// ips returns the pod's addresses as the sandbox has them.
func (o *observed) ips() []string {
	if len(o.sandboxes) == 0 {
		return nil
	}
	n := o.sandboxes[0].GetNetwork()
	if n.GetIp() == "" {
		return nil
	}
	ips := []string{n.Ip}
	for _, a := range n.AdditionalIps {
		ips = append(ips, a.Ip)
	}
	return ips
}

// history reads what the runtime has of a pod.
type history struct {
	*base
	mu sync.Mutex
	// exited are the statuses of containers that have exited, by ID.
	exited map[string]*runtimeapi.ContainerStatus
}

func newHistory(b *base) *history {
	return &history{base: b, exited: map[string]*runtimeapi.ContainerStatus{}}
}

// observe reads the pod from the runtime. The status of a container that has
// exited does not change again and is read once.
func (h *history) observe(ctx context.Context) (*observed, error) {
	sel := map[string]string{cri.PodUIDLabel: string(h.uid)}
	sandboxes, err := h.CRI.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: sel}})
	if err != nil {
		return nil, err
	}
	o := &observed{containers: map[string][]*runtimeapi.ContainerStatus{}, sandboxOf: map[string]string{}}
	for _, s := range sandboxes.Items {
		r, err := h.CRI.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.Id})
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		o.sandboxes = append(o.sandboxes, r.Status)
	}
	sort.Slice(o.sandboxes, func(i, j int) bool { return o.sandboxes[i].CreatedAt > o.sandboxes[j].CreatedAt })
	if len(o.sandboxes) == 0 {
		return o, nil
	}
	list, err := h.CRI.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: sel}})
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	exited := make(map[string]*runtimeapi.ContainerStatus, len(h.exited))
	for _, c := range list.Containers {
		st := h.exited[c.Id]
		if st == nil {
			r, err := h.CRI.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.Id})
			if status.Code(err) == codes.NotFound {
				continue
			}
			if err != nil {
				return nil, err
			}
			st = r.Status
		}
		if st.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			exited[c.Id] = st
		}
		name := c.Labels[cri.ContainerNameLabel]
		o.sandboxOf[c.Id] = c.PodSandboxId
		o.containers[name] = append(o.containers[name], st)
	}
	h.exited = exited
	for _, l := range o.containers {
		sort.Slice(l, func(i, j int) bool { return l[i].CreatedAt > l[j].CreatedAt })
	}
	return o, nil
}
