package policy

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// rig is a controller on informers that the test fills.
type rig struct {
	testing.TB
	*Controller
	oracle
}

func newRig(t testing.TB, four, six Kernel) *rig {
	t.Helper()
	informer := func(o runtime.Object) cache.SharedIndexInformer {
		return cache.NewSharedIndexInformer(&cache.ListWatch{}, o, 0, cache.Indexers{})
	}
	c, err := New(Config{NodeName: "here", Pods: informer(&v1.Pod{}), Namespaces: informer(&v1.Namespace{}), Policies: informer(&networkingv1.NetworkPolicy{}),
		IPv4: four, IPv6: six})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t, c, oracle{"here", map[string]*v1.Pod{}, map[string]*v1.Namespace{}, map[string]*networkingv1.NetworkPolicy{}}}
}

// set adds an object to its informer's store, or with gone deletes it there.
func (r *rig) set(obj metav1.Object, gone bool) {
	name := types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}
	var i cache.SharedIndexInformer
	switch x := obj.(type) {
	case *v1.Pod:
		i, r.Controller.pods[name] = r.Pods, true
		if r.oracle.pods[name.String()] = x; gone {
			delete(r.oracle.pods, name.String())
		}
	case *v1.Namespace:
		i, r.Controller.namespaces[x.Name] = r.Namespaces, true
		if r.oracle.namespaces[x.Name] = x; gone {
			delete(r.oracle.namespaces, x.Name)
		}
	case *networkingv1.NetworkPolicy:
		i, r.Controller.policies[name] = r.Policies, true
		if r.oracle.policies[name.String()] = x; gone {
			delete(r.oracle.policies, name.String())
		}
	}
	f := i.GetIndexer().Add
	if gone {
		f = i.GetIndexer().Delete
	}
	if err := f(obj); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) sync() {
	r.Helper()
	if err := r.Sync(); err != nil {
		r.Fatal(err)
	}
}

// random makes objects out of few names, labels and addresses, so that they
// often refer to one another.
type random struct{ *rand.Rand }

func one[T any](r random, of ...T) T { return of[r.IntN(len(of))] }

func (r random) labels() map[string]string {
	out := map[string]string{}
	for _, k := range []string{"app", "tier"} {
		if v := r.IntN(4); v > 0 {
			out[k] = fmt.Sprint(v)
		}
	}
	return out
}

func (r random) selector() *metav1.LabelSelector {
	switch r.IntN(4) {
	case 0:
		return &metav1.LabelSelector{}
	case 1:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: one(r, "app", "tier"),
			Operator: one(r, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}}}
	case 2:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: one(r, "app", "tier"),
			Operator: one(r, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn), Values: []string{"1", "2"}}}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{one(r, "app", "tier"): fmt.Sprint(1 + r.IntN(3))}}
}

const randomPods = 8

var randomNamespaces = []string{"x", "y", "z"}

func (r random) addresses(n int) []v1.PodIP {
	four, six := v1.PodIP{IP: fmt.Sprintf("10.0.0.%d", n)}, v1.PodIP{IP: fmt.Sprintf("fd00::%x", n)}
	return one(r, []v1.PodIP{four}, []v1.PodIP{four, six}, []v1.PodIP{six, four}, nil)
}

// pod returns a pod; taken are the addresses of others.
func (r random) pod(taken map[string]bool) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: one(r, randomNamespaces...), Name: fmt.Sprint("p", r.IntN(randomPods/2)), Labels: r.labels()},
		Spec: v1.PodSpec{NodeName: one(r, "here", "here", "there"), HostNetwork: r.IntN(12) == 0}}
	p.Status.Phase = one(r, v1.PodRunning, v1.PodRunning, v1.PodRunning, v1.PodPending, v1.PodSucceeded)
	for range r.IntN(3) {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Ports: []v1.ContainerPort{{Name: one(r, "web", "other", ""),
			ContainerPort: one(r, int32(80), 81, 8080), Protocol: one(r, v1.ProtocolTCP, v1.ProtocolUDP)}}})
	}
	// A name of a port is unique in a container, not in a pod.
	seen := map[string]bool{}
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i].Ports[0]
		if key := c.Name + string(c.Protocol); c.Name != "" && seen[key] {
			c.Name = ""
		} else {
			seen[key] = true
		}
	}
	for range 5 {
		ips := r.addresses(1 + r.IntN(randomPods))
		if !slices.ContainsFunc(ips, func(ip v1.PodIP) bool { return taken[ip.IP] }) {
			p.Status.PodIPs = ips
			break
		}
	}
	return p
}

