package node

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/restart"
)

var everything = labels.Everything()

// containerID is a container's ID as statuses have it.
func (a *Agent) containerID(id string) string { return a.cri.RuntimeName + "://" + id }

// publish computes the pod's status and sends it if it has changed.
func (w *worker) publish(ctx context.Context, pod *v1.Pod, obs *observed) {
	w.mu.Lock()
	s := w.compute(pod, obs)
	w.status, w.statusSet = s, true
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
		w.posted = &s
	}
	if same || w.posting || w.posted != nil && equality.Semantic.DeepEqual(s, *w.posted) {
		w.mu.Unlock()
		return
	}
	w.posting = true
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
	w.posting = false
	switch {
	case err == nil:
		w.posted = &s
		if now := w.apiPod(); now == nil || now.ResourceVersion != base.ResourceVersion {
			break // it has changed since
		}
		if w.isStatic {
			w.mirror = got
		} else {
			w.pod = got
		}
	case apierrors.IsNotFound(err):
		w.posted = &s // nobody is left to tell
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

// settled tells whether the API has the status last computed.
func (w *worker) settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.posting && (!w.statusSet || w.posted != nil && equality.Semantic.DeepEqual(w.status, *w.posted))
}

func at(nanos int64) metav1.Time {
	if nanos == 0 {
		return metav1.Time{}
	}
	return metav1.NewTime(time.Unix(0, nanos).UTC().Truncate(time.Second))
}

// compute makes the status of the pod; w.mu is held.
func (w *worker) compute(pod *v1.Pod, obs *observed) v1.PodStatus {
	now := metav1.NewTime(w.a.Clock.Now().UTC().Truncate(time.Second))
	s := v1.PodStatus{
		QOSClass: qosClass(pod), NominatedNodeName: pod.Status.NominatedNodeName, StartTime: pod.Status.StartTime,
		ObservedGeneration: pod.Generation, ResourceClaimStatuses: pod.Status.ResourceClaimStatuses,
	}
	if w.statusSet && w.status.StartTime != nil {
		s.StartTime = w.status.StartTime
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
	if w.failed != nil && len(obs.running()) == 0 { // a pod has not ended while a container runs
		s.Phase, s.Reason, s.Message = v1.PodFailed, w.failed.reason, w.failed.message
	} else if terminal(pod.Status.Phase) {
		s.Phase, s.Reason, s.Message = pod.Status.Phase, pod.Status.Reason, pod.Status.Message
	}
	switch {
	case w.failed != nil && w.failed.rejected:
		s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses = nil, nil, nil // there are none
	case terminal(s.Phase) && len(obs.running()) == 0:
		locate(pod, &s)
	}
	s.Conditions = w.conditions(pod, &s, obs, initialized, now)
	return s
}

// readyID asks the probes of the container that is current.
func (w *worker) readyID(c *v1.Container, obs *observed) bool {
	st := obs.current(c.Name)
	return st != nil && w.probeReady(c, st.Id)
}

func (w *worker) containerStatus(pod *v1.Pod, c *v1.Container, obs *observed, creating string) v1.ContainerStatus {
	cs := v1.ContainerStatus{Name: c.Name, Image: c.Image, Started: ptr.To(false)}
	list := obs.containers[c.Name]
	cur := obs.newest(c.Name)
	if cur == nil {
		cs.State.Waiting = w.waitingFor(c.Name, creating)
		// What an agent before this one saw and the runtime has lost.
		if old := postedStatus(pod, c.Name); old != nil {
			cs.RestartCount, cs.LastTerminationState = old.RestartCount, old.LastTerminationState
			if old.State.Terminated != nil && terminal(pod.Status.Phase) {
				cs.State = old.State
			}
		}
		return cs
	}
	cs.RestartCount = restartCount(cur)
	cs.ContainerID = w.a.containerID(cur.Id)
	cs.ImageID = cur.ImageRef
	if n := cur.GetImage().GetUserSpecifiedImage(); n != "" {
		cs.Image = n
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		cs.StopSignal = signalOf(cur.StopSignal)
	}
	if u := cur.GetUser().GetLinux(); u != nil {
		cs.User = &v1.ContainerUser{Linux: &v1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}}
	}
	cs.AllocatedResources = c.Resources.Requests.DeepCopy()
	got := c.Resources
	if r, ok := w.given.Actuated[cur.Id]; ok && cur.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		got = r
	}
	cs.Resources = &v1.ResourceRequirements{Limits: got.Limits.DeepCopy(), Requests: got.Requests.DeepCopy()}
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		vm := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			vm.RecursiveReadOnly = ptr.To(v1.RecursiveReadOnlyDisabled)
		}
		cs.VolumeMounts = append(cs.VolumeMounts, vm)
	}
	if len(list) > 1 && list[1].State == runtimeapi.ContainerState_CONTAINER_EXITED {
		cs.LastTerminationState.Terminated = w.terminated(pod, c, list[1])
	} else if old := postedStatus(pod, c.Name); old != nil && cs.RestartCount > 0 {
		cs.LastTerminationState = old.LastTerminationState
		if last := lastRun(old); last != nil && last.Id != cur.Id && old.RestartCount < cs.RestartCount {
			cs.LastTerminationState.Terminated = w.terminated(pod, c, last) // the runtime has lost it since
		}
	}
	switch cur.State {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		cs.State.Running = &v1.ContainerStateRunning{StartedAt: at(cur.StartedAt)}
		// A container counts as started when its postStart hook is done.
		cs.Started = ptr.To(w.probeStarted(c, cur.Id) && !w.busy[c.Name])
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		t := w.terminated(pod, c, cur)
		switch wt, ok := w.waiting[c.Name]; {
		case cur.CreatedAt < obs.anew && w.stopping.IsZero() && !isEphemeral(pod, c.Name):
			cs.State.Waiting = w.waitingFor(c.Name, creating) // starts anew with all others
			cs.LastTerminationState = v1.ContainerState{Terminated: t}
		case ok && w.stopping.IsZero():
			cs.State.Waiting = &v1.ContainerStateWaiting{Reason: wt.reason, Message: wt.message}
			cs.LastTerminationState = v1.ContainerState{Terminated: t}
		default:
			cs.State.Terminated = t
		}
	default:
		cs.State.Waiting = w.waitingFor(c.Name, creating)
	}
	return cs
}

