package cri

import (
	"testing"

	"github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"
)

func TestExitsOfContainers(t *testing.T) {
	for _, c := range []struct {
		exit *events.TaskExit
		want bool
	}{
		{&events.TaskExit{ContainerID: "a", ID: "a", Pid: 1}, true},
		{&events.TaskExit{ContainerID: "a", ID: "exec-1", Pid: 2}, false},
	} {
		b, err := proto.Marshal(c.exit)
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := ofContainer(b); ok != c.want || id != "a" {
			t.Errorf("%v: %q, %v; want %v", c.exit, id, ok, c.want)
		}
	}
	if _, ok := ofContainer([]byte{0xff}); ok {
		t.Error("what is no event is taken for an exit")
	}
	seen := map[string]podState{"pod": {"running": "CONTAINER_RUNNING", "over": ended}}
	for id, want := range map[string]bool{"running": false, "over": true, "absent": true} {
		if got := hasEnded(seen, id); got != want {
			t.Errorf("%s has ended: %v, want %v", id, got, want)
		}
	}
}
