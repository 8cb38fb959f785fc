package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// world holds the pods, namespaces and policies, and keeps the table up to date
// with them. It counts the users of shared sets and chains.
type world struct {
	table      *table
	namespaces map[string]*namespace
	pods       map[types.NamespacedName]*pod
	shared     map[string]*shared
	profiles   map[string]int // users of the chains of pods that the same policies select
	// claims are the pods that have an address; the first is the one that it is
	// taken to belong to.
	claims map[netip.Addr][]*pod
}

type namespace struct {
	labels   labels.Set // nil while it is not known
	pods     map[*pod]bool
	policies map[string]*policy
}

// facts holds what is known of a pod.
type facts struct {
	labels labels.Set
	addrs  []netip.Addr
	ports  []containerPort
	local  bool // on this node
	// rank decides to which of several pods an address is taken to belong: the
	// one with the greatest.
	rank int64
}

type containerPort struct {
	name  string
	proto v1.Protocol
	port  uint16
}

type pod struct {
	name types.NamespacedName
	facts
	peer     map[place]string // its elements in the sets of peers
	subject  map[place]string // its elements in ingress, egress and itself
	profiles [2]string        // by direction, empty where it is not isolated
	policies map[*policy]bool // the policies that select it, if it is on this node
}

type policy struct {
	namespace, name string
	spec            *spec         // nil when it is deleted
	subjects        map[*pod]bool // on this node
	chains          []string
	uses            []string // of shared
}

// shared is a set that policies share: of the pods that a selector selects, of
// the pods that have a named port, or of ranges.
type shared struct {
	kind  Kind
	group *groupOf
	port  *containerPort // without its number
	users int
}

func newWorld(t *table) *world {
	return &world{table: t, namespaces: map[string]*namespace{}, pods: map[types.NamespacedName]*pod{}, shared: map[string]*shared{},
		profiles: map[string]int{}, claims: map[netip.Addr][]*pod{}}
}

func (w *world) namespace(name string) *namespace {
	ns := w.namespaces[name]
	if ns == nil {
		ns = &namespace{pods: map[*pod]bool{}, policies: map[string]*policy{}}
		w.namespaces[name] = ns
	}
	return ns
}

// tidy forgets a namespace of which nothing is known.
func (w *world) tidy(name string) {
	if ns := w.namespaces[name]; ns != nil && ns.labels == nil && len(ns.pods)+len(ns.policies) == 0 {
		delete(w.namespaces, name)
	}
}

// setNamespace sets the labels of a namespace, which are nil if there is none.
func (w *world) setNamespace(name string, l labels.Set) {
	ns := w.namespace(name)
	if (ns.labels == nil) != (l == nil) || !maps.Equal(ns.labels, l) {
		ns.labels = l
		for p := range ns.pods {
			w.refresh(p)
		}
	}
	w.tidy(name)
}

// setPod sets the facts of a pod, which are nil if the pod does not exist or has
// no address.
func (w *world) setPod(name types.NamespacedName, f *facts) {
	p := w.pods[name]
	ns := w.namespace(name.Namespace)
	if p == nil {
		if f == nil {
			w.tidy(name.Namespace)
			return
		}
		p = &pod{name: name}
		w.pods[name], ns.pods[p] = p, true
	}
	was := p.facts
	if p.facts = (facts{}); f != nil {
		p.facts = *f
	}
	changed := []*pod{p}
	for _, a := range slices.Concat(was.addrs, p.addrs) {
		all := w.claims[a]
		if len(all) > 0 {
			changed = append(changed, all[0])
		}
		all = slices.DeleteFunc(slices.Clone(all), func(x *pod) bool { return x == p })
		if slices.Contains(p.addrs, a) {
			all = append(all, p)
			slices.SortStableFunc(all, func(x, y *pod) int { return cmp.Compare(y.rank, x.rank) })
		}
		if w.claims[a] = all; len(all) == 0 {
			delete(w.claims, a)
			continue
		}
		changed = append(changed, all[0])
	}
	for _, pol := range ns.policies {
		w.choose(pol, p)
	}
	w.refresh(changed...)
	if f == nil {
		delete(w.pods, name)
		delete(ns.pods, p)
		w.tidy(name.Namespace)
	}
}

// setPolicy sets the spec of a policy, nil if there is none.
func (w *world) setPolicy(name types.NamespacedName, s *spec) {
	ns := w.namespace(name.Namespace)
	pol := ns.policies[name.Name]
	if pol == nil {
		if s == nil {
			w.tidy(name.Namespace)
			return
		}
		pol = &policy{namespace: name.Namespace, name: name.Name, subjects: map[*pod]bool{}}
		ns.policies[name.Name] = pol
	}
	pol.spec = s
	changed := maps.Clone(pol.subjects)
	for p := range ns.pods {
		if p.local {
			w.choose(pol, p)
		}
	}
	w.install(pol)
	maps.Copy(changed, pol.subjects)
	for p := range changed {
		w.isolate(p)
	}
	if s == nil {
		delete(ns.policies, name.Name)
		w.tidy(name.Namespace)
	}
}