func (w *worker) waitingFor(name, creating string) *v1.ContainerStateWaiting {
	if wt, ok := w.waiting[name]; ok {
		return &v1.ContainerStateWaiting{Reason: wt.reason, Message: wt.message}
	}
	return &v1.ContainerStateWaiting{Reason: creating}
}

func (w *worker) terminated(pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus) *v1.ContainerStateTerminated {
	return &v1.ContainerStateTerminated{
		ExitCode: st.ExitCode, Reason: st.Reason, Message: w.termMessage(pod, c, st),
		StartedAt: at(st.StartedAt), FinishedAt: at(st.FinishedAt), ContainerID: w.a.containerID(st.Id),
	}
}

// termMessage is what the container left, or the end of its log.
func (w *worker) termMessage(pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus) string {
	if st.Annotations[annTermPath] != "" {
		if f, err := os.Open(w.a.termFile(pod, c.Name, restartCount(st))); err == nil {
			b, err := io.ReadAll(io.LimitReader(f, termMessageMax))
			f.Close()
			if err == nil && len(b) > 0 {
				return string(b)
			}
		}
	}
	if st.Annotations[annTermPolicy] == string(v1.TerminationMessageFallbackToLogsOnError) && st.ExitCode != 0 {
		return logTail(filepath.Join(w.a.podLogDir(pod), logPath(c.Name, restartCount(st))), 80, 2048)
	}
	return st.Message
}