func (r random) rule() (peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
	for range r.IntN(4) {
		p := networkingv1.NetworkPolicyPeer{}
		switch r.IntN(5) {
		case 0:
			p.IPBlock = one(r, &networkingv1.IPBlock{CIDR: "10.0.0.0/29", Except: []string{"10.0.0.2/31"}}, &networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"10.0.0.0/30", "192.0.2.0/24"}},
				&networkingv1.IPBlock{CIDR: "fd00::/16", Except: []string{"fd00::4/126"}}, &networkingv1.IPBlock{CIDR: "10.0.0.7/32"}, &networkingv1.IPBlock{CIDR: "10.0.0.4/30", Except: []string{"10.0.0.4/30"}})
		case 1:
			p.NamespaceSelector = r.selector()
		case 2:
			p.NamespaceSelector, p.PodSelector = r.selector(), r.selector()
		default:
			p.PodSelector = r.selector()
		}
		peers = append(peers, p)
	}
	for range r.IntN(4) {
		p := networkingv1.NetworkPolicyPort{Protocol: ptr.To(one(r, v1.ProtocolTCP, v1.ProtocolUDP))}
		switch r.IntN(5) {
		case 0:
		case 1:
			p.Port = ptr.To(intstr.FromString(one(r, "web", "other")))
		case 2:
			p.Port, p.EndPort = ptr.To(intstr.FromInt32(one(r, int32(79), 80, 81))), ptr.To[int32](one(r, int32(81), 8080))
		default:
			p.Port = ptr.To(intstr.FromInt32(one(r, int32(80), 81, 8080)))
		}
		ports = append(ports, p)
	}
	return peers, ports
}

func (r random) policy() *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: one(r, randomNamespaces...), Name: fmt.Sprint("policy", r.IntN(4))}}
	p.Spec.PodSelector = *r.selector()
	p.Spec.PolicyTypes = one(r, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		[]networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress})
	for range r.IntN(3) {
		if slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) {
			from, ports := r.rule()
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: from, Ports: ports})
		}
		if slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
			to, ports := r.rule()
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: to, Ports: ports})
		}
	}
	return p
}

// step changes a few objects.
func (r random) step(to *rig) {
	for range 1 + r.IntN(3) {
		switch r.IntN(6) {
		case 0:
			n := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: one(r, randomNamespaces...), Labels: r.labels()}}
			to.set(n, r.IntN(6) == 0)
		case 1, 2, 3:
			p := r.pod(nil)
			name := p.Namespace + "/" + p.Name
			taken := map[string]bool{}
			for other, x := range to.oracle.pods {
				for _, ip := range x.Status.PodIPs {
					if other != name {
						taken[ip.IP] = true
					}
				}
			}
			if slices.ContainsFunc(p.Status.PodIPs, func(ip v1.PodIP) bool { return taken[ip.IP] }) {
				p.Status.PodIPs = nil
			}
			to.set(p, r.IntN(4) == 0)
		default:
			to.set(r.policy(), r.IntN(4) == 0)
		}
	}
}

