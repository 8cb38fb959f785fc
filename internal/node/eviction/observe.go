package eviction

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// observation is the capacity of a signal, and how much of it is left.
type observation struct {
	available, capacity int64
	at                  time.Time
}

// observe reads the signals from the stats.
func observe(s *statsapi.Summary) map[Signal]observation {
	out := map[Signal]observation{}
	if m := s.Node.Memory; m != nil && m.AvailableBytes != nil && m.WorkingSetBytes != nil {
		out[MemoryAvailable] = observation{int64(*m.AvailableBytes), int64(*m.AvailableBytes + *m.WorkingSetBytes), m.Time.Time}
	}
	for i := range s.Node.SystemContainers {
		c := &s.Node.SystemContainers[i]
		if m := c.Memory; c.Name == statsapi.SystemContainerPods && m != nil && m.AvailableBytes != nil && m.WorkingSetBytes != nil {
			out[AllocatableMemoryAvailable] = observation{int64(*m.AvailableBytes), int64(*m.AvailableBytes + *m.WorkingSetBytes), m.Time.Time}
		}
	}
	disk := func(f *statsapi.FsStats, space, files Signal) {
		if f == nil {
			return
		}
		if f.AvailableBytes != nil && f.CapacityBytes != nil {
			out[space] = observation{int64(*f.AvailableBytes), int64(*f.CapacityBytes), f.Time.Time}
		}
		if f.InodesFree != nil && f.Inodes != nil && *f.Inodes > 0 { // some file systems do not count them
			out[files] = observation{int64(*f.InodesFree), int64(*f.Inodes), f.Time.Time}
		}
	}
	disk(s.Node.Fs, NodeFsAvailable, NodeFsInodesFree)
	if r := s.Node.Runtime; r != nil {
		disk(r.ImageFs, ImageFsAvailable, ImageFsInodesFree)
		disk(r.ContainerFs, ContainerFsAvailable, ContainerFsInodesFree)
	}
	if l := s.Node.Rlimit; l != nil && l.MaxPID != nil && l.NumOfRunningProcesses != nil {
		out[PIDAvailable] = observation{*l.MaxPID - *l.NumOfRunningProcesses, *l.MaxPID, l.Time.Time}
	}
	return out
}

// crossed returns the thresholds of which less is left than they want; with reclaim,
// less than they want and their minimum reclaim.
func crossed(thresholds []Threshold, seen map[Signal]observation, reclaim bool) (out []Threshold) {
	for _, t := range thresholds {
		o, ok := seen[t.Signal]
		if !ok {
			continue
		}
		want := t.Value.Of(o.capacity)
		if reclaim {
			want += t.Reclaim.Of(o.capacity)
		}
		if o.available < want {
			out = append(out, t)
		}
	}
	return out
}

// quantity prints as upstream's messages do.
func (s Signal) quantity(n int64) *resource.Quantity {
	if r := signals[s].resource; r == inodes || r == pids {
		return resource.NewQuantity(n, resource.DecimalSI)
	}
	return resource.NewQuantity(n, resource.BinarySI)
}
