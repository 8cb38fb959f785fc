package controllers

import (
	"math"
	"sort"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/api/podspec"
)

// RankForDeletion sorts pods so that those that are missed least come first, as
// upstream does. onNode counts, for each node, the active pods of the same
// workload there.
func RankForDeletion(pods []*v1.Pod, onNode map[string]int, now time.Time) {
	phase := map[v1.PodPhase]int{v1.PodPending: 0, v1.PodUnknown: 1, v1.PodRunning: 2}
	sort.Slice(pods, func(i, j int) bool {
		a, b := pods[i], pods[j]
		if a.Spec.NodeName != b.Spec.NodeName && (a.Spec.NodeName == "" || b.Spec.NodeName == "") {
			return a.Spec.NodeName == ""
		}
		if x, y := phase[a.Status.Phase], phase[b.Status.Phase]; x != y {
			return x < y
		}
		readyA, readyB := PodReady(a), PodReady(b)
		if readyA != readyB {
			return !readyA
		}
		if x, y := deletionCost(a), deletionCost(b); x != y {
			return x < y
		}
		if x, y := onNode[a.Spec.NodeName], onNode[b.Spec.NodeName]; x != y {
			return x > y
		}
		if readyA {
			x := podspec.Condition(a, v1.PodReady).LastTransitionTime
			y := podspec.Condition(b, v1.PodReady).LastTransitionTime
			if !x.Equal(&y) {
				if p, q := ageBucket(x, now), ageBucket(y, now); p != q {
					return p < q
				}
				return a.UID < b.UID
			}
		}
		if x, y := restarts(a), restarts(b); x != y {
			return x > y
		}
		if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
			if p, q := ageBucket(a.CreationTimestamp, now), ageBucket(b.CreationTimestamp, now); p != q {
				return p < q
			}
			return a.UID < b.UID
		}
		return false
	})
}

// ageBucket returns the logarithm of an age: pods of about the same age are chosen
// from by UID, that is, at random. An unknown time counts as the youngest.
func ageBucket(t metav1.Time, now time.Time) int64 {
	if t.IsZero() {
		return -2
	}
	d := now.Sub(t.Time)
	if d <= 0 {
		return -1
	}
	return int64(math.Log2(float64(d)))
}

func deletionCost(p *v1.Pod) int64 {
	n, err := strconv.ParseInt(p.Annotations["controller.kubernetes.io/pod-deletion-cost"], 10, 32)
	if err != nil {
		return 0
	}
	return n
}

func restarts(p *v1.Pod) (n int32) {
	for _, c := range p.Status.ContainerStatuses {
		n = max(n, c.RestartCount)
	}
	return n
}
