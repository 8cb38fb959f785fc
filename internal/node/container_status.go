package node

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

func at(nanos int64) metav1.Time {
	if nanos == 0 {
		return metav1.Time{}
	}
	return metav1.NewTime(time.Unix(0, nanos).UTC().Truncate(time.Second))
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
	if r, ok := w.resizing.given.Actuated[cur.Id]; ok && cur.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
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
		cs.Started = ptr.To(w.probeStarted(c, cur.Id) && !w.starts.busy[c.Name])
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		t := w.terminated(pod, c, cur)
		switch wt, ok := w.starts.waiting[c.Name]; {
		case cur.CreatedAt < obs.anew && w.ending.begun.IsZero() && !isEphemeral(pod, c.Name):
			cs.State.Waiting = w.waitingFor(c.Name, creating) // starts anew with all others
			cs.LastTerminationState = v1.ContainerState{Terminated: t}
		case ok && w.ending.begun.IsZero():
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
	if wt, ok := w.starts.waiting[name]; ok {
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

// termMessage gives the container's termination message, or the end of its log.
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