// TestRandom compares the tables with the oracle, for random objects that come,
// change and go, and with tables that are written from nothing.
func TestRandom(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := random{rand.New(rand.NewPCG(seed, 14))}
			var k [2]*fake
			k[0], k[1] = &fake{}, &fake{}
			at := newRig(t, k[0], k[1])
			for step := range 40 {
				r.step(at)
				switch r.IntN(12) {
				case 0: // the kernel refuses one batch, and accepts the next
					k[r.IntN(2)].Fail = errors.New("refused")
					_ = at.Sync()
					k[0].Fail, k[1].Fail = nil, nil
				case 1: // another process has changed the table
					at.world.table.current = false
				}
				at.sync()
				compare(t, at, k)
				if t.Failed() {
					t.Fatalf("at step %d", step)
				}
			}
			fresh := [2]*fake{{}, {}}
			again := newRig(t, fresh[0], fresh[1])
			for _, o := range at.oracle.namespaces {
				again.set(o, false)
			}
			for _, o := range at.oracle.pods {
				again.set(o, false)
			}
			for _, o := range at.oracle.policies {
				again.set(o, false)
			}
			again.sync()
			for i := range k {
				if fresh[i].Chains == nil {
					continue // there is no policy for this node
				}
				if !reflect.DeepEqual(k[i].Sets, fresh[i].Sets) || !reflect.DeepEqual(k[i].Chains, fresh[i].Chains) {
					t.Errorf("after the changes the table is not what it is when it is made anew:\n%v\n%v\nnot\n%v\n%v", k[i].Chains, k[i].Sets, fresh[i].Chains, fresh[i].Sets)
				}
			}
		})
	}
}

func compare(t *testing.T, r *rig, k [2]*fake) {
	t.Helper()
	for f, all := range [][]string{{"10.0.0.%d", "192.0.2.1", "203.0.113.1"}, {"fd00::%x", "fd00:1::1", "2001:db8::1"}} {
		var addrs []netip.Addr
		for n := range randomPods {
			addrs = append(addrs, netip.MustParseAddr(fmt.Sprintf(all[0], n+1)))
		}
		addrs = append(addrs, netip.MustParseAddr(all[1]), netip.MustParseAddr(all[2]))
		for _, from := range addrs {
			for _, to := range addrs {
				for _, proto := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP} {
					for _, port := range []uint16{80, 81, 443, 8080} {
						p := packet{from, to, proto, port}
						if got, want := k[f].forwards(p), r.allows(p); got != want {
							t.Errorf("%+v: passes %t, want %t", p, got, want)
							return
						}
					}
				}
			}
		}
	}
}

func podAt(namespace, name, ip, node string, l map[string]string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + name), Labels: l}, Spec: v1.PodSpec{NodeName: node},
		Status: v1.PodStatus{Phase: v1.PodRunning, PodIPs: []v1.PodIP{{IP: ip}}}}
}

func denyAll(namespace string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "deny"},
		Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}}}
}

// TestAdmitted checks that a pod is isolated though its status has no addresses yet
// and another pod, which still exists, had its address.
func TestAdmitted(t *testing.T) {
	k := &fake{}
	r := newRig(t, k, nil)
	r.set(&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, false)
	r.set(&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "y"}}, false)
	r.sync()
	if k.Writes != 0 {
		t.Errorf("%d writes where there is no policy", k.Writes)
	}
	old := podAt("y", "old", "10.0.0.1", "here", nil)
	old.DeletionTimestamp = &metav1.Time{}
	r.set(old, false)
	r.set(denyAll("x"), false)
	fresh := podAt("x", "new", "", "here", nil)
	fresh.Status = v1.PodStatus{}
	r.set(fresh, false)
	r.sync()
	from, to := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	if !k.forwards(packet{from, to, v1.ProtocolTCP, 80}) {
		t.Error("the pod of the other namespace is isolated")
	}
	r.synced = nil // the informers of the test do not run
	if err := r.Admit(t.Context(), fresh, []netip.Addr{from}); err != nil {
		t.Fatal(err)
	}
	isolated := func(want bool) {
		t.Helper()
		r.sync()
		if k.forwards(packet{from, to, v1.ProtocolTCP, 80}) == want || k.forwards(packet{to, from, v1.ProtocolTCP, 80}) == want {
			t.Errorf("want isolated %t", want)
		}
	}
	isolated(true)
	r.set(old, true)
	isolated(true)
	fresh = fresh.DeepCopy()
	fresh.Status.PodIPs = []v1.PodIP{{IP: "10.0.0.1"}}
	r.set(fresh, false)
	isolated(true)
	r.Forget(fresh)
	isolated(true)
	r.set(fresh, true)
	isolated(false)
}

