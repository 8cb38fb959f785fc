package node

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// report is a pod's status for the API.
type report struct {
	status   v1.PodStatus  // as last computed
	computed bool          // there is one
	posted   *v1.PodStatus // as the API last had it from us
	posting  bool
}

var everything = labels.Everything()

// containerID is a container's ID as statuses have it.
func (a *Agent) containerID(id string) string { return a.cri.RuntimeName + "://" + id }

// publish computes the pod's status and sends it if it has changed.
func (w *worker) publish(ctx context.Context, pod *v1.Pod, obs *observed) {
	w.mu.Lock()
	s := w.compute(pod, obs)
	w.report.status, w.report.computed = s, true
	base := w.apiPod()
	if base == nil {
		w.mu.Unlock()
		return // the mirror, when it is there, wakes the worker
	}
	had := pod.Status
	if w.isStatic {
		had = base.Status
	}
	same := equality.Semantic.DeepEqual(s, had)
	if same {
		w.report.posted = &s
	}
	if same || w.report.posting || w.report.posted != nil && equality.Semantic.DeepEqual(s, *w.report.posted) {
		w.mu.Unlock()
		return
	}
	w.report.posting = true
	w.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	w.a.wg.Go(func() { w.post(ctx, base, s) })
}

// post writes a status. It is made from the pod it was read from: where the
// pod has changed since, the change wakes the worker, which computes it anew.
func (w *worker) post(ctx context.Context, base *v1.Pod, s v1.PodStatus) {
	p := *base
	p.Status = s
	got, err := w.a.Client.CoreV1().Pods(base.Namespace).UpdateStatus(ctx, &p, metav1.UpdateOptions{})
	w.mu.Lock()
	w.report.posting = false
	switch {
	case err == nil:
		w.report.posted = &s
		if now := w.apiPod(); now == nil || now.ResourceVersion != base.ResourceVersion {
			break // it has changed since
		}
		if w.isStatic {
			w.mirror = got
		} else {
			w.pod = got
		}
	case apierrors.IsNotFound(err):
		w.report.posted = &s // nobody is left to tell
	}
	now := w.apiPod()
	stale := now != nil && now.ResourceVersion == base.ResourceVersion
	w.mu.Unlock()
	if err != nil && !apierrors.IsNotFound(err) {
		if !apierrors.IsConflict(err) {
			klog.FromContext(ctx).Error(err, "Updating the pod's status failed")
		}
		if stale {
			select {
			case <-w.a.Clock.After(shortRetry):
			case <-w.a.ctx.Done():
			}
		}
	}
	w.notify()
}

// settled reports whether the API has the status last computed.
func (w *worker) settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.report.posting && (!w.report.computed || w.report.posted != nil && equality.Semantic.DeepEqual(w.report.status, *w.report.posted))
}

// compute makes the status of the pod; w.mu is held.
func (w *worker) compute(pod *v1.Pod, obs *observed) v1.PodStatus {
	now := metav1.NewTime(w.a.Clock.Now().UTC().Truncate(time.Second))
	s := v1.PodStatus{
		QOSClass: qosClass(pod), NominatedNodeName: pod.Status.NominatedNodeName, StartTime: pod.Status.StartTime,
		ObservedGeneration: pod.Generation, ResourceClaimStatuses: pod.Status.ResourceClaimStatuses,
	}
	if w.report.computed && w.report.status.StartTime != nil {
		s.StartTime = w.report.status.StartTime
	}
	if s.StartTime == nil {
		s.StartTime = &now
	}
	for _, ip := range w.a.NodeIPs {
		s.HostIPs = append(s.HostIPs, v1.HostIP{IP: ip.String()})
	}
	if len(s.HostIPs) > 0 {
		s.HostIP = s.HostIPs[0].IP
	}
	ips := obs.ips()
	if pod.Spec.HostNetwork {
		ips = nil
		for _, ip := range w.a.NodeIPs {
			ips = append(ips, ip.String())
		}
	} else if len(ips) == 0 {
		for _, ip := range pod.Status.PodIPs {
			ips = append(ips, ip.IP)
		}
	}
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, v1.PodIP{IP: ip})
	}
	if len(ips) > 0 {
		s.PodIP = ips[0]
	}
	initialized := true
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		cs := w.containerStatus(pod, c, obs, "PodInitializing")
		done := cs.State.Terminated != nil && cs.State.Terminated.ExitCode == 0
		if isSidecar(c) {
			done = ptr.Deref(cs.Started, false)
			cs.Ready = cs.State.Running != nil && w.readyID(c, obs)
		} else {
			cs.Ready = done
		}
		initialized = initialized && done
		s.InitContainerStatuses = append(s.InitContainerStatuses, cs)
	}
	begun := false
	for i := range pod.Spec.Containers {
		begun = begun || obs.newest(pod.Spec.Containers[i].Name) != nil
	}
	initialized = initialized || begun
	reason := "ContainerCreating"
	if !initialized {
		reason = "PodInitializing"
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		cs := w.containerStatus(pod, c, obs, reason)
		cs.Ready = cs.State.Running != nil && w.readyID(c, obs)
		s.ContainerStatuses = append(s.ContainerStatuses, cs)
	}
	for i := range pod.Spec.EphemeralContainers {
		cs := w.containerStatus(pod, asContainer(&pod.Spec.EphemeralContainers[i]), obs, "ContainerCreating")
		cs.Started, cs.Resources = nil, nil
		s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, cs)
	}
	if r := pod.Spec.Resources; r != nil {
		s.AllocatedResources, s.Resources = r.Requests.DeepCopy(), r.DeepCopy()
	}
	s.Phase = w.phase(pod, &s, initialized)
	if w.ending.why != nil && len(obs.running()) == 0 { // a pod has not ended while a container runs
		s.Phase, s.Reason, s.Message = v1.PodFailed, w.ending.why.reason, w.ending.why.message
	} else if terminal(pod.Status.Phase) {
		s.Phase, s.Reason, s.Message = pod.Status.Phase, pod.Status.Reason, pod.Status.Message
	}
	switch {
	case w.ending.why != nil && w.ending.why.rejected:
		s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses = nil, nil, nil // there are none
	case terminal(s.Phase) && len(obs.running()) == 0:
		locate(pod, &s)
	}
	s.Conditions = w.conditions(pod, &s, obs, initialized, now)
	return s
}