// logTail gives the last lines of a log in CRI's format, at most size bytes.
func logTail(path string, lines, size int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 64<<10 {
		if _, err := f.Seek(-64<<10, io.SeekEnd); err != nil {
			return ""
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	var out bytes.Buffer
	all := strings.SplitAfter(string(b), "\n")
	if len(all) > lines+1 {
		all = all[len(all)-lines-1:]
	}
	for _, l := range all {
		// time, stream, tag, text
		if parts := strings.SplitN(l, " ", 4); len(parts) == 4 {
			out.WriteString(parts[3])
		}
	}
	t := out.String()
	if len(t) > size {
		t = t[len(t)-size:]
	}
	return t
}

// phase sums up the states of the containers. A container that has exited and
// is to run again is between two runs and counts as one that runs.
func (w *worker) phase(pod *v1.Pod, s *v1.PodStatus, initialized bool) v1.PodPhase {
	stopping := !w.stopping.IsZero()
	if !initialized {
		for i := range s.InitContainerStatuses {
			t, c := s.InitContainerStatuses[i].State.Terminated, &pod.Spec.InitContainers[i]
			if t != nil && t.ExitCode != 0 && !isSidecar(c) && restart.After(&pod.Spec, c, t.ExitCode) == restart.Nothing {
				return v1.PodFailed
			}
		}
		if stopping {
			return v1.PodFailed
		}
		return v1.PodPending
	}
	waiting, running, failed := 0, 0, 0
	for i := range s.ContainerStatuses {
		cs := &s.ContainerStatuses[i]
		t := cs.State.Terminated
		switch {
		case cs.State.Running != nil:
			running++
		case t != nil && !stopping && restart.After(&pod.Spec, &pod.Spec.Containers[i], t.ExitCode) != restart.Nothing:
			running++
		case t != nil && t.ExitCode != 0:
			failed++
		case t != nil:
		case cs.LastTerminationState.Terminated != nil && !stopping:
			running++
		default:
			waiting++
		}
	}
	switch {
	case waiting > 0 && !stopping:
		return v1.PodPending
	case running > 0:
		return v1.PodRunning
	case failed > 0 || waiting > 0:
		return v1.PodFailed
	}
	return v1.PodSucceeded
}

func (w *worker) conditions(pod *v1.Pod, s *v1.PodStatus, obs *observed, initialized bool, now metav1.Time) []v1.PodCondition {
	old := pod.Status.Conditions
	if w.statusSet {
		old = merge(w.status.Conditions, pod.Status.Conditions)
	}
	find := func(t v1.PodConditionType) *v1.PodCondition {
		for i := range old {
			if old[i].Type == t {
				return &old[i]
			}
		}
		return nil
	}
	var out []v1.PodCondition
	add := func(t v1.PodConditionType, ok bool, reason, message string) {
		c := v1.PodCondition{Type: t, Status: v1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: now, ObservedGeneration: pod.Generation}
		if ok {
			c.Status = v1.ConditionTrue
		}
		if o := find(t); o != nil && o.Status == c.Status {
			c.LastTransitionTime = o.LastTransitionTime
		}
		out = append(out, c)
	}
	done := s.Phase == v1.PodSucceeded
	var unready, uninit []string
	for i := range s.ContainerStatuses {
		if !s.ContainerStatuses[i].Ready {
			unready = append(unready, s.ContainerStatuses[i].Name)
		}
	}
	for i := range s.InitContainerStatuses {
		cs := &s.InitContainerStatuses[i]
		sidecar := isSidecar(&pod.Spec.InitContainers[i])
		if sidecar && !ptr.Deref(cs.Started, false) || !sidecar && !cs.Ready {
			uninit = append(uninit, cs.Name)
		}
		if sidecar && !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	listed := func(names []string) string { return "[" + strings.Join(names, " ") + "]" }
	add(v1.PodReadyToStartContainers, obs.ready() != nil, "", "")
	switch {
	case done:
		add(v1.PodInitialized, true, "PodCompleted", "")
	case initialized:
		add(v1.PodInitialized, true, "", "")
	default:
		add(v1.PodInitialized, false, "ContainersNotInitialized", "containers with incomplete status: "+listed(uninit))
	}
	ready, reason, message := true, "", ""
	switch {
	case done:
		ready, reason = false, "PodCompleted"
	case s.Phase == v1.PodFailed:
		ready, reason = false, "PodFailed"
	case len(unready) > 0 || !initialized:
		ready, reason, message = false, "ContainersNotReady", "containers with unready status: "+listed(unready)
	}
	gates, gateMessage := ready, ""
	for _, g := range pod.Spec.ReadinessGates {
		c := find(g.ConditionType)
		switch {
		case c == nil:
			gates = false
			gateMessage = "corresponding condition of pod readiness gate \"" + string(g.ConditionType) + "\" does not exist."
		case c.Status != v1.ConditionTrue:
			gates = false
			gateMessage = "the status of pod readiness gate \"" + string(g.ConditionType) + "\" is not \"True\", but " + string(c.Status)
		}
	}
	if ready && !gates {
		add(v1.PodReady, false, "ReadinessGatesNotReady", gateMessage)
	} else {
		add(v1.PodReady, ready, reason, message)
	}
	add(v1.ContainersReady, ready, reason, message)
	if c := find(v1.PodScheduled); c != nil {
		out = append(out, *c)
	} else {
		add(v1.PodScheduled, true, "", "")
	}
	if restart.CanRestartPod(&pod.Spec) {
		switch {
		case done:
			add(v1.AllContainersRestarting, false, "PodCompleted", "")
		case s.Phase == v1.PodFailed:
			add(v1.AllContainersRestarting, false, "PodFailed", "")
		case obs.stale(pod):
			add(v1.AllContainersRestarting, true, "RestartAllContainersStarted", "container exited with restart policy rule")
		default:
			add(v1.AllContainersRestarting, false, "", "")
		}
	}
	if w.failed != nil && w.failed.condition != nil {
		f := w.failed.condition
		add(f.Type, f.Status == v1.ConditionTrue, f.Reason, f.Message)
	}
	for i := range pod.Status.Conditions {
		if slices.ContainsFunc(out, func(c v1.PodCondition) bool { return c.Type == pod.Status.Conditions[i].Type }) {
			continue
		}
		switch c := &pod.Status.Conditions[i]; c.Type {
		case v1.AllContainersRestarting, v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled,
			v1.PodResizePending, v1.PodResizeInProgress:
		default:
			out = append(out, *c) // another controller's
		}
	}
	for _, c := range []*v1.PodCondition{w.pending, w.progress} {
		if c != nil {
			out = append(out, *c)
		}
	}
	return out
}

// merge is own, and what of others it does not have.
func merge(own, others []v1.PodCondition) []v1.PodCondition {
	out := append([]v1.PodCondition{}, own...)
next:
	for i := range others {
		for j := range own {
			if own[j].Type == others[i].Type {
				continue next
			}
		}
		out = append(out, others[i])
	}
	return out
}
