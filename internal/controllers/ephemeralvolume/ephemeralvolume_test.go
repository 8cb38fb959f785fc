package ephemeralvolume

import (
	"context"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestClaims(t *testing.T) {
	ctx := context.Background()
	synctest.Test(t, func(t *testing.T) {
		c := controllertest.New(t, New)
		claims := c.Client.CoreV1().PersistentVolumeClaims("ns")
		alien := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p-taken"}}
		controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.Create(ctx, alien, metav1.CreateOptions{}))
		volume := func(name string) v1.Volume {
			return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{VolumeClaimTemplate: &v1.PersistentVolumeClaimTemplate{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}},
				Spec:       v1.PersistentVolumeClaimSpec{AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}},
			}}}}
		}
		pod := controllertest.Must[*v1.Pod](t)(c.Client.CoreV1().Pods("ns").Create(ctx, &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: v1.PodSpec{Volumes: []v1.Volume{volume("taken"), volume("data")}},
		}, metav1.CreateOptions{}))
		ended := pod.DeepCopy()
		ended.ObjectMeta = metav1.ObjectMeta{Namespace: "ns", Name: "ended"}
		ended.Status.Phase = v1.PodSucceeded
		controllertest.Must[*v1.Pod](t)(c.Client.CoreV1().Pods("ns").Create(ctx, ended, metav1.CreateOptions{}))
		check := func() {
			t.Helper()
			synctest.Wait()
			list := controllertest.Must[*v1.PersistentVolumeClaimList](t)(claims.List(ctx, metav1.ListOptions{}))
			if len(list.Items) != 2 {
				t.Fatalf("%d claims, want the alien one and the pod's", len(list.Items))
			}
			got := controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.Get(ctx, "p-data", metav1.GetOptions{}))
			if err := ephemeral.VolumeIsForPod(pod, got); err != nil || got.Labels["a"] != "b" || got.Annotations["c"] != "d" || len(got.Spec.AccessModes) != 1 {
				t.Errorf("claim %v: %v", got, err)
			}
		}
		check()
		c.HasEvent(`Warning FailedBinding ephemeral volume taken: PVC ns/p-taken was not created for pod ns/p (pod is not owner)`)
		controllertest.Must[any](t)(nil, claims.Delete(ctx, "p-data", metav1.DeleteOptions{}))
		check()
	})
}
