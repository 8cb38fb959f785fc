package nodeipam

import (
	"fmt"
	"math/big"
	"net/netip"

	"keelson.dev/keelson/internal/controllers"
)

// maxBits is the binary logarithm of how many nodes a range may have room for,
// upstream's.
const maxBits = 16

// pool is a range divided into blocks of one size, a node's each. It counts the
// holders of each block: a node may bring a range that others have, too.
type pool struct {
	controllers.PodRange
	holders []uint32
	free    int
	next    int // where the search for a free block begins
}

func newPool(r controllers.PodRange) (*pool, error) {
	r.Cluster = r.Cluster.Masked()
	room := r.NodeBits - r.Cluster.Bits()
	switch {
	case room < 0:
		return nil, fmt.Errorf("the range %s is smaller than a node's, /%d: give a larger --cluster-cidr or --node-cidr-mask-size", r.Cluster, r.NodeBits)
	case r.NodeBits > r.Cluster.Addr().BitLen():
		return nil, fmt.Errorf("a node's range cannot have a mask of %d bits in %s: give a smaller --node-cidr-mask-size", r.NodeBits, r.Cluster)
	case room > maxBits:
		return nil, fmt.Errorf("the range %s has room for more than %d nodes with /%d each: give a smaller --cluster-cidr or --node-cidr-mask-size", r.Cluster, 1<<maxBits, r.NodeBits)
	}
	return &pool{PodRange: r, holders: make([]uint32, 1<<room), free: 1 << room}, nil
}

// take returns the next free block; false where there is none.
func (p *pool) take() (netip.Prefix, bool) {
	if p.free == 0 {
		return netip.Prefix{}, false
	}
	for p.holders[p.next] > 0 {
		p.next = (p.next + 1) % len(p.holders)
	}
	block := p.block(p.next)
	p.hold(block, 1)
	p.next = (p.next + 1) % len(p.holders)
	return block, true
}

// block returns the i-th block.
func (p *pool) block(i int) netip.Prefix {
	base := p.Cluster.Addr()
	n := new(big.Int).SetBytes(base.AsSlice())
	n.Add(n, new(big.Int).Lsh(big.NewInt(int64(i)), uint(base.BitLen()-p.NodeBits)))
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, base.BitLen()/8)))
	return netip.PrefixFrom(a, p.NodeBits)
}

// index returns the number of the block that has the address, which is in the range.
func (p *pool) index(a netip.Addr) int {
	n := new(big.Int).SetBytes(a.AsSlice())
	n.Sub(n, new(big.Int).SetBytes(p.Cluster.Addr().AsSlice()))
	return int(n.Rsh(n, uint(a.BitLen()-p.NodeBits)).Int64())
}

// hold adds n, 1 or -1, to the holders of each block that the range overlaps. Where
// it overlaps none, nothing is done.
func (p *pool) hold(r netip.Prefix, n int) {
	r = r.Masked()
	if !r.Overlaps(p.Cluster) {
		return
	}
	first, last := 0, len(p.holders)-1
	if r.Bits() > p.Cluster.Bits() {
		first = p.index(r.Addr())
		last = first
		if more := p.NodeBits - r.Bits(); more > 0 {
			last += 1<<more - 1
		}
	}
	for i := first; i <= last; i++ {
		was := p.holders[i]
		p.holders[i] = uint32(int(was) + n)
		switch {
		case was == 0:
			p.free--
		case p.holders[i] == 0:
			p.free++
		}
	}
}
