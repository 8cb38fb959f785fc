package eviction

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal is something that may run short.
type Signal string

// The signals, by upstream's names.
const (
	MemoryAvailable            Signal = "memory.available"
	AllocatableMemoryAvailable Signal = "allocatableMemory.available"
	NodeFsAvailable            Signal = "nodefs.available"
	NodeFsInodesFree           Signal = "nodefs.inodesFree"
	ImageFsAvailable           Signal = "imagefs.available"
	ImageFsInodesFree          Signal = "imagefs.inodesFree"
	ContainerFsAvailable       Signal = "containerfs.available"
	ContainerFsInodesFree      Signal = "containerfs.inodesFree"
	PIDAvailable               Signal = "pid.available"
)

// What signals are of, beside the API's names of resources.
const (
	inodes v1.ResourceName = "inodes"
	pids   v1.ResourceName = "pids"
)

// signals gives each signal's resource and the condition that its node is in
// when it runs short.
var signals = map[Signal]struct {
	resource  v1.ResourceName
	condition v1.NodeConditionType
}{
	MemoryAvailable:            {v1.ResourceMemory, v1.NodeMemoryPressure},
	AllocatableMemoryAvailable: {v1.ResourceMemory, v1.NodeMemoryPressure},
	NodeFsAvailable:            {v1.ResourceEphemeralStorage, v1.NodeDiskPressure},
	NodeFsInodesFree:           {inodes, v1.NodeDiskPressure},
	ImageFsAvailable:           {v1.ResourceEphemeralStorage, v1.NodeDiskPressure},
	ImageFsInodesFree:          {inodes, v1.NodeDiskPressure},
	ContainerFsAvailable:       {v1.ResourceEphemeralStorage, v1.NodeDiskPressure},
	ContainerFsInodesFree:      {inodes, v1.NodeDiskPressure},
	PIDAvailable:               {pids, v1.NodePIDPressure},
}

// DefaultHard are the default hard thresholds: the kubelet's on Linux, but for
// the disk's. The kubelet wants 10 % of the node's file system and 15 % of the
// images' to be free; a laptop or a small server whose disk is seven eighths
// full would then run no pod at all, with a hundred gigabytes left.
var DefaultHard = map[string]string{
	string(MemoryAvailable): "100Mi", string(NodeFsAvailable): "5%", string(NodeFsInodesFree): "5%",
	string(ImageFsAvailable): "5%", string(ImageFsInodesFree): "5%",
}

// Amount is a quantity, or a fraction of what there is.
type Amount struct {
	Quantity *resource.Quantity
	Fraction float64
}

// Of returns the amount where there is capacity of it.
func (a Amount) Of(capacity int64) int64 {
	if a.Quantity != nil {
		return a.Quantity.Value()
	}
	return int64(float64(capacity) * a.Fraction)
}

// Threshold is the amount of a signal below which pods are evicted.
type Threshold struct {
	Signal Signal
	Value  Amount
	// Grace is how long less may be left before a pod is evicted; 0 makes the
	// threshold a hard one.
	Grace time.Duration
	// Reclaim is how much more than Value has to be left for the pressure to be
	// over.
	Reclaim Amount
}

// Hard reports whether pods are evicted as soon as the threshold is crossed.
func (t *Threshold) Hard() bool { return t.Grace == 0 }

// Settings holds the eviction settings of a KubeletConfiguration, in the form
// of the flags of the same names.
type Settings struct {
	Hard, Soft, SoftGrace, MinimumReclaim map[string]string
	// MaxPodGrace is the most that pods are given to end, in seconds, where a
	// soft threshold evicts them.
	MaxPodGrace int64
	// Transition is how long a condition stays after its last cause.
	Transition time.Duration
}

// DefaultTransition is the kubelet's default of Settings.Transition.
const DefaultTransition = 5 * time.Minute