// choose updates whether the policy selects the pod. The rules of a policy are
// installed with its first pod of this node, and removed with the last.
func (w *world) choose(pol *policy, p *pod) {
	is := pol.spec != nil && p.local && len(p.addrs) > 0 && pol.spec.subjects.Matches(p.labels)
	switch {
	case is == pol.subjects[p]:
		return
	case is:
		if p.policies == nil {
			p.policies = map[*policy]bool{}
		}
		pol.subjects[p], p.policies[pol] = true, true
	default:
		delete(pol.subjects, p)
		delete(p.policies, pol)
	}
	if len(pol.subjects) <= 1 {
		w.install(pol)
	}
}

// refresh brings the elements of pods up to date. An address may have moved from
// one of them to another: all deletions come before the additions.
func (w *world) refresh(pods ...*pod) {
	peers, subjects := make([]map[place]string, len(pods)), make([]map[place]string, len(pods))
	for i, p := range pods {
		peers[i], subjects[i] = w.peer(p), w.subject(p)
		w.take(p.peer, peers[i])
		w.take(p.subject, subjects[i])
	}
	for i, p := range pods {
		w.give(&p.peer, peers[i])
		w.give(&p.subject, subjects[i])
	}
}

// isolate brings the elements of a pod up to date that depend on the policies
// that select it.
func (w *world) isolate(p *pod) {
	next := w.subject(p)
	w.take(p.subject, next)
	w.give(&p.subject, next)
}

// take deletes the elements of has that are not in want.
func (w *world) take(has, want map[place]string) {
	for at := range has {
		if _, still := want[at]; !still {
			w.table.deleteElement(at.set, at.key)
			delete(has, at)
		}
	}
}

// give adds the elements of want that are not in has.
func (w *world) give(has *map[place]string, want map[place]string) {
	for at, v := range want {
		if was, ok := (*has)[at]; !ok || was != v {
			w.table.addElement(at.set, at.key, v)
			if *has == nil {
				*has = map[place]string{}
			}
			(*has)[at] = v
		}
	}
}

// own returns the addresses that are taken to be the pod's.
func (w *world) own(p *pod) (out []netip.Addr) {
	for _, a := range p.addrs {
		if all := w.claims[a]; len(all) > 0 && all[0] == p {
			out = append(out, a)
		}
	}
	return out
}

// peer returns the elements of a pod in the sets of peers.
func (w *world) peer(p *pod) map[place]string {
	own := w.own(p)
	if len(own) == 0 || len(w.shared) == 0 {
		return nil
	}
	out := map[place]string{}
	for name, s := range w.shared {
		for _, k := range w.keys(s, p, own) {
			out[place{name, k}] = ""
		}
	}
	return out
}

// keys returns the elements of a pod in a set.
func (w *world) keys(s *shared, p *pod, own []netip.Addr) (out []Key) {
	switch {
	case s.group != nil && w.selects(s.group, p):
		for _, a := range own {
			out = append(out, Key{Addr: a})
		}
	case s.port != nil:
		for _, c := range p.ports {
			if c.name == s.port.name && c.proto == s.port.proto {
				for _, a := range own {
					out = append(out, Key{Addr: a, Port: c.port})
				}
				break // the first port of a name counts
			}
		}
	}
	return out
}

func (w *world) selects(g *groupOf, p *pod) bool {
	if g.namespaces == nil {
		return p.name.Namespace == g.namespace && g.pods.Matches(p.labels)
	}
	ns := w.namespaces[p.name.Namespace]
	return ns.labels != nil && g.namespaces.Matches(ns.labels) && g.pods.Matches(p.labels)
}

// subject returns the elements of a pod that depend on the policies that select it,
// and counts uses of the chains that they lead to.
func (w *world) subject(p *pod) map[place]string {
	out := map[place]string{}
	own := w.own(p)
	was := p.profiles
	for d := range directions {
		p.profiles[d] = ""
		var chains []string
		isolated := false
		for pol := range p.policies {
			isolated = isolated || pol.spec.isolates[d]
			if len(pol.spec.allows[d]) > 0 {
				chains = append(chains, pol.chain(d))
			}
		}
		if isolated && len(own) > 0 {
			p.profiles[d] = w.profile(d, chains)
		}
	}
	for d, name := range was {
		if name != "" {
			w.forgetProfile(name)
		}
		if next := p.profiles[d]; next != "" {
			for _, a := range own {
				out[place{[...]string{ingress, egress}[d], Key{Addr: a}}] = next
				out[place{itself, Key{Addr: a}}] = ""
			}
		}
	}
	return out
}

// profile returns the chain of pods that exactly these chains' policies select,
// and counts a use of it.
func (w *world) profile(d int, chains []string) string {
	slices.Sort(chains)
	name := "isolated/" + directions[d] + "/" + digest(strings.Join(chains, " "))
	if w.profiles[name]++; w.profiles[name] == 1 {
		rules := make([]Rule, 0, len(chains)+1)
		for _, c := range chains {
			rules = append(rules, Rule{Do: Jump, Chain: c})
		}
		w.table.setChain(name, append(rules, Rule{Do: Drop}))
	}
	return name
}

