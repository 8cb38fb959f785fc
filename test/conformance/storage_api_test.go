package conformance

import (
	"context"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

func storageResource(name string) schema.GroupVersionResource {
	return gvr("storage.k8s.io", "v1", name)
}

const (
	persistentVolume = `{apiVersion: v1, kind: PersistentVolume, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], storageClassName: none-such,
		csi: {driver: e2e-driver, volumeHandle: handle}}}`
	persistentVolumeClaim = `{apiVersion: v1, kind: PersistentVolumeClaim, spec: {resources: {requests: {storage: 1Gi}}, accessModes: [ReadWriteOnce], storageClassName: none-such-either}}`
	volumeAttachment      = `{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, spec: {attacher: e2e-driver, nodeName: none-such, source: {persistentVolumeName: none-such}}}`
)

var _ = It("[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver", func(t *T) {
	t.operate(operations{gvr: storageResource("csidrivers"), cluster: true,
		one: t.template(`{apiVersion: storage.k8s.io/v1, kind: CSIDriver, spec: {attachRequired: false, volumeLifecycleModes: [Ephemeral]}}`)})
})

var _ = It("[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode", func(t *T) {
	t.operate(operations{gvr: storageResource("csinodes"), cluster: true,
		one: t.template(`{apiVersion: storage.k8s.io/v1, kind: CSINode, spec: {drivers: [{name: e2e-driver, nodeID: node, topologyKeys: [zone], allocatable: {count: 1}}]}}`)})
})

var _ = It("[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations", func(t *T) {
	t.operate(operations{gvr: storageResource("csistoragecapacities"),
		one: t.template(`{apiVersion: storage.k8s.io/v1, kind: CSIStorageCapacity, storageClassName: e2e, capacity: 1Gi, maximumVolumeSize: 1Gi, nodeTopology: {matchLabels: {zone: a}}}`)})
})

var _ = It("[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass", func(t *T) {
	t.operate(operations{gvr: storageResource("storageclasses"), cluster: true,
		one: t.template(`{apiVersion: storage.k8s.io/v1, kind: StorageClass, provisioner: e2e-provisioner, parameters: {a: b}}`)})
})

var _ = It("[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass", func(t *T) {
	t.operate(operations{gvr: storageResource("volumeattributesclasses"), cluster: true,
		one: t.template(`{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, driverName: e2e-driver, parameters: {iops: "100"}}`)})
})

var _ = It("[sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment", func(t *T) {
	t.operate(operations{gvr: storageResource("volumeattachments"), cluster: true, one: t.template(volumeAttachment)})
})

var _ = It("[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status", func(t *T) {
	attachments := t.Dynamic.Resource(storageResource("volumeattachments"))
	name := t.template(volumeAttachment)("va-" + t.NS)
	got[*unstructured.Unstructured](t)(attachments.Create(t.Context(), name, create))
	attached := func(u *unstructured.Unstructured) bool {
		is, _, _ := unstructured.NestedBool(u.Object, "status", "attached")
		return is
	}
	u := got[*unstructured.Unstructured](t)(attachments.Patch(t.Context(), name.GetName(), types.MergePatchType, patchOf(dict{"status": dict{"attached": true}}), metav1.PatchOptions{}, "status"))
	if !attached(u) || !attached(got[*unstructured.Unstructured](t)(attachments.Get(t.Context(), name.GetName(), get, "status"))) {
		t.Errorf("the status after the patch: %v", u.Object["status"])
	}
	u = t.change(attachments, name.GetName(), "status", func(u *unstructured.Unstructured) {
		u.Object["status"] = dict{"attached": false, "detachError": dict{"message": "no luck"}}
	})
	if attached(u) {
		t.Errorf("the status after the update: %v", u.Object["status"])
	}
	t.must(attachments.Delete(t.Context(), name.GetName(), remove))
	t.gone(attachments, name.GetName())
})

var _ = It("[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC", func(t *T) {
	t.operate(operations{gvr: gvr("", "v1", "persistentvolumes"), cluster: true, one: t.template(persistentVolume)})
	t.operate(operations{gvr: gvr("", "v1", "persistentvolumeclaims"), one: t.template(persistentVolumeClaim)})

	// The volume and the claim are bound to each other, and the deletion of the
	// claim releases the volume.
	class := "class-" + t.NS
	v := t.template(persistentVolume)("v-" + t.NS)
	c := t.template(persistentVolumeClaim)("c")
	for _, u := range []*unstructured.Unstructured{v, c} {
		t.must(unstructured.SetNestedField(u.Object, class, "spec", "storageClassName"))
	}
	t.must(unstructured.SetNestedField(v.Object, "Retain", "spec", "persistentVolumeReclaimPolicy"))
	volumes, claims := t.Dynamic.Resource(gvr("", "v1", "persistentvolumes")), t.Dynamic.Resource(gvr("", "v1", "persistentvolumeclaims")).Namespace(t.NS)
	got[*unstructured.Unstructured](t)(volumes.Create(t.Context(), v, create))
	got[*unstructured.Unstructured](t)(claims.Create(t.Context(), c, create))
	phase := func(want string) {
		t.Helper()
		t.until("the volume's phase "+want, func(ctx context.Context) (bool, error) {
			v, err := t.Client.CoreV1().PersistentVolumes().Get(ctx, v.GetName(), get)
			return err == nil && string(v.Status.Phase) == want, err
		})
	}
	phase("Bound")
	t.until("the claim to be bound", func(ctx context.Context) (bool, error) {
		c, err := t.Client.CoreV1().PersistentVolumeClaims(t.NS).Get(ctx, "c", get)
		return err == nil && c.Status.Phase == v1.ClaimBound && c.Spec.VolumeName == v.GetName(), err
	})
	t.must(claims.Delete(t.Context(), "c", remove))
	t.gone(claims, "c")
	phase("Released")
	t.must(volumes.Delete(t.Context(), v.GetName(), remove))
	t.gone(volumes, v.GetName())
})

var _ = It("[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status", func(t *T) {
	volumes, claims := t.Client.CoreV1().PersistentVolumes(), t.Client.CoreV1().PersistentVolumeClaims(t.NS)
	name := "v-" + t.NS
	got[*unstructured.Unstructured](t)(t.Dynamic.Resource(gvr("", "v1", "persistentvolumes")).Create(t.Context(), t.template(persistentVolume)(name), create))
	defer func() { t.must(volumes.Delete(t.Context(), name, remove)) }()
	got[*unstructured.Unstructured](t)(t.Dynamic.Resource(gvr("", "v1", "persistentvolumeclaims")).Namespace(t.NS).Create(t.Context(), t.template(persistentVolumeClaim)("c"), create))

	got[*v1.PersistentVolume](t)(volumes.Get(t.Context(), name, get))
	v := got[*v1.PersistentVolume](t)(volumes.Patch(t.Context(), name, types.MergePatchType, patchOf(dict{"status": dict{"message": "StatusPatched", "reason": "E2E patchStatus"}}), metav1.PatchOptions{}, "status"))
	if v.Status.Message != "StatusPatched" || v.Status.Reason != "E2E patchStatus" {
		t.Errorf("the volume's status after the patch: %+v", v.Status)
	}
	t.until("an update of the volume's status", func(ctx context.Context) (bool, error) {
		v := got[*v1.PersistentVolume](t)(volumes.Get(ctx, name, get))
		v.Status.Message = "StatusUpdated"
		v, err := volumes.UpdateStatus(ctx, v, update)
		if apierrors.IsConflict(err) {
			return false, nil
		}
		return err == nil && v.Status.Message == "StatusUpdated", err
	})
	condition := dict{"type": "StatusPatched", "status": "True", "reason": "E2E patchedStatus", "message": "Set from e2e test"}
	c := got[*v1.PersistentVolumeClaim](t)(claims.Patch(t.Context(), "c", types.MergePatchType, patchOf(dict{"status": dict{"conditions": []any{condition}}}), metav1.PatchOptions{}, "status"))
	has := func(c *v1.PersistentVolumeClaim, kind string) bool {
		for i := range c.Status.Conditions {
			if string(c.Status.Conditions[i].Type) == kind {
				return true
			}
		}
		return false
	}
	if !has(c, "StatusPatched") {
		t.Errorf("the claim's conditions after the patch: %v", c.Status.Conditions)
	}
	t.until("an update of the claim's status", func(ctx context.Context) (bool, error) {
		c := got[*v1.PersistentVolumeClaim](t)(claims.Get(ctx, "c", get))
		c.Status.Conditions = append(c.Status.Conditions, v1.PersistentVolumeClaimCondition{Type: "StatusUpdated", Status: v1.ConditionTrue})
		c, err := claims.UpdateStatus(ctx, c, update)
		if apierrors.IsConflict(err) {
			return false, nil
		}
		return err == nil && has(c, "StatusUpdated"), err
	})
})

var _ = It("[sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API", func(t *T) {
	pods := t.Client.CoreV1().Pods(t.NS)
	inline := func(name string) *v1.Pod {
		p := pod(name, map[string]string{"e2e": "inline"})
		p.Spec.NodeSelector = map[string]string{"no": "node"} // no node matches
		p.Spec.Volumes = []v1.Volume{{Name: "csi", VolumeSource: v1.VolumeSource{CSI: &v1.CSIVolumeSource{
			Driver: "inline-driver", ReadOnly: ptr.To(true), FSType: ptr.To("ext4"), VolumeAttributes: map[string]string{"a": "b"}, NodePublishSecretRef: &v1.LocalObjectReference{Name: "s"}}}}}
		return p
	}
	mine := metav1.ListOptions{LabelSelector: "e2e=inline"}
	t.makePod(inline("a"))
	p := got[*v1.Pod](t)(pods.Get(t.Context(), "a", get))
	var c *v1.CSIVolumeSource
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Name == "csi" {
			c = p.Spec.Volumes[i].CSI
		}
	}
	if c == nil || c.Driver != "inline-driver" || !ptr.Deref(c.ReadOnly, false) || ptr.Deref(c.FSType, "") != "ext4" || c.VolumeAttributes["a"] != "b" || c.NodePublishSecretRef.Name != "s" {
		t.Errorf("the volume is %+v", c)
	}
	list := got[*v1.PodList](t)(pods.List(t.Context(), mine))
	mine.ResourceVersion = list.ResourceVersion
	w := got[watch.Interface](t)(pods.Watch(t.Context(), mine))
	defer w.Stop()
	got[*v1.Pod](t)(pods.Patch(t.Context(), "a", types.MergePatchType, patchOf(dict{"metadata": dict{"annotations": dict{"patched": "yes"}}}), metav1.PatchOptions{}))
	t.event(w, watch.Modified, nil)
	if _, err := pods.Create(t.Context(), inline("a"), create); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a second creation: %v", err)
	}
	t.makePod(inline("b"))
	if l := got[*v1.PodList](t)(pods.List(t.Context(), metav1.ListOptions{LabelSelector: "e2e=inline"})); len(l.Items) != 2 {
		t.Errorf("%d pods are listed, want 2", len(l.Items))
	}
	t.must(pods.DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, metav1.ListOptions{LabelSelector: "e2e=inline"}))
	t.event(w, watch.Deleted, nil)
})
