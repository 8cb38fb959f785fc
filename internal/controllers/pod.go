package controllers

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/dump"

	"keelson.dev/keelson/internal/api/podspec"
)

// PodReady reports whether the pod's Ready condition is true.
func PodReady(pod *v1.Pod) bool {
	c := podspec.Condition(pod, v1.PodReady)
	return c != nil && c.Status == v1.ConditionTrue
}

// PodAvailable reports whether the pod has been ready for minReadySeconds. Where
// it has not but is ready, wait is the time until then.
func PodAvailable(pod *v1.Pod, minReadySeconds int32, now time.Time) (ok bool, wait time.Duration) {
	c := podspec.Condition(pod, v1.PodReady)
	if c == nil || c.Status != v1.ConditionTrue {
		return false, 0
	}
	if minReadySeconds == 0 {
		return true, 0
	}
	if c.LastTransitionTime.IsZero() {
		return false, 0
	}
	wait = time.Duration(minReadySeconds)*time.Second - now.Sub(c.LastTransitionTime.Time)
	return wait <= 0, max(wait, 0)
}

// PodTerminated reports whether all of the pod's containers are done for good.
func PodTerminated(pod *v1.Pod) bool {
	return pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
}

// PodActive reports whether the pod counts as a replica.
func PodActive(pod *v1.Pod) bool { return !PodTerminated(pod) && pod.DeletionTimestamp == nil }

const (
	// ownerIndex indexes pods by the UID of their controller and, where they have
	// none, by their namespace.
	ownerIndex = "keelson/owner"
	// nodeIndex indexes pods by the node that they are bound to.
	nodeIndex = "keelson/node"
)

// IndexPods adds the indexes that PodsOf and PodsOn read. It must be called
// before the informer starts, and may be called by each controller.
func IndexPods(inf cache.SharedIndexInformer) {
	// The error is that the indexes are there already.
	_ = inf.AddIndexers(cache.Indexers{nodeIndex: func(obj any) ([]string, error) {
		pod, ok := obj.(*v1.Pod)
		if !ok || pod.Spec.NodeName == "" {
			return nil, nil
		}
		return []string{pod.Spec.NodeName}, nil
	}, ownerIndex: func(obj any) ([]string, error) {
		pod, ok := obj.(*v1.Pod)
		if !ok {
			return nil, nil
		}
		if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
			return []string{string(ref.UID)}, nil
		}
		return []string{"orphan/" + pod.Namespace}, nil
	}})
}

// PodsOf returns owner's pods, and those without a controller in its namespace
// where orphans are wanted.
func PodsOf(ix cache.Indexer, owner metav1.Object, orphans bool) ([]*v1.Pod, error) {
	keys := []string{string(owner.GetUID())}
	if orphans {
		keys = append(keys, "orphan/"+owner.GetNamespace())
	}
	return podsBy(ix, ownerIndex, keys...)
}

// PodsOn returns the pods that are bound to a node.
func PodsOn(ix cache.Indexer, node string) ([]*v1.Pod, error) { return podsBy(ix, nodeIndex, node) }

func podsBy(ix cache.Indexer, index string, keys ...string) ([]*v1.Pod, error) {
	var pods []*v1.Pod
	for _, k := range keys {
		objs, err := ix.ByIndex(index, k)
		if err != nil {
			return nil, err
		}
		pods = slices.Grow(pods, len(objs))
		for _, o := range objs {
			pods = append(pods, o.(*v1.Pod))
		}
	}
	return pods, nil
}

// PatchPod returns the function by which a Claimer patches pods.
func PatchPod(client kubernetes.Interface) func(context.Context, *v1.Pod, []byte) error {
	return func(ctx context.Context, p *v1.Pod, data []byte) error {
		_, err := client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
		return err
	}
}

// PodFromTemplate makes an owner's pod. Its name is left to the API server,
// after the owner's.
func PodFromTemplate(t *v1.PodTemplateSpec, owner metav1.Object, ref *metav1.OwnerReference) *v1.Pod {
	prefix := owner.GetName() + "-"
	// A name that is too long for a pod is left as it is: the API server cuts
	// generated names.
	t = t.DeepCopy()
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:    owner.GetNamespace(),
			GenerateName: prefix,
			Labels:       t.Labels,
			Annotations:  t.Annotations,
			Finalizers:   t.Finalizers,
		},
		Spec: t.Spec,
	}
	if ref != nil {
		pod.OwnerReferences = []metav1.OwnerReference{*ref}
	}
	return pod
}

// TemplateHash returns the pod-template-hash of a template: upstream's value, so
// that a Deployment finds the ReplicaSets it had there.
func TemplateHash(t *v1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(*t))
	if collisions != nil {
		var b [8]byte
		binary.LittleEndian.PutUint32(b[:], uint32(*collisions))
		h.Write(b[:])
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}