func (w *world) forgetProfile(name string) {
	if w.profiles[name]--; w.profiles[name] == 0 {
		delete(w.profiles, name)
		w.table.deleteChain(name)
	}
}

// install brings the chains of a policy up to date, and the sets that they use:
// none, if the policy selects no pod of this node.
func (w *world) install(pol *policy) {
	oldChains, oldUses := pol.chains, pol.uses
	pol.chains, pol.uses = nil, nil
	if pol.spec != nil && len(pol.subjects) > 0 {
		for d, all := range pol.spec.allows {
			if len(all) == 0 {
				continue
			}
			var rules []Rule
			for i := range all {
				rules = append(rules, w.rules(pol, d, i)...)
			}
			pol.chains = append(pol.chains, pol.chain(d))
			w.table.setChain(pol.chain(d), rules)
		}
	}
	for _, c := range oldChains {
		if !slices.Contains(pol.chains, c) {
			w.table.deleteChain(c)
		}
	}
	for _, name := range oldUses {
		w.release(name)
	}
}

// directions are the parts of chains' names.
var directions = [2]string{"in", "out"}

func (p *policy) chain(d int) string {
	return short(directions[d] + "/" + p.namespace + "/" + p.name)
}

// rules returns those of allowance i.
func (w *world) rules(pol *policy, d, i int) []Rule {
	a := &pol.spec.allows[d][i]
	ports := []Rule{{Do: Accept}}
	if !a.anyPort {
		ports = nil
		for _, p := range a.ports {
			r := Rule{Proto: p.proto, First: p.first, Last: p.last, Do: Accept}
			if p.name != "" {
				r.Named = w.use(pol, "named/"+string(p.proto)+"/"+p.name, &shared{kind: Ports, port: &containerPort{name: p.name, proto: p.proto}}, nil)
			}
			ports = append(ports, r)
		}
	}
	if a.anyPeer {
		return ports
	}
	var peers []string
	for j := range a.groups {
		g := &a.groups[j]
		peers = append(peers, w.use(pol, g.key(), &shared{kind: Addresses, group: g}, nil))
	}
	if len(a.ranges) > 0 {
		peers = append(peers, w.use(pol, "ranges/"+digest(fmt.Sprint(a.ranges)), &shared{kind: Ranges}, a.ranges))
	}
	from := func(peer string, r Rule) Rule {
		if d == in {
			r.Source = peer
		} else {
			r.Destination = peer
		}
		return r
	}
	var out []Rule
	if len(peers) > 1 && len(ports) > 1 {
		// Peers and ports are checked one after the other, so that there is no rule for
		// each pair.
		chain := short(fmt.Sprintf("%s/%d", pol.chain(d), i))
		pol.chains = append(pol.chains, chain)
		w.table.setChain(chain, ports)
		ports = []Rule{{Do: Jump, Chain: chain}}
	}
	for _, peer := range peers {
		for _, r := range ports {
			out = append(out, from(peer, r))
		}
	}
	return out
}

// use counts a use of a shared set by the policy, and returns the set's name.
func (w *world) use(pol *policy, key string, s *shared, ranges []span) string {
	name := short(key)
	pol.uses = append(pol.uses, name)
	if has := w.shared[name]; has != nil {
		has.users++
		return name
	}
	s.users = 1
	w.shared[name] = s
	w.table.addSet(name, s.kind)
	for _, r := range ranges {
		w.table.addElement(name, Key{Addr: r.first}, "")
		if end := r.last.Next(); end.IsValid() {
			w.table.addElement(name, Key{Addr: end, End: true}, "")
		}
	}
	w.candidates(s, func(p *pod) {
		want := map[place]string{}
		for _, k := range w.keys(s, p, w.own(p)) {
			want[place{name, k}] = ""
		}
		w.give(&p.peer, want)
	})
	return name
}

// candidates calls f with the pods that may have elements in a set.
func (w *world) candidates(s *shared, f func(*pod)) {
	switch {
	case s.kind == Ranges:
	case s.group != nil && s.group.namespaces == nil:
		if ns := w.namespaces[s.group.namespace]; ns != nil {
			for p := range ns.pods {
				f(p)
			}
		}
	default:
		for _, p := range w.pods {
			f(p)
		}
	}
}

// release ends a use of a shared set.
func (w *world) release(name string) {
	s := w.shared[name]
	if s.users--; s.users > 0 {
		return
	}
	delete(w.shared, name)
	w.candidates(s, func(p *pod) {
		maps.DeleteFunc(p.peer, func(at place, _ string) bool { return at.set == name })
	})
	w.table.deleteSet(name)
}

// digested is the number of bytes of a digest: so many that nobody finds a policy with the
// digest of another's.
const digested = 16

// digest returns a short name for s.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:digested])
}

// short shortens a name to the kernel's limit, and makes it unique by a digest.
func short(name string) string {
	const most = 200
	if len(name) <= most {
		return name
	}
	return name[:most-2*digested-1] + "-" + digest(name)
}
