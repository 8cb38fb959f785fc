package scheduler

import (
	"context"
	"math"
	"strconv"

	v1 "k8s.io/api/core/v1"

	fw "keelson.dev/keelson/internal/scheduler/framework"
	"keelson.dev/keelson/internal/scheduler/plugins"
)

// class holds the results of all nodes for pods with the same scheduling
// requirements. It follows the snapshot: only the nodes that changed since its
// last use are filtered and scored again.
//
// The final score of a node is a sum of parts. Some are a matter of the node
// and the pod alone. The others are normalized over all nodes that fit, or
// count pods in the node's domains; but nodes that agree in the raw values of
// these have the same sum of them, whatever the other nodes are. Such nodes
// share a bucket. Within a bucket, the local score decides; between buckets,
// the shared parts are computed once for each. So the best node is found in
// the number of buckets, not of nodes.
type class struct {
	p     *profile
	snap  *snapshot
	pod   *v1.Pod // one of them
	state *fw.CycleState
	// soft are the topology spread constraints that rank nodes; nil if none.
	soft *plugins.Constraints

	generation int64
	removals   int64
	images     string // what was known of the pod's images
	used       int64  // when, for the least recently used to go first

	entries map[*fw.NodeInfo]*entry
	buckets map[bucketKey]*bucket
	fit     int // nodes that fit
	ignored int // of these, the ones that lack a topology key
	domains []map[string]*domain
	// rejected counts the nodes that do not fit, by the plug-in that said so. total is the
	// best score when a node was last picked, of a node in the bucket chosen.
	rejected map[string]int
	total    int64
	chosen   *bucket
	norm     normalization
}

// domain is a value of a constraint's topology key.
type domain struct {
	pods int // matching, on nodes that count
	fit  int // nodes that fit
}

type bucketKey struct {
	taints, affinity int64
	// spread names the node's domains and counts its own matching pods.
	spread string
}

// bucket holds the nodes that fit with equal normalized parts, by local score.
type bucket struct {
	key     bucketKey
	node    *fw.NodeInfo // any of them, for its labels
	counts  []int        // matching pods on each, by constraint
	ignored bool
	levels  [][]*entry
	top     int // no level above holds nodes
	size    int

	spread int64 // raw, of the current cycle
}

// entry is a node in a class.
type entry struct {
	node   *fw.NodeInfo
	status *fw.Status // why it does not fit; nil if it does
	bucket *bucket
	local  int64
	pos    int // in its level
	// values and counts are the node's domains and matching pods by constraint,
	// as they went into class.domains; counted says for which they did.
	values  []string
	counts  []int
	counted []bool
	ignored bool
}

// newClass makes the class of pod. state has seen the profile's PreFilter and
// is the class's own.
func newClass(p *profile, snap *snapshot, pod *v1.Pod, state *fw.CycleState, soft *plugins.Constraints) *class {
	c := &class{p: p, snap: snap, pod: pod, state: state, soft: soft, entries: map[*fw.NodeInfo]*entry{}, buckets: map[bucketKey]*bucket{}, rejected: map[string]int{}}
	if soft != nil {
		c.domains = make([]map[string]*domain, len(soft.List))
		for i := range c.domains {
			c.domains[i] = map[string]*domain{}
		}
	}
	return c
}

// refresh brings the class up to the snapshot.
func (c *class) refresh(ctx context.Context) error {
	if c.removals != c.snap.removals {
		for n, e := range c.entries {
			if n.Node == nil {
				c.leave(e)
				delete(c.entries, n)
			}
		}
		c.removals = c.snap.removals
	}
	from := c.generation
	if known := c.p.images.Known(c.pod); known != c.images {
		c.images, from = known, 0
	}
	var err error
	c.snap.since(from, func(n *fw.NodeInfo) {
		if n.Node == nil || err != nil {
			return
		}
		e := c.entries[n]
		if e == nil {
			e = &entry{node: n}
			c.entries[n] = e
		} else {
			c.leave(e)
		}
		err = c.enter(ctx, e)
	})
	if err != nil {
		return err
	}
	c.generation = c.snap.generation
	return nil
}

