package pod

import (
	"context"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/trace"
)

// admit waits until the network policies that select the pod are enforced, before
// the first of its containers starts.
func (sb *sandbox) admit(ctx context.Context, pod *v1.Pod, obs *observed) error {
	now := obs.ready()
	if sb.Policies == nil || pod.Spec.HostNetwork || now == nil || sb.admitted == now.Id {
		return nil
	}
	var addrs []netip.Addr
	for _, ip := range obs.ips() {
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return err
		}
		addrs = append(addrs, a)
	}
	begin := time.Now()
	if err := sb.Policies.Admit(ctx, pod, addrs); err != nil {
		return err
	}
	sb.admitted = now.Id
	sb.Trace.Phase("pods", pod, trace.PhasePolicies, "", begin)
	return nil
}

// dismiss ends what admit began: the sandbox has stopped.
func (sb *sandbox) dismiss(pod *v1.Pod) {
	if sb.Policies != nil {
		sb.Policies.Forget(pod)
	}
}