// Thresholds parses the settings. With pods' cgroups limited to what is
// allocatable, the hard threshold of memory is that of the pods' memory, too.
func (s *Settings) Thresholds() ([]Threshold, error) {
	var out []Threshold
	for _, list := range []struct {
		values map[string]string
		soft   bool
	}{{s.Hard, false}, {s.Soft, true}} {
		for _, name := range slices.Sorted(maps.Keys(list.values)) {
			t := Threshold{Signal: Signal(name)}
			ok, err := t.parse(list.values[name])
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			if list.soft {
				grace, given := s.SoftGrace[name]
				if !given {
					return nil, fmt.Errorf("grace period must be specified for the soft eviction threshold %v", name)
				}
				if t.Grace, err = time.ParseDuration(grace); err != nil {
					return nil, fmt.Errorf("eviction grace period of %s: %w", name, err)
				}
				if t.Grace < 0 {
					return nil, fmt.Errorf("invalid eviction grace period specified: %v, must be a positive value", grace)
				}
			}
			if r, given := s.MinimumReclaim[name]; given {
				if t.Reclaim, err = parseAmount(r); err != nil {
					return nil, fmt.Errorf("eviction minimum reclaim of %s: %w", name, err)
				}
			}
			out = append(out, t)
		}
	}
	for _, m := range []map[string]string{s.SoftGrace, s.MinimumReclaim} {
		for name := range m {
			if _, ok := signals[Signal(name)]; !ok {
				return nil, fmt.Errorf("unsupported eviction signal %v", name)
			}
		}
	}
	for _, t := range out {
		if t.Signal == MemoryAvailable && t.Hard() {
			t.Signal = AllocatableMemoryAvailable
			out = append(out, t)
			break
		}
	}
	return out, nil
}

// parse reads a threshold's value; 0% and 100% stand for none.
func (t *Threshold) parse(value string) (bool, error) {
	if _, ok := signals[t.Signal]; !ok {
		return false, fmt.Errorf("unsupported eviction signal %v", t.Signal)
	}
	if value == "0%" || value == "100%" {
		return false, nil
	}
	a, err := parseAmount(value)
	switch {
	case err != nil:
		return false, fmt.Errorf("eviction threshold %v: %w", t.Signal, err)
	case a.Fraction > 1:
		return false, fmt.Errorf("eviction percentage threshold %v must be <= 100%%: %s", t.Signal, value)
	case a.Quantity != nil && a.Quantity.Sign() == 0:
		return false, fmt.Errorf("eviction threshold %v must be positive: %s", t.Signal, value)
	}
	t.Value = a
	return true, nil
}

// parseAmount reads a quantity or a percentage, neither below zero.
func parseAmount(s string) (Amount, error) {
	if p, ok := strings.CutSuffix(s, "%"); ok {
		f, err := strconv.ParseFloat(p, 32)
		if err != nil {
			return Amount{}, err
		}
		if f < 0 {
			return Amount{}, fmt.Errorf("must be >= 0%%: %s", s)
		}
		return Amount{Fraction: f / 100}, nil
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return Amount{}, fmt.Errorf("%q: %w", s, err)
	}
	if q.Sign() < 0 {
		return Amount{}, fmt.Errorf("must be positive: %s", s)
	}
	return Amount{Quantity: &q}, nil
}

// Reserved returns the memory and ephemeral storage that the hard thresholds keep
// from the pods of a node with that capacity.
func Reserved(thresholds []Threshold, capacity v1.ResourceList) v1.ResourceList {
	out := v1.ResourceList{}
	for i := range thresholds {
		t := &thresholds[i]
		if !t.Hard() {
			continue
		}
		switch t.Signal {
		case MemoryAvailable:
			have := capacity[v1.ResourceMemory]
			out[v1.ResourceMemory] = *resource.NewQuantity(t.Value.Of(have.Value()), resource.BinarySI)
		case NodeFsAvailable:
			have := capacity[v1.ResourceEphemeralStorage]
			out[v1.ResourceEphemeralStorage] = *resource.NewQuantity(t.Value.Of(have.Value()), resource.BinarySI)
		}
	}
	return out
}
