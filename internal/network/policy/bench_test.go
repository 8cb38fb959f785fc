package policy

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// kernelRig returns a rig on the kernel's tables, in a network namespace of the
// benchmark's own, on its thread, which ends with it.
func kernelRig(b *testing.B) *rig {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("a network namespace needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.Fatal(err)
	}
	return newRig(b, NewNetfilter(false), NewNetfilter(true))
}

const (
	benchNamespaces = 100
	benchPods       = 5000
	benchPolicies   = 1000
)

// fill makes a cluster: 100 namespaces of 50 pods in 5 applications, and 10
// policies in each. local of the pods are on this node.
func fill(r *rig, local int) {
	for n := range benchNamespaces {
		ns := fmt.Sprint("ns", n)
		r.set(&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{"team": fmt.Sprint(n % 10)}}}, false)
		for i := range benchPolicies / benchNamespaces {
			p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprint("policy", i)}}
			p.Spec.PodSelector.MatchLabels = map[string]string{"app": fmt.Sprint("app", i%5)}
			p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
			ports := []networkingv1.NetworkPolicyPort{{Protocol: ptr.To(v1.ProtocolTCP), Port: ptr.To(intstr.FromInt32(int32(8000 + i)))}}
			p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: ports, From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("app", (i+1)%5)}}},
				{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": fmt.Sprint(i)}}}}}}
			p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"169.254.0.0/16"}}}}}}
			r.set(p, false)
		}
	}
	for i := range benchPods {
		r.set(benchPod(i, i < local), false)
	}
}

func benchPod(i int, local bool) *v1.Pod {
	node := "there"
	if local {
		node = "here"
	}
	return podAt(fmt.Sprint("ns", i%benchNamespaces), fmt.Sprint("pod", i), fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), node, map[string]string{"app": fmt.Sprint("app", i/benchNamespaces%5)})
}

// each runs a benchmark with a usual number of pods on this node, and with all
// pods on it.
func each(b *testing.B, f func(b *testing.B, r *rig, local int)) {
	for _, local := range []int{110, benchPods} {
		b.Run(fmt.Sprintf("policies=%d/pods=%d/here=%d", benchPolicies, benchPods, local), func(b *testing.B) {
			r := kernelRig(b)
			fill(r, local)
			f(b, r, local)
			b.ReportMetric(float64(b.Elapsed())/float64(time.Millisecond)/float64(b.N), "ms/op")
		})
	}
}

// BenchmarkFromNothing writes the table into an empty kernel.
func BenchmarkFromNothing(b *testing.B) {
	each(b, func(b *testing.B, r *rig, local int) {
		for b.Loop() {
			r.world = newWorld(newTable(r.IPv4, r.IPv6))
			fill(r, local)
			r.sync()
		}
	})
}

// BenchmarkOnePod measures a pod of another node that comes and goes.
func BenchmarkOnePod(b *testing.B) {
	each(b, func(b *testing.B, r *rig, _ int) {
		r.sync()
		for b.Loop() {
			r.set(benchPod(benchPods, false), false)
			r.sync()
			r.set(benchPod(benchPods, false), true)
			r.sync()
		}
	})
}

// BenchmarkOneLocalPod measures a pod of this node that comes and goes.
func BenchmarkOneLocalPod(b *testing.B) {
	each(b, func(b *testing.B, r *rig, _ int) {
		r.sync()
		for b.Loop() {
			r.set(benchPod(benchPods, true), false)
			r.sync()
			r.set(benchPod(benchPods, true), true)
			r.sync()
		}
	})
}

// BenchmarkOnePolicy measures the change of a policy.
func BenchmarkOnePolicy(b *testing.B) {
	each(b, func(b *testing.B, r *rig, _ int) {
		r.sync()
		i := 0
		for b.Loop() {
			p := r.oracle.policies["ns7/policy0"].DeepCopy()
			i++
			p.Spec.Ingress[0].Ports[0].Port = ptr.To(intstr.FromInt32(int32(9000 + i%100)))
			r.set(p, false)
			r.sync()
		}
	})
}