// TestErrorsLoseNothing has each write fail in turn, as when the kernel refuses one or another
// process has deleted the table, and checks that the next write does all that it was to do.
func TestErrorsLoseNothing(t *testing.T) {
	for _, fault := range []string{"refused", "gone"} {
		four, six := &fake{}, &fake{}
		r := newRig(t, four, six)
		r.synced = nil // the informers of the test do not run
		r.set(&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{"ns": "x"}}}, false)
		a, b := podAt("x", "a", "10.0.0.1", "here", map[string]string{"app": "a"}), podAt("x", "b", "10.0.0.2", "there", map[string]string{"app": "b"})
		pol := denyAll("x")
		pol.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "b"}}}}}}
		r.set(pol, false)
		r.set(a, false)
		r.sync()
		steps := []struct {
			what string
			do   func()
			want bool // b reaches a
		}{
			{"a peer", func() { r.set(b, false) }, true},
			{"a peer's labels", func() {
				b = b.DeepCopy()
				b.Labels = nil
				r.set(b, false)
			}, false},
			{"the namespace's labels", func() {
				pol = pol.DeepCopy()
				pol.Spec.Ingress[0].From[0] = networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"ns": "y"}}}
				r.set(pol, false)
				r.set(&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{"ns": "y"}}}, false)
			}, true},
			{"a policy without rules", func() { pol = denyAll("x"); r.set(pol, false) }, false},
			{"no policy", func() { r.set(pol, true) }, true},
			{"the policy again", func() { r.set(pol, false) }, false},
		}
		for _, s := range steps {
			for _, k := range []*fake{four, six} {
				if fault == "gone" {
					k.Gone = true
				} else {
					k.Fail = errors.New("no")
				}
			}
			s.do()
			if err := r.Sync(); err == nil {
				t.Errorf("%s, %s: the error is not told", fault, s.what)
			}
			four.Fail, six.Fail = nil, nil
			if !r.inspect(t.Context()) {
				t.Errorf("%s, %s: nobody writes it again", fault, s.what)
			}
			r.sync()
			if got := four.forwards(packet{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"), v1.ProtocolTCP, 80}); got != s.want {
				t.Errorf("%s, %s: b reaches a: %t", fault, s.what, got)
			}
		}
		// A pod that could not be admitted, and never comes again.
		four.Fail = errors.New("no")
		gone := podAt("x", "gone", "10.0.0.3", "here", nil)
		if err := r.Admit(t.Context(), gone, []netip.Addr{netip.MustParseAddr("10.0.0.3")}); err == nil {
			t.Error("a pod is admitted without its policies")
		}
		four.Fail = nil
		r.Forget(gone)
		if len(r.wake) != 1 || !r.inspect(t.Context()) {
			t.Error("nobody writes after a pod was not admitted")
		}
		r.sync()
		if _, ok := four.Sets[itself][Key{Addr: netip.MustParseAddr("10.0.0.3")}]; ok {
			t.Error("the pod that is gone is isolated")
		}
	}
}