// leave takes an entry out of its bucket and its domains.
func (c *class) leave(e *entry) {
	for i := range e.values {
		d := c.domains[i][e.values[i]]
		if e.counted[i] {
			d.pods -= e.counts[i]
		}
		if e.bucket != nil && !e.ignored {
			d.fit--
		}
	}
	b := e.bucket
	if b == nil {
		if plugin := e.status.Plugin(); plugin != "" {
			if c.rejected[plugin]--; c.rejected[plugin] <= 0 {
				delete(c.rejected, plugin)
			}
		}
		return
	}
	level := b.levels[e.local]
	last := level[len(level)-1]
	level[e.pos], last.pos = last, e.pos
	level[len(level)-1] = nil
	b.levels[e.local] = level[:len(level)-1]
	for b.top > 0 && len(b.levels[b.top]) == 0 {
		b.top--
	}
	c.fit--
	if e.ignored {
		c.ignored--
	}
	if b.size--; b.size == 0 {
		delete(c.buckets, b.key)
	} else if b.node == e.node {
		b.node = b.levels[b.top][0].node
	}
	e.bucket = nil
}

// enter filters and scores a node, and puts it where it belongs.
func (c *class) enter(ctx context.Context, e *entry) error {
	n := e.node
	e.values, e.counts, e.counted, e.ignored = e.values[:0], e.counts[:0], e.counted[:0], false
	if c.soft != nil {
		e.ignored = c.soft.Lacks(n)
		for i := range c.soft.List {
			t := &c.soft.List[i]
			value, count, counted := n.Node.Labels[t.Key], t.Matching(c.pod.Namespace, n), !e.ignored && c.soft.Counts(t, n)
			if t.PerNode() {
				value, counted = "", false // its pods are counted with the node
			}
			d := c.domains[i][value]
			if d == nil {
				d = &domain{}
				c.domains[i][value] = d
			}
			if counted {
				d.pods += count
			}
			e.values, e.counts, e.counted = append(e.values, value), append(e.counts, count), append(e.counted, counted)
		}
	}
	e.status = c.p.filter(ctx, c.state, c.pod, n)
	if !e.status.IsSuccess() {
		if e.status.IsRejected() {
			c.rejected[e.status.Plugin()]++
			return nil
		}
		return filterError(e.status)
	}
	var key bucketKey
	e.local = 0
	for i := range c.p.scores {
		s := &c.p.scores[i]
		if c.state.SkipScore.Has(s.Name()) || s.role == fromDomains {
			continue
		}
		v, st := s.Score(ctx, c.state, c.pod, n)
		if !st.IsSuccess() {
			return scoreError(s.Name(), st)
		}
		switch s.role {
		case byTaints:
			key.taints = v
		case byAffinity:
			key.affinity = v
		default:
			e.local += v * s.weight
		}
	}
	if c.soft != nil {
		key.spread = c.spreadKey(e)
	}
	b := c.buckets[key]
	if b == nil {
		b = &bucket{key: key, node: n, counts: append([]int(nil), e.counts...), ignored: e.ignored, levels: make([][]*entry, c.p.localMax+1)}
		c.buckets[key] = b
	}
	e.bucket, e.pos = b, len(b.levels[e.local])
	b.levels[e.local] = append(b.levels[e.local], e)
	b.top = max(b.top, int(e.local))
	b.size++
	c.fit++
	if e.ignored {
		c.ignored++
		return nil
	}
	for i := range e.values {
		c.domains[i][e.values[i]].fit++
	}
	return nil
}

