package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

func (s *Scheduler) now() metav1.Time {
	return metav1.NewTime(s.Clock.Now().UTC().Truncate(time.Second))
}

// patchStatus writes what change changes of a pod's status, and nothing if it
// changes nothing.
func (s *Scheduler) patchStatus(ctx context.Context, pod *v1.Pod, change func(*v1.PodStatus)) error {
	was := &v1.Pod{Status: pod.Status}
	is := &v1.Pod{Status: *pod.Status.DeepCopy()}
	change(&is.Status)
	a, err := json.Marshal(was)
	if err != nil {
		return err
	}
	b, err := json.Marshal(is)
	if err != nil {
		return err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(a, b, &v1.Pod{})
	if err != nil {
		return fmt.Errorf("patching the status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if string(patch) == "{}" {
		return nil
	}
	_, err = s.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// setCondition sets a condition; the time of its last transition stays if its
// status does.
func setCondition(st *v1.PodStatus, c v1.PodCondition) {
	for i := range st.Conditions {
		have := &st.Conditions[i]
		if have.Type != c.Type {
			continue
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		c.LastProbeTime = have.LastProbeTime
		*have = c
		return
	}
	st.Conditions = append(st.Conditions, c)
}