// TestIncremental checks that another pod changes elements only, and only its
// own.
func TestIncremental(t *testing.T) {
	k := &fake{}
	r := newRig(t, k, nil)
	for i := range 20 {
		ns := fmt.Sprint("ns", i)
		r.set(&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{"n": ns}}}, false)
		pol := denyAll(ns)
		pol.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}},
			{NamespaceSelector: &metav1.LabelSelector{}, PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "b"}}}}}}
		r.set(pol, false)
		r.set(podAt(ns, "p", fmt.Sprintf("10.0.1.%d", i), "here", map[string]string{"app": "a"}), false)
	}
	r.sync()
	if k.Replaced != 1 || k.Writes != 1 {
		t.Errorf("written %d times, made %d times", k.Writes, k.Replaced)
	}
	names := func(b *Batch) (out []string) {
		for _, x := range b.AddElements {
			out = append(out, x.Set+" "+x.Key.Addr.String())
		}
		return out
	}
	r.set(podAt("ns3", "q", "10.0.2.1", "there", map[string]string{"app": "b"}), false)
	r.sync()
	if got, want := names(&k.last), []string{"pods/||app=b 10.0.2.1"}; !slices.Equal(got, want) || len(k.last.Rules)+len(k.last.AddSets) > 0 {
		t.Errorf("a peer: %+v, want the elements %v", k.last, want)
	}
	r.set(podAt("ns3", "r", "10.0.2.2", "here", map[string]string{"app": "a"}), false)
	r.sync()
	want := []string{"egress 10.0.2.2", "ingress 10.0.2.2", "itself 10.0.2.2", "pods/ns3|app=a 10.0.2.2"}
	if got := names(&k.last); !slices.Equal(got, want) || len(k.last.Rules)+len(k.last.AddSets) > 0 {
		t.Errorf("a pod of this node: %+v, want the elements %v", k.last, want)
	}
	writes := k.Writes
	r.set(podAt("ns3", "r", "10.0.2.2", "here", map[string]string{"app": "a", "other": "label"}), false)
	r.sync()
	if k.Writes != writes {
		t.Errorf("what is the same is written: %+v", k.last)
	}
	// Without policies only the parts that every table has are left.
	for _, p := range maps.Clone(r.oracle.policies) {
		r.set(p, true)
	}
	r.sync()
	if len(k.Chains) != 0 || len(k.Sets) != 3 || len(r.world.shared) != 0 || len(r.world.profiles) != 0 {
		t.Errorf("left: %v %v %v", k.Chains, k.Sets, r.world.shared)
	}
}

// TestNotValid checks that an invalid policy isolates pods, and allows nothing.
func TestNotValid(t *testing.T) {
	k := &fake{}
	r := newRig(t, k, nil)
	pol := denyAll("x")
	pol.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}, {From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "nonsense"}}}}}
	r.set(pol, false)
	r.set(podAt("x", "p", "10.0.0.1", "here", nil), false)
	r.sync()
	if k.forwards(packet{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"), v1.ProtocolTCP, 80}) {
		t.Error("it allows")
	}
}

// TestSelectionsApart checks that rules with other selectors do not share their peers, even
// where the selectors' texts together are the same.
func TestSelectionsApart(t *testing.T) {
	exists := func(key string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOpExists}}}
	}
	seen := map[string]int{}
	for i, peer := range []networkingv1.NetworkPolicyPeer{
		{NamespaceSelector: exists("a/b"), PodSelector: exists("c")},
		{NamespaceSelector: exists("a"), PodSelector: exists("b/c")},
		{NamespaceSelector: exists("a/b"), PodSelector: &metav1.LabelSelector{}},
		{NamespaceSelector: &metav1.LabelSelector{}, PodSelector: exists("a/b")},
		{PodSelector: exists("a/b")},
	} {
		a, err := allow("ns", []networkingv1.NetworkPolicyPeer{peer}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := seen[a.groups[0].key()]; taken {
			t.Errorf("the peers %d and %d have the key %q", other, i, a.groups[0].key())
		}
		seen[a.groups[0].key()] = i
	}
}

func TestUnion(t *testing.T) {
	all := func(texts ...string) (out []span) {
		for _, s := range texts {
			out = append(out, spanOf(netip.MustParsePrefix(s)))
		}
		return out
	}
	for _, c := range []struct {
		in   []span
		want string
	}{
		{all("10.0.0.0/31", "10.0.0.2/31", "10.0.0.8/30", "10.0.0.9/32"), "[10.0.0.0-10.0.0.3 10.0.0.8-10.0.0.11]"},
		{all("0.0.0.0/0", "255.255.255.255/32", "::/0", "ffff::/16"), "[0.0.0.0-255.255.255.255 ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"},
		{without(all("10.0.0.0/30"), all("10.0.0.1/32")[0]), "[10.0.0.0-10.0.0.0 10.0.0.2-10.0.0.3]"},
		{without(all("255.255.255.0/24"), all("255.255.255.128/25")[0]), "[255.255.255.0-255.255.255.127]"},
		{without(all("10.0.0.0/30"), all("10.0.0.0/8")[0]), "[]"},
	} {
		if got := fmt.Sprint(union(c.in)); got != c.want {
			t.Errorf("%v: %s, want %s", c.in, got, c.want)
		}
	}
}
