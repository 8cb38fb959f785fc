package volumeprotection

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

func user(name, node string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v1.PodSpec{NodeName: node, Volumes: []v1.Volume{{Name: "x",
		VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}}}
}

// TestClaims checks that the condition Unused follows the pods that name the
// claim, and a claim that is deleted waits for those that can use it.
func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controllertest.New(t, NewClaims)
		claims, pods := c.Client.CoreV1().PersistentVolumeClaims("ns"), c.Client.CoreV1().Pods("ns")
		start := time.Now()
		controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.Create(ctx, &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", Finalizers: []string{claimFinalizer}}}, metav1.CreateOptions{}))
		want := func(status v1.ConditionStatus, reason string, since time.Time) {
			t.Helper()
			synctest.Wait()
			got := controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.Get(ctx, "c", metav1.GetOptions{})).Status.Conditions
			if len(got) != 1 || got[0].Type != "Unused" || got[0].Status != status || got[0].Reason != reason || !got[0].LastTransitionTime.Time.Equal(since) {
				t.Errorf("conditions %v, want %s %s since %s", got, status, reason, since)
			}
		}
		want(v1.ConditionTrue, "NoPodsUsingPVC", start)
		c.Advance(time.Minute)
		pod := controllertest.Must[*v1.Pod](t)(pods.Create(ctx, user("p", ""), metav1.CreateOptions{}))
		used := time.Now()
		want(v1.ConditionFalse, "PodUsingPVC", used)
		c.Advance(time.Minute)
		c.SetPhase(pod, v1.PodSucceeded)
		want(v1.ConditionTrue, "NoPodsUsingPVC", time.Now())
		running := controllertest.Must[*v1.Pod](t)(pods.Create(ctx, user("q", "n"), metav1.CreateOptions{}))
		want(v1.ConditionFalse, "PodUsingPVC", time.Now())
		controllertest.Must[any](t)(nil, claims.Delete(ctx, "c", metav1.DeleteOptions{}))
		c.Advance(time.Minute)
		controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.Get(ctx, "c", metav1.GetOptions{}))
		c.SetPhase(running, v1.PodFailed)
		if _, err := claims.Get(ctx, "c", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the claim that nothing uses: %v", err)
		}
	})
}

func TestVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controllertest.New(t, NewVolumes)
		volumes := c.Client.CoreV1().PersistentVolumes()
		v := controllertest.Must[*v1.PersistentVolume](t)(volumes.Create(ctx, &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "v", Finalizers: []string{volumeFinalizer}}, Status: v1.PersistentVolumeStatus{Phase: v1.VolumeBound}}, metav1.CreateOptions{}))
		controllertest.Must[any](t)(nil, volumes.Delete(ctx, "v", metav1.DeleteOptions{}))
		synctest.Wait()
		v = controllertest.Must[*v1.PersistentVolume](t)(volumes.Get(ctx, v.Name, metav1.GetOptions{}))
		v.Status.Phase = v1.VolumeReleased
		controllertest.Must[*v1.PersistentVolume](t)(volumes.UpdateStatus(ctx, v, metav1.UpdateOptions{}))
		synctest.Wait()
		if _, err := volumes.Get(ctx, "v", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the volume that no claim has: %v", err)
		}
	})
}

// TestAttributesClasses checks that a class gets the finalizer, and goes when the
// claim that has it has another one.
func TestAttributesClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controllertest.New(t, NewAttributesClasses)
		classes, claims := c.Client.StorageV1().VolumeAttributesClasses(), c.Client.CoreV1().PersistentVolumeClaims("ns")
		claim := controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.Create(ctx, &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}, Status: v1.PersistentVolumeClaimStatus{CurrentVolumeAttributesClassName: ptr.To("gold")}}, metav1.CreateOptions{}))
		controllertest.Must[*storage.VolumeAttributesClass](t)(classes.Create(ctx, &storage.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}}, metav1.CreateOptions{}))
		synctest.Wait()
		controllertest.Must[any](t)(nil, classes.Delete(ctx, "gold", metav1.DeleteOptions{}))
		synctest.Wait()
		if got := controllertest.Must[*storage.VolumeAttributesClass](t)(classes.Get(ctx, "gold", metav1.GetOptions{})); got.DeletionTimestamp == nil {
			t.Error("the class is not being deleted")
		}
		claim.Status.CurrentVolumeAttributesClassName = ptr.To("silver")
		controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.UpdateStatus(ctx, claim, metav1.UpdateOptions{}))
		synctest.Wait()
		if _, err := classes.Get(ctx, "gold", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the class that no claim has: %v", err)
		}
	})
}
