package statefulset

import (
	"strconv"
	"strings"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
)

// identity returns the name of the set that a pod's name says it is of, and its
// ordinal there; the ordinal of any other pod is -1.
func identity(pod *v1.Pod) (set string, ordinal int) { return splitName(pod.Name) }

func splitName(name string) (string, int) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return "", -1
	}
	n, err := strconv.ParseUint(name[i+1:], 10, 31)
	if err != nil {
		return "", -1
	}
	return name[:i], int(n)
}

func podName(set *apps.StatefulSet, ordinal int) string {
	return set.Name + "-" + strconv.Itoa(ordinal)
}

// first returns the ordinal of the first replica of a set.
func first(set *apps.StatefulSet) int {
	if set.Spec.Ordinals == nil {
		return 0
	}
	return int(set.Spec.Ordinals.Start)
}

func replicasOf(set *apps.StatefulSet) int { return int(ptr.Deref(set.Spec.Replicas, 1)) }

// within reports whether an ordinal is that of a replica which the set wants.
func within(set *apps.StatefulSet, ordinal int) bool {
	return ordinal >= first(set) && ordinal < first(set)+replicasOf(set)
}

// revisionOf returns the name of the revision that a pod was made of.
func revisionOf(pod *v1.Pod) string { return pod.Labels[apps.StatefulSetRevisionLabel] }

// newPod makes the pod of a set's ordinal of a template, at a revision.
func newPod(set *apps.StatefulSet, template *v1.PodTemplateSpec, revision string, ordinal int) *v1.Pod {
	pod := controllers.PodFromTemplate(template, set, metav1.NewControllerRef(set, gvk))
	pod.Name = podName(set, ordinal)
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, set.Spec.ServiceName
	identify(set, pod)
	mount(set, pod)
	pod.Labels[apps.StatefulSetRevisionLabel] = revision
	return pod
}

// identify gives a pod the labels of its place in the set.
func identify(set *apps.StatefulSet, pod *v1.Pod) {
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	_, ordinal := identity(pod)
	pod.Labels[apps.StatefulSetPodNameLabel] = pod.Name
	pod.Labels[apps.PodIndexLabel] = strconv.Itoa(ordinal)
}

// identified reports whether a pod has the labels that identify gives.
func identified(pod *v1.Pod) bool { return pod.Labels[apps.StatefulSetPodNameLabel] == pod.Name }

// mount puts the pod's claims in the place of its volumes of the same names.
func mount(set *apps.StatefulSet, pod *v1.Pod) {
	claims := map[string]bool{}
	var volumes []v1.Volume
	_, ordinal := identity(pod)
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		claims[t.Name] = true
		volumes = append(volumes, v1.Volume{Name: t.Name, VolumeSource: v1.VolumeSource{
			PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(t, set, ordinal)}}})
	}
	for _, v := range pod.Spec.Volumes {
		if !claims[v.Name] {
			volumes = append(volumes, v)
		}
	}
	pod.Spec.Volumes = volumes
}

// mounted reports whether a pod has its claims.
func mounted(set *apps.StatefulSet, pod *v1.Pod) bool {
	has := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			has[v.Name] = v.PersistentVolumeClaim.ClaimName
		}
	}
	_, ordinal := identity(pod)
	for i := range set.Spec.VolumeClaimTemplates {
		if t := &set.Spec.VolumeClaimTemplates[i]; has[t.Name] != claimName(t, set, ordinal) {
			return false
		}
	}
	return true
}