func (c *class) spreadKey(e *entry) string {
	if e.ignored {
		return "-"
	}
	var b []byte
	for i := range c.soft.List {
		t := &c.soft.List[i]
		_, has := e.node.Node.Labels[t.Key]
		switch {
		case !has:
			b = append(b, 0)
		case t.PerNode():
			b = strconv.AppendInt(b, int64(e.counts[i]), 10)
		default:
			b = append(b, e.values[i]...)
		}
		b = append(b, '/')
	}
	return string(b)
}

// best returns the buckets whose top levels hold the nodes with the best total.
func (c *class) best() []*bucket {
	most := bucketKey{}
	leastSpread, mostSpread := int64(math.MaxInt64), int64(0)
	sizes := c.sizes()
	for _, b := range c.buckets {
		most.taints, most.affinity = max(most.taints, b.key.taints), max(most.affinity, b.key.affinity)
		if c.soft != nil && !b.ignored {
			b.spread = c.rawSpread(b, sizes)
			leastSpread, mostSpread = min(leastSpread, b.spread), max(mostSpread, b.spread)
		}
	}
	c.norm = normalization{most, leastSpread, mostSpread}
	var best []*bucket
	top := int64(math.MinInt64)
	for _, b := range c.buckets {
		total := int64(b.top)
		for i := range c.p.scores {
			if s := &c.p.scores[i]; !c.state.SkipScore.Has(s.Name()) {
				total += c.shared(s, b)
			}
		}
		if total > top {
			top, best = total, best[:0]
		}
		if total == top {
			best = append(best, b)
		}
	}
	c.total = top
	return best
}

// normalization has the extremes of all buckets, by which their raw values are
// normalized.
type normalization struct {
	most        bucketKey
	least, last int64 // of spread
}

// shared returns what a scoring plug-in gives to all nodes of a bucket alike; 0 where it
// is one of the node alone.
func (c *class) shared(s *weighted, b *bucket) int64 {
	switch s.role {
	case byTaints:
		return s.weight * s.max.NormalizeByMax(b.key.taints, c.norm.most.taints)
	case byAffinity:
		return s.weight * s.max.NormalizeByMax(b.key.affinity, c.norm.most.affinity)
	case fromDomains:
		if c.soft != nil && !b.ignored {
			return s.weight * plugins.NormalizeSpread(b.spread, c.norm.least, c.norm.last)
		}
	}
	return 0
}

// pick picks one of the best nodes.
func (c *class) pick(random func(int) int) *fw.NodeInfo {
	best, ties := c.best(), 0
	for _, b := range best {
		ties += len(b.levels[b.top])
	}
	i := 0
	if ties > 1 {
		i = random(ties)
	}
	for _, b := range best {
		if level := b.levels[b.top]; i < len(level) {
			c.chosen = b
			return level[i].node
		} else {
			i -= len(level)
		}
	}
	return nil
}

// diagnose adds the reasons why no node fits to d.
func (c *class) diagnose(d *fw.Diagnosis) {
	for n, e := range c.entries {
		d.NodeToStatus[n.Node.Name] = e.status
		d.UnschedulablePlugins.Insert(e.status.Plugin())
	}
}

// sizes returns the numbers of domains with nodes that fit, by constraint.
func (c *class) sizes() []int {
	out := make([]int, len(c.domains))
	for i, m := range c.domains {
		if c.soft.List[i].PerNode() {
			out[i] = c.fit - c.ignored
			continue
		}
		for _, d := range m {
			if d.fit > 0 {
				out[i]++
			}
		}
	}
	return out
}

func (c *class) rawSpread(b *bucket, sizes []int) int64 {
	score := 0.0
	for i := range c.soft.List {
		t := &c.soft.List[i]
		v, ok := b.node.Node.Labels[t.Key]
		if !ok {
			continue
		}
		count := b.counts[i]
		if !t.PerNode() {
			count = c.domains[i][v].pods
		}
		score += t.Score(count, sizes[i])
	}
	return int64(math.Round(score))
}
