package exclusive

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/cpuset"

	"keelson.dev/keelson/internal/node/cpumanager"
	"keelson.dev/keelson/internal/node/memorymanager"
	"keelson.dev/keelson/internal/node/topology"
)

// Options configure the exclusive resources of containers. An empty policy is upstream's
// default.
type Options struct {
	CPUPolicy  string
	CPUOptions map[string]string
	// CPUPeriod is how often containers that are not on their CPUs are put there,
	// DefaultCPUPeriod where 0.
	CPUPeriod time.Duration
	// ReservedCPUs are kept from containers, in place of as many as are reserved.
	ReservedCPUs    cpuset.CPUSet
	MemoryPolicy    string
	ReservedMemory  map[int]v1.ResourceList // by NUMA node
	TopologyPolicy  string
	TopologyScope   string
	TopologyOptions map[string]string
}

// DefaultCPUPeriod is a kubelet's default.
const DefaultCPUPeriod = 10 * time.Second

// AddFlags adds the kubelet's flags of them.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.CPUPolicy, "cpu-manager-policy", cpumanager.None, "policy of exclusive CPUs: none, or static for containers of Guaranteed pods that request whole CPUs")
	fs.StringToStringVar(&o.CPUOptions, "cpu-manager-policy-options", nil, "options of the static policy, like full-pcpus-only=true: also distribute-cpus-across-numa, strict-cpu-reservation, prefer-align-cpus-by-uncorecache")
	fs.DurationVar(&o.CPUPeriod, "cpu-manager-reconcile-period", DefaultCPUPeriod, "how often containers that are not on their CPUs are put there")
	fs.Var((*cpus)(&o.ReservedCPUs), "reserved-cpus", "CPUs that are kept from containers with CPUs for themselves, like 0-1,8; takes the place of the CPUs of --system-reserved and --kube-reserved")
	fs.StringVar(&o.MemoryPolicy, "memory-manager-policy", memorymanager.None, "policy of memory on NUMA nodes: None, or Static for containers of Guaranteed pods")
	fs.Var((*memory)(&o.ReservedMemory), "reserved-memory", "memory that is kept from containers on each NUMA node, like 0:memory=1Gi,hugepages-2Mi=64Mi;1:memory=2Gi, as much as all reservations and memory.available of --eviction-hard together")
	fs.StringVar(&o.TopologyPolicy, "topology-manager-policy", topology.None, "which pods the node takes by the NUMA nodes of their resources: none, best-effort, restricted, single-numa-node")
	fs.StringVar(&o.TopologyScope, "topology-manager-scope", topology.Container, "scope of the alignment to NUMA nodes: container, or pod")
	fs.StringToStringVar(&o.TopologyOptions, "topology-manager-policy-options", nil, "options of that policy: prefer-closest-numa-nodes=true, max-allowable-numa-nodes=NUMBER")
}

// Validate reports what is wrong with options, as far as that does not depend on the
// machine.
func (o *Options) Validate() error {
	if o.CPUPeriod < 0 {
		return fmt.Errorf("--cpu-manager-reconcile-period %v: give a time that is not negative", o.CPUPeriod)
	}
	_, err := topology.New(topology.Config{Policy: o.TopologyPolicy, Scope: o.TopologyScope, Options: o.TopologyOptions})
	return err
}

// Reserve returns the reservations of the system and of Kubernetes with the reserved CPUs
// in place of theirs, if there are any.
func (o *Options) Reserve(kube, system v1.ResourceList) (v1.ResourceList, v1.ResourceList) {
	n := o.ReservedCPUs.Size()
	if n == 0 {
		return kube, system
	}
	kube, system = maps.Clone(kube), maps.Clone(system)
	delete(kube, v1.ResourceCPU)
	if system == nil {
		system = v1.ResourceList{}
	}
	system[v1.ResourceCPU] = *resource.NewQuantity(int64(n), resource.DecimalSI)
	return kube, system
}

// cpus is a flag of CPUs.
type cpus cpuset.CPUSet

// Set implements pflag.Value.
func (c *cpus) Set(s string) error {
	v, err := cpuset.Parse(s)
	*c = cpus(v)
	return err
}

// String implements pflag.Value.
func (c *cpus) String() string { return cpuset.CPUSet(*c).String() }

// Type implements pflag.Value.
func (c *cpus) Type() string { return "string" }

// memory is a flag of memory by NUMA node.
type memory map[int]v1.ResourceList

// Set implements pflag.Value; what is given again is added to what was given before.
func (m *memory) Set(s string) error {
	out := memory{}
	maps.Copy(out, *m)
	for part := range strings.SplitSeq(s, ";") {
		if part == "" {
			continue
		}
		id, amounts, ok := strings.Cut(part, ":")
		node, err := strconv.Atoi(id)
		if !ok || err != nil || node < 0 {
			return fmt.Errorf("%q: give NODE:memory=AMOUNT, like 0:memory=1Gi", part)
		}
		list := maps.Clone(out[node])
		if list == nil {
			list = v1.ResourceList{}
		}
		for pair := range strings.SplitSeq(amounts, ",") {
			name, amount, _ := strings.Cut(pair, "=")
			q, err := resource.ParseQuantity(amount)
			switch r := v1.ResourceName(name); {
			case r != v1.ResourceMemory && !strings.HasPrefix(name, v1.ResourceHugePagesPrefix):
				return fmt.Errorf("resource name %q is neither memory nor huge pages", name)
			case err != nil:
				return fmt.Errorf("failed to parse quantity %q for %q resource: %w", amount, name, err)
			case q.Sign() <= 0:
				return fmt.Errorf("the reserved %s of NUMA node %d has to be greater than zero", name, node)
			default:
				if _, has := list[r]; has {
					return fmt.Errorf("the reserved %s of NUMA node %d is given twice", name, node)
				}
				list[r] = q
			}
		}
		out[node] = list
	}
	if len(out) == 0 {
		return errors.New("give NODE:memory=AMOUNT, like 0:memory=1Gi")
	}
	*m = out
	return nil
}

// String implements pflag.Value.
func (m *memory) String() string {
	var parts []string
	for _, node := range slices.Sorted(maps.Keys(*m)) {
		var amounts []string
		for _, name := range slices.Sorted(maps.Keys((*m)[node])) {
			q := (*m)[node][name]
			amounts = append(amounts, string(name)+"="+q.String())
		}
		parts = append(parts, strconv.Itoa(node)+":"+strings.Join(amounts, ","))
	}
	return strings.Join(parts, ";")
}

// Type implements pflag.Value.
func (m *memory) Type() string { return "string" }
