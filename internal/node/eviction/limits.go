package eviction

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// limits evicts each pod that uses more local storage than it may: in one of its
// emptyDir volumes, in all, or in one of its containers.
func (m *Manager) limits(pods []*v1.Pod, of func(*v1.Pod) (statsapi.PodStats, bool), dedicatedImageFs bool) (evicted []*v1.Pod) {
	for _, pod := range pods {
		st, ok := of(pod)
		if !ok {
			continue
		}
		if signal, message := exceeded(pod, &st, dedicatedImageFs); message != "" {
			if m.evict(pod, immediate, message, nil, nil, signal) {
				evicted = append(evicted, pod)
			}
		}
	}
	return evicted
}

// exceeded returns the first limit that the pod exceeds, by the signal of its
// metric and the message of the eviction.
func exceeded(pod *v1.Pod, st *statsapi.PodStats, dedicatedImageFs bool) (signal, message string) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.SizeLimit == nil || v.EmptyDir.SizeLimit.Sign() <= 0 {
			continue
		}
		for j := range st.VolumeStats {
			if s := &st.VolumeStats[j]; s.Name == v.Name && int64(value(s.UsedBytes)) > v.EmptyDir.SizeLimit.Value() {
				return "emptydirfs.limit", fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String())
			}
		}
	}
	limit, limited := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})[v1.ResourceEphemeralStorage]
	if limited && st.EphemeralStorage != nil && int64(value(st.EphemeralStorage.UsedBytes)) > limit.Value() {
		return "ephemeralpodfs.limit", fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		limit, limited := c.Resources.Limits[v1.ResourceEphemeralStorage]
		if !limited || limit.IsZero() {
			continue
		}
		for j := range st.Containers {
			s := &st.Containers[j]
			if s.Name != c.Name {
				continue
			}
			var used uint64
			if s.Logs != nil {
				used += value(s.Logs.UsedBytes)
			}
			if s.Rootfs != nil && !dedicatedImageFs {
				used += value(s.Rootfs.UsedBytes)
			}
			if int64(used) > limit.Value() {
				return "ephemeralcontainerfs.limit", fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit.String())
			}
		}
	}
	return "", ""
}
