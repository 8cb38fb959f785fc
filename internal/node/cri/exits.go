package cri

import (
	"context"
	"slices"
	"time"

	"github.com/containerd/containerd/api/events"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"k8s.io/utils/clock"
)

// settling are the pauses after which a list is tried again that does not have
// the change of an event yet: CRI gets events no sooner than its clients.
var settling = []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond}

// exits follows containerd's own events, of which the ends of containers are
// enough: the agent causes all other events itself.
func (c *Client) exits(ctx context.Context, clk clock.Clock, seen map[string]podState, changed func(string)) error {
	if c.RuntimeName != "containerd" {
		return status.Error(codes.Unimplemented, "the runtime has no events")
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "k8s.io"))
	defer cancel()
	stream, err := eventsapi.NewEventsClient(c.conn).Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: []string{`topic=="/tasks/exit"`}})
	if err != nil {
		return err
	}
	exited, failed := make(chan string, 64), make(chan error, 1)
	go func() {
		for {
			ev, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			if id, ok := ofContainer(ev.GetEvent().GetValue()); ok {
				select {
				case exited <- id:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	// What happened while no stream was open is found by one list.
	c.relist(ctx, seen, changed)
	for {
		select {
		case id := <-exited:
			ids := []string{id}
			for len(exited) > 0 {
				ids = append(ids, <-exited)
			}
			for _, d := range settling {
				if d > 0 {
					<-clk.After(d)
				}
				c.relist(ctx, seen, changed)
				if ids = slices.DeleteFunc(ids, func(id string) bool { return hasEnded(seen, id) }); len(ids) == 0 || ctx.Err() != nil {
					break
				}
			}
		case <-clk.After(safetyPeriod):
			c.relist(ctx, seen, changed)
		case err := <-failed:
			return err
		}
	}
}

// hasEnded reports whether the last list showed the container or sandbox as ended,
// or not at all.
func hasEnded(seen map[string]podState, id string) bool {
	for _, states := range seen {
		if s, ok := states[id]; ok {
			return s == ended
		}
	}
	return true
}

// ofContainer returns the container of a TaskExit, if it is its first process
// that has ended, not one that was executed in it.
func ofContainer(value []byte) (string, bool) {
	var exit events.TaskExit
	if err := proto.Unmarshal(value, &exit); err != nil {
		return "", false
	}
	return exit.ContainerID, exit.ID == exit.ContainerID
}
