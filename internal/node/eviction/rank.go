package eviction

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// usage is how much a pod uses of a resource, and how much it has requested.
type usage struct{ used, requested int64 }

func (u usage) exceeds() bool { return u.used > u.requested }
func (u usage) excess() int64 { return u.used - u.requested }

// rank orders the pods for eviction: where memory or disk is short, those first
// that use more than they have asked for, then those of the lowest priority,
// then those with the most above their request. Where process IDs are short,
// requests do not count. Pods without stats come first.
func rank(pods []*v1.Pod, of func(*v1.Pod) (statsapi.PodStats, bool), s Signal, dedicatedImageFs bool) {
	type measured struct {
		known bool
		usage
	}
	all := make(map[*v1.Pod]measured, len(pods))
	for _, p := range pods {
		if st, ok := of(p); ok {
			all[p] = measured{true, measure(p, &st, s, dedicatedImageFs)}
		}
	}
	first := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	slices.SortStableFunc(pods, func(p, q *v1.Pod) int {
		a, b := all[p], all[q]
		priority := cmp.Compare(corev1helpers.PodPriority(p), corev1helpers.PodPriority(q))
		most := first(!a.known, !b.known)
		if a.known && b.known {
			most = cmp.Compare(b.excess(), a.excess())
		}
		if signals[s].resource == pids {
			return cmp.Or(priority, most)
		}
		exceeds := first(!a.known, !b.known)
		if a.known && b.known {
			exceeds = first(a.exceeds(), b.exceeds())
		}
		return cmp.Or(exceeds, priority, most)
	})
}

// measure returns the pod's usage of what the signal is of.
func measure(p *v1.Pod, st *statsapi.PodStats, s Signal, dedicatedImageFs bool) usage {
	request := func(name v1.ResourceName) int64 {
		q := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})[name]
		return q.Value()
	}
	switch signals[s].resource {
	case v1.ResourceMemory:
		var used uint64
		if st.Memory != nil {
			used = value(st.Memory.WorkingSetBytes)
		}
		return usage{int64(used), request(v1.ResourceMemory)}
	case pids:
		var used uint64
		if st.ProcessStats != nil {
			used = value(st.ProcessStats.ProcessCount)
		}
		return usage{int64(used), 0}
	}
	bytes, files := diskUsage(p, st, s, dedicatedImageFs)
	if signals[s].resource == inodes {
		return usage{files, 0}
	}
	return usage{bytes, request(v1.ResourceEphemeralStorage)}
}

// diskUsage returns the pod's use of the file system of the signal, in bytes and
// inodes: logs and local volumes are on the node's, the containers' writable
// layers on the images'; where both are one, the sum.
func diskUsage(p *v1.Pod, st *statsapi.PodStats, s Signal, dedicatedImageFs bool) (bytes, files int64) {
	add := func(f *statsapi.FsStats) {
		if f != nil {
			bytes += int64(value(f.UsedBytes))
			files += int64(value(f.InodesUsed))
		}
	}
	nodeFs := s == NodeFsAvailable || s == NodeFsInodesFree
	for i := range st.Containers {
		if !dedicatedImageFs || !nodeFs {
			add(st.Containers[i].Rootfs)
		}
		if !dedicatedImageFs || nodeFs {
			add(st.Containers[i].Logs)
		}
	}
	if dedicatedImageFs && !nodeFs {
		return bytes, files
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.HostPath == nil && !IsLocalEphemeral(v) {
			continue
		}
		for j := range st.VolumeStats {
			if st.VolumeStats[j].Name == v.Name {
				add(&st.VolumeStats[j].FsStats)
			}
		}
	}
	return bytes, files
}

// IsLocalEphemeral reports whether what is in the volume counts as the pod's
// ephemeral storage.
func IsLocalEphemeral(v *v1.Volume) bool {
	return v.GitRepo != nil || v.ConfigMap != nil || v.EmptyDir != nil && v.EmptyDir.Medium == v1.StorageMediumDefault
}

func value(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}
