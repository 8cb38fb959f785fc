package cri

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// PodUIDLabel is the label by which sandboxes and containers name their pod.
const PodUIDLabel = "io.kubernetes.pod.uid"

// PodGraceAnnotation is the annotation with which containers carry the grace
// period of their pod, in seconds.
const PodGraceAnnotation = "io.kubernetes.pod.terminationGracePeriod"

const (
	// relistPeriod is how often a runtime without any events is listed, and
	// safetyPeriod how often one is whose events are not CRI's.
	relistPeriod = time.Second
	safetyPeriod = 30 * time.Second
	// reconnectDelay is the pause before a broken event stream is reopened.
	reconnectDelay = time.Second
)

// WatchPods calls changed with the UID of each pod that has had a change in
// the runtime, until ctx ends. It uses the runtime's event stream; a containerd
// before 1.7 has one of its own only. Where there is none, or while it is
// broken, it relists and compares. It is allowed to report a pod that has not
// changed.
func (c *Client) WatchPods(ctx context.Context, clk clock.Clock, changed func(podUID string)) {
	log := klog.FromContext(ctx)
	seen := map[string]podState{}
	for ctx.Err() == nil {
		err := c.stream(ctx, seen, changed)
		if status.Code(err) == codes.Unimplemented {
			err = c.exits(ctx, clk, seen, changed)
		}
		if ctx.Err() != nil {
			return
		}
		delay := reconnectDelay
		if status.Code(err) == codes.Unimplemented {
			delay = relistPeriod
		} else {
			log.V(2).Info("Container event stream ended, relisting", "err", err)
		}
		c.relist(ctx, seen, changed)
		select {
		case <-ctx.Done():
		case <-clk.After(delay):
		}
	}
}

func (c *Client) stream(ctx context.Context, seen map[string]podState, changed func(string)) error {
	events, err := c.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return err
	}
	// What happened while no stream was open is found by one list.
	c.relist(ctx, seen, changed)
	for {
		ev, err := events.Recv()
		if err != nil {
			return err
		}
		if uid := ev.GetPodSandboxStatus().GetMetadata().GetUid(); uid != "" {
			changed(uid)
		} else {
			c.relist(ctx, seen, changed)
		}
	}
}

// podState is the states of a pod's sandboxes and containers by ID.
type podState map[string]string

// ended is the state of a container or a sandbox that has.
const ended = "ended"

// relist reports the pods that differ from seen.
func (c *Client) relist(ctx context.Context, seen map[string]podState, changed func(string)) {
	begun := time.Now()
	sandboxes, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return
	}
	containers, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return
	}
	if c.Relisted != nil {
		c.Relisted(time.Since(begun))
	}
	now := map[string]podState{}
	add := func(uid, id, state string) {
		if uid == "" {
			return
		}
		if now[uid] == nil {
			now[uid] = podState{}
		}
		now[uid][id] = state
	}
	for _, s := range sandboxes.Items {
		state := s.State.String()
		if s.State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
			state = ended
		}
		add(s.GetMetadata().GetUid(), s.Id, state)
	}
	for _, k := range containers.Containers {
		state := k.State.String()
		if k.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			state = ended
		}
		add(k.Labels[PodUIDLabel], k.Id, state)
	}
	for uid, state := range now {
		if !state.equal(seen[uid]) {
			changed(uid)
		}
		seen[uid] = state
	}
	for uid := range seen {
		if _, ok := now[uid]; !ok {
			delete(seen, uid)
			changed(uid)
		}
	}
}

func (p podState) equal(q podState) bool {
	if len(p) != len(q) {
		return false
	}
	for id, s := range p {
		if t, ok := q[id]; !ok || t != s {
			return false
		}
	}
	return true
}
