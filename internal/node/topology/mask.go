package topology

import (
	"fmt"
	"math/bits"
)

// Mask is a set of NUMA nodes, one bit for each. The zero mask stands for any nodes.
type Mask uint64

// maxNodes is how many nodes a mask has room for.
const maxNodes = 64

// MaskOf returns the set of these nodes.
func MaskOf(nodes ...int) (m Mask) {
	for _, n := range nodes {
		m |= 1 << n
	}
	return m
}

// Count returns how many nodes are in the set.
func (m Mask) Count() int { return bits.OnesCount64(uint64(m)) }

// Has reports whether the node is in the set.
func (m Mask) Has(node int) bool { return node >= 0 && node < maxNodes && m&(1<<node) != 0 }

// Any reports whether one of the nodes is in the set.
func (m Mask) Any(nodes []int) bool {
	for _, n := range nodes {
		if m.Has(n) {
			return true
		}
	}
	return false
}

// Nodes returns the set's nodes in ascending order.
func (m Mask) Nodes() []int {
	out := make([]int, 0, m.Count())
	for ; m != 0; m &= m - 1 {
		out = append(out, bits.TrailingZeros64(uint64(m)))
	}
	return out
}

// narrower reports whether the set has fewer nodes than another, or as many and lower
// ones.
func (m Mask) narrower(than Mask) bool {
	if a, b := m.Count(), than.Count(); a != b {
		return a < b
	}
	return m < than
}

// String implements fmt.Stringer.
func (m Mask) String() string { return fmt.Sprintf("%b", uint64(m)) }

// Each calls f with every set of nodes that is not empty, the smaller ones first.
func Each(nodes []int, f func(Mask)) {
	var choose func(start, left int, m Mask)
	choose = func(start, left int, m Mask) {
		if left == 0 {
			f(m)
			return
		}
		for i := start; i <= len(nodes)-left; i++ {
			choose(i+1, left-1, m|1<<nodes[i])
		}
	}
	for n := 1; n <= len(nodes); n++ {
		choose(0, n, 0)
	}
}
