package topology

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The policies.
const (
	None       = "none"
	BestEffort = "best-effort"
	Restricted = "restricted"
	Single     = "single-numa-node"
)

// The scopes: what is given nodes of its own.
const (
	Container = "container"
	Pod       = "pod"
)

// Provider gives containers some kind of resource for themselves.
type Provider interface {
	// Hints returns on which nodes each resource of the container could be given, by
	// name: nil where all nodes are alike, empty where it cannot be given.
	Hints(pod *v1.Pod, c *v1.Container) map[string][]Hint
	// PodHints returns the same for all containers of the pod together.
	PodHints(pod *v1.Pod) map[string][]Hint
	// Allocate gives a container what it asks for, on the nodes of the hint if they
	// have it. A container that has been given it keeps it.
	Allocate(pod *v1.Pod, c *v1.Container, h Hint) error
	// Free takes back what pods have that are not to keep it.
	Free(keep func(types.UID) bool) error
}

// NotAligned is the reason of a pod whose resources cannot be on the same nodes.
const NotAligned = "TopologyAffinityError"

// Refused is why a pod cannot have its resources: the reason and message of its status.
type Refused struct{ Reason, Message string }

// Error implements error.
func (r *Refused) Error() string { return r.Message }

// Config configures a Manager.
type Config struct {
	// Policy is one of the policies, None where empty; Scope one of the scopes, Container
	// where empty.
	Policy, Scope string
	// Options are the policy's: prefer-closest-numa-nodes, max-allowable-numa-nodes.
	Options map[string]string
	// Nodes are the machine's NUMA nodes. Distances are those of each to all, in their
	// order, as the firmware tells them.
	Nodes     []int
	Distances map[int][]uint64
}

// Manager gives pods their resources.
type Manager struct {
	Config
	Providers []Provider

	merger merger
	mu     sync.Mutex // one pod at a time
}

// defaultMaxNodes is how many nodes a machine may have: the sets of them are tried one
// by one.
const defaultMaxNodes = 8

// New checks the configuration.
func New(c Config) (*Manager, error) {
	if c.Policy == "" {
		c.Policy = None
	}
	if c.Scope == "" {
		c.Scope = Container
	}
	if !slices.Contains([]string{None, BestEffort, Restricted, Single}, c.Policy) {
		return nil, fmt.Errorf("unknown policy: %q", c.Policy)
	}
	if c.Scope != Container && c.Scope != Pod {
		return nil, fmt.Errorf("unknown scope: %q", c.Scope)
	}
	most, closest := defaultMaxNodes, false
	for _, name := range slices.Sorted(maps.Keys(c.Options)) {
		value := c.Options[name]
		var err error
		switch name {
		case "prefer-closest-numa-nodes":
			closest, err = strconv.ParseBool(value)
		case "max-allowable-numa-nodes":
			if most, err = strconv.Atoi(value); err == nil && most < defaultMaxNodes {
				err = fmt.Errorf("the minimum value of %q should not be less than %v", name, defaultMaxNodes)
			}
		default:
			return nil, fmt.Errorf("unknown Topology Manager Policy option: %q", name)
		}
		if err != nil {
			return nil, fmt.Errorf("bad value for option %q: %w", name, err)
		}
	}
	m := &Manager{Config: c}
	if c.Policy == None {
		return m, nil
	}
	if n := len(c.Nodes); n > most || n > maxNodes {
		return nil, fmt.Errorf("unsupported on machines with more than %v NUMA Nodes", min(most, maxNodes))
	}
	m.merger.all = MaskOf(c.Nodes...)
	if closest {
		m.merger.closest = m.distance
	}
	return m, nil
}

// distance returns the mean distance between the nodes of a set.
func (m *Manager) distance(nodes Mask) float64 {
	sum, n := 0.0, 0
	for _, a := range nodes.Nodes() {
		for i, b := range m.Nodes {
			if nodes.Has(b) && i < len(m.Distances[a]) {
				sum += float64(m.Distances[a][i])
				n++
			}
		}
	}
	return sum / float64(max(n, 1))
}

// Admit gives the containers of a pod what each is to have for itself. The error is a
// Refused where a policy or a provider does not want that; then the pod has nothing.
func (m *Manager) Admit(pod *v1.Pod) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.allocate(pod)
	if err != nil {
		err = errors.Join(err, m.free(func(uid types.UID) bool { return uid != pod.UID }))
	}
	return err
}

// Restore gives a pod that runs already what it has not been given: an agent before this
// one has, or had another policy. The pod keeps what it has where that fails.
func (m *Manager) Restore(pod *v1.Pod) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, cs := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			for _, p := range m.Providers {
				errs = append(errs, p.Allocate(pod, &cs[i], Hint{}))
			}
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) allocate(pod *v1.Pod) error {
	hint, err := Hint{}, error(nil)
	if m.Policy != None && m.Scope == Pod {
		if hint, err = m.choose(func(p Provider) map[string][]Hint { return p.PodHints(pod) }); err != nil {
			return err
		}
	}
	for _, cs := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			if m.Policy != None && m.Scope == Container {
				if hint, err = m.choose(func(p Provider) map[string][]Hint { return p.Hints(pod, &cs[i]) }); err != nil {
					return err
				}
			}
			for _, p := range m.Providers {
				if err := p.Allocate(pod, &cs[i], hint); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// choose merges what the providers say by the policy.
func (m *Manager) choose(ask func(Provider) map[string][]Hint) (Hint, error) {
	var said []map[string][]Hint
	for _, p := range m.Providers {
		said = append(said, ask(p))
	}
	lists := filter(said)
	if m.Policy == Single {
		for i, l := range lists {
			lists[i] = slices.DeleteFunc(slices.Clone(l), func(h Hint) bool { return !h.Preferred || h.Nodes.Count() > 1 })
		}
	}
	best := m.merger.merge(lists)
	if m.Policy == Single && best.Nodes == m.merger.all {
		best.Nodes = 0
	}
	if !best.Preferred && m.Policy != BestEffort {
		return best, &Refused{NotAligned, "Resources cannot be allocated with Topology locality"}
	}
	return best, nil
}

// Free takes back what the pod has.
func (m *Manager) Free(pod types.UID) error {
	return m.Sweep(func(uid types.UID) bool { return uid != pod })
}

// Sweep takes back what pods have that are not known.
func (m *Manager) Sweep(known func(types.UID) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free(known)
}

func (m *Manager) free(keep func(types.UID) bool) error {
	var errs []error
	for _, p := range m.Providers {
		errs = append(errs, p.Free(keep))
	}
	return errors.Join(errs...)
}
