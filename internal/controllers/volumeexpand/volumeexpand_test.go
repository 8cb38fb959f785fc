package volumeexpand

import (
	"context"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestEvents(t *testing.T) {
	const message = "ExternalExpanding waiting for an external controller to expand this PVC"
	for kind, source := range map[string]v1.PersistentVolumeSource{
		"Normal":  {CSI: &v1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}},
		"Warning": {HostPath: &v1.HostPathVolumeSource{Path: "/x"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			c := controllertest.New(t, New)
			size := v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}
			claims := c.Client.CoreV1().PersistentVolumeClaims("ns")
			claim := controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.Create(ctx, &v1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"},
				Spec:       v1.PersistentVolumeClaimSpec{VolumeName: "v", Resources: v1.VolumeResourceRequirements{Requests: size}},
				Status:     v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound, Capacity: size},
			}, metav1.CreateOptions{}))
			controllertest.Must[*v1.PersistentVolume](t)(c.Client.CoreV1().PersistentVolumes().Create(ctx, &v1.PersistentVolume{
				ObjectMeta: metav1.ObjectMeta{Name: "v"},
				Spec:       v1.PersistentVolumeSpec{PersistentVolumeSource: source, ClaimRef: &v1.ObjectReference{UID: claim.UID}},
			}, metav1.CreateOptions{}))
			synctest.Wait()
			claim.Labels = map[string]string{"a": "b"}
			claim = controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.Update(ctx, claim, metav1.UpdateOptions{}))
			if e := c.Events(); len(e) != 0 {
				t.Errorf("events of a claim that asks for no more: %q", e)
			}
			claim.Spec.Resources.Requests = v1.ResourceList{v1.ResourceStorage: resource.MustParse("2Gi")}
			controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.Update(ctx, claim, metav1.UpdateOptions{}))
			c.HasEvent(kind + " " + message)
		})
	}
}
