package scheduler

import (
	"context"
	"encoding/binary"
	"slices"

	v1 "k8s.io/api/core/v1"

	fw "keelson.dev/keelson/internal/scheduler/framework"
	"keelson.dev/keelson/internal/scheduler/plugins"
)

// maxEntries bounds what all classes hold together.
const maxEntries = 1 << 20

// classes are the classes of pods, by all that filters and scores read of a
// pod.
type classes struct {
	byKey map[string]*class
	// seen are keys met once: a class pays from its second pod on.
	seen map[string]struct{}
	uses int64
}

func newClasses() *classes { return &classes{byKey: map[string]*class{}, seen: map[string]struct{}{}} }

// find returns the class of a pod that the PreFilter plugins have let pass, or
// nil if the pod must be tried without one: a filter or score needs to know
// more than a class knows, or no like pod has been met.
func (cs *classes) find(ctx context.Context, p *profile, snap *snapshot, pod *v1.Pod, state *fw.CycleState) *class {
	for _, f := range p.wide {
		if !state.SkipFilter.Has(f.Name()) {
			return nil
		}
	}
	if pod.Spec.NodeName != "" || !p.interPod.PreScore(ctx, state, pod, nil).IsSkip() {
		return nil
	}
	soft, err := p.spread.Soft(pod)
	if err != nil {
		return nil
	}
	key := classKey(pod, state, soft)
	c := cs.byKey[key]
	if c == nil {
		if _, ok := cs.seen[key]; !ok {
			if len(cs.seen) >= 4096 {
				clear(cs.seen)
			}
			cs.seen[key] = struct{}{}
			return nil
		}
		delete(cs.seen, key)
		state := state.Clone()
		if p.preScore(ctx, state, pod, nil) != nil {
			return nil
		}
		cs.makeRoom(len(snap.list))
		c = newClass(p, snap, pod, state, soft)
		cs.byKey[key] = c
	}
	cs.uses++
	c.used = cs.uses
	return c
}

// makeRoom forgets the classes not used for longest until one more fits.
func (cs *classes) makeRoom(nodes int) {
	for most := max(4, maxEntries/max(nodes, 1)); len(cs.byKey) >= min(most, 1024); {
		var oldest string
		for k, c := range cs.byKey {
			if o := cs.byKey[oldest]; o == nil || c.used < o.used {
				oldest = k
			}
		}
		delete(cs.byKey, oldest)
	}
}

// classKey describes all that the plugins read of a pod that has a class.
func classKey(pod *v1.Pod, state *fw.CycleState, soft *plugins.Constraints) string {
	b := make([]byte, 0, 256)
	num := func(v int64) { b = binary.AppendVarint(b, v) }
	str := func(s string) {
		num(int64(len(s)))
		b = append(b, s...)
	}
	message := func(m interface{ Marshal() ([]byte, error) }) {
		out, err := m.Marshal()
		if err != nil {
			out = []byte(pod.UID) // it shares with no other
		}
		str(string(out))
	}
	r := plugins.Requests(state, pod)
	num(r.Requested.MilliCPU)
	num(r.Requested.Memory)
	num(r.Requested.EphemeralStorage)
	num(r.NonZeroCPU)
	num(r.NonZeroMemory)
	num(int64(len(r.Requested.Scalar)))
	for _, k := range sorted(r.Requested.Scalar) {
		str(string(k))
		num(r.Requested.Scalar[k])
	}
	num(int64(len(pod.Spec.NodeSelector)))
	for _, k := range sorted(pod.Spec.NodeSelector) {
		str(k)
		str(pod.Spec.NodeSelector[k])
	}
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		message(a.NodeAffinity)
	} else {
		num(0)
	}
	num(int64(len(pod.Spec.Tolerations)))
	for i := range pod.Spec.Tolerations {
		message(&pod.Spec.Tolerations[i])
	}
	ports := fw.HostPorts(pod)
	num(int64(len(ports)))
	for _, p := range ports {
		str(string(p.Protocol))
		str(p.IP)
		num(int64(p.Port))
	}
	for _, cs := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		num(int64(len(cs)))
		for i := range cs {
			str(cs[i].Image)
		}
	}
	if soft != nil {
		str(soft.String())
	}
	return string(b)
}

func sorted[K ~string, V any](m map[K]V) []K {
	if len(m) == 0 {
		return nil
	}
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
