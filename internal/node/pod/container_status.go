package pod

import (
	"bytes"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/beneath"
	"keelson.dev/keelson/internal/node/convert"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/logs"
	"keelson.dev/keelson/internal/node/podspec"
)

func at(nanos int64) metav1.Time {
	if nanos == 0 {
		return metav1.Time{}
	}
	return metav1.NewTime(time.Unix(0, nanos).UTC().Truncate(time.Second))
}

// termMessageMax is how much of a termination message is read, in bytes.
const termMessageMax = 4096

// ready asks the probes of the container that is current.
func (sm *summary) ready(c *v1.Container) bool {
	st := sm.obs.current(c.Name)
	return st != nil && sm.probes.ready(c, st.Id)
}

// containerStatus returns the status of a container; one that waits for nothing in
// particular waits for the reason creating.
func (sm *summary) containerStatus(c *v1.Container, creating string) v1.ContainerStatus {
	pod, obs := sm.pod, sm.obs
	cs := v1.ContainerStatus{Name: c.Name, Image: c.Image, Started: ptr.To(false)}
	list := obs.containers[c.Name]
	cur := obs.newest(c.Name)
	if cur == nil {
		cs.State.Waiting = sm.waitingFor(c.Name, creating)
		// What an agent before this one saw and the runtime has lost.
		if old := podspec.Status(pod, c.Name); old != nil {
			cs.RestartCount, cs.LastTerminationState = old.RestartCount, old.LastTerminationState
			if old.State.Terminated != nil && podspec.Terminal(pod.Status.Phase) {
				cs.State = old.State
			}
		}
		return cs
	}
	cs.RestartCount = cri.RestartCount(cur)
	cs.ContainerID = sm.containerID(cur.Id)
	cs.ImageID = cur.ImageRef
	if n := cur.GetImage().GetUserSpecifiedImage(); n != "" {
		cs.Image = n
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		cs.StopSignal = convert.Signal(cur.StopSignal)
	}
	if u := cur.GetUser().GetLinux(); u != nil {
		cs.User = &v1.ContainerUser{Linux: &v1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}}
	}
	cs.AllocatedResources = c.Resources.Requests.DeepCopy()
	got := c.Resources
	if r, ok := sm.resizing.of(cur.Id); ok && cur.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		got = r
	}
	cs.Resources = &v1.ResourceRequirements{Limits: got.Limits.DeepCopy(), Requests: got.Requests.DeepCopy()}
	if !podspec.IsEphemeral(pod, c.Name) {
		cs.AllocatedResourcesStatus = slices.Concat(sm.Exclusive.Statuses(pod.UID, c.Name), sm.Devices.Statuses(pod, c))
	}
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		vm := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			vm.RecursiveReadOnly = ptr.To(v1.RecursiveReadOnlyDisabled)
		}
		cs.VolumeMounts = append(cs.VolumeMounts, vm)
	}
	if len(list) > 1 && list[1].State == runtimeapi.ContainerState_CONTAINER_EXITED {
		cs.LastTerminationState.Terminated = sm.terminated(list[1])
	} else if old := podspec.Status(pod, c.Name); old != nil && cs.RestartCount > 0 {
		cs.LastTerminationState = old.LastTerminationState
		if last := lastRun(old); last != nil && last.Id != cur.Id && old.RestartCount < cs.RestartCount {
			cs.LastTerminationState.Terminated = sm.terminated(last) // the runtime has lost it since
		}
	}
	switch cur.State {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		cs.State.Running = &v1.ContainerStateRunning{StartedAt: at(cur.StartedAt)}
		// A container counts as started when its postStart hook is done.
		cs.Started = ptr.To(sm.probes.started(c, cur.Id) && !sm.starts.isBusy(c.Name))
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		t := sm.terminated(cur)
		switch wt, ok := sm.starts.waitingFor(c.Name); {
		case cur.CreatedAt < obs.anew && sm.ending.begun.IsZero() && !podspec.IsEphemeral(pod, c.Name):
			cs.State.Waiting = sm.waitingFor(c.Name, creating) // starts anew with all others
			cs.LastTerminationState = v1.ContainerState{Terminated: t}
		case ok && sm.ending.begun.IsZero() && runsAgain(pod, c, cur):
			cs.State.Waiting = &v1.ContainerStateWaiting{Reason: wt.reason, Message: wt.message}
			cs.LastTerminationState = v1.ContainerState{Terminated: t}
		default:
			cs.State.Terminated = t
		}
	default:
		cs.State.Waiting = sm.waitingFor(c.Name, creating)
	}
	return cs
}

func (sm *summary) waitingFor(name, creating string) *v1.ContainerStateWaiting {
	if wt, ok := sm.starts.waitingFor(name); ok {
		return &v1.ContainerStateWaiting{Reason: wt.reason, Message: wt.message}
	}
	return &v1.ContainerStateWaiting{Reason: creating}
}

func (sm *summary) terminated(st *runtimeapi.ContainerStatus) *v1.ContainerStateTerminated {
	return &v1.ContainerStateTerminated{
		ExitCode: st.ExitCode, Reason: st.Reason, Message: sm.termMessage(st),
		StartedAt: at(st.StartedAt), FinishedAt: at(st.FinishedAt), ContainerID: sm.containerID(st.Id),
	}
}

// termMessage returns the container's termination message, or the end of its log.
func (sm *summary) termMessage(st *runtimeapi.ContainerStatus) string {
	if st.Annotations[cri.TerminationPathAnnotation] != "" {
		path := sm.Layout.Termination(sm.pod, st.Labels[cri.ContainerNameLabel], cri.RestartCount(st))
		if f, err := beneath.OpenFile(filepath.Dir(path), filepath.Base(path)); err == nil {
			b, err := io.ReadAll(io.LimitReader(f, termMessageMax))
			f.Close()
			if err == nil && len(b) > 0 {
				return string(b)
			}
		}
	}
	if st.Annotations[cri.TerminationPolicyAnnotation] == string(v1.TerminationMessageFallbackToLogsOnError) && st.ExitCode != 0 {
		return logTail(sm.Layout.Log(sm.pod, st.Labels[cri.ContainerNameLabel], cri.RestartCount(st)), 80, 2048)
	}
	return st.Message
}

// logTail returns the last lines of a log in CRI's format, at most size bytes.
func logTail(path string, lines, size int) string {
	f, err := logs.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 64<<10 {
		if _, err := f.Seek(-64<<10, io.SeekEnd); err != nil {
			return ""
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, 64<<10)) // it may grow meanwhile
	if err != nil {
		return ""
	}
	var out bytes.Buffer
	all := strings.SplitAfter(string(b), "\n")
	if len(all) > lines+1 {
		all = all[len(all)-lines-1:]
	}
	for _, l := range all {
		// time, stream, tag, text; a text of the tag P is no whole line
		if parts := strings.SplitN(l, " ", 4); len(parts) == 4 {
			if parts[2] == "P" {
				parts[3] = strings.TrimSuffix(parts[3], "\n")
			}
			out.WriteString(parts[3])
		}
	}
	t := out.String()
	if len(t) > size {
		t = t[len(t)-size:]
	}
	return t
}
