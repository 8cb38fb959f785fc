package persistentvolume

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

func size(s string) v1.ResourceList {
	return v1.ResourceList{v1.ResourceStorage: resource.MustParse(s)}
}

func newVolume(name, capacity string, change ...func(*v1.PersistentVolume)) *v1.PersistentVolume {
	v := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PersistentVolumeSpec{
		Capacity: size(capacity), AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource:        v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/x"}},
	}}
	for _, f := range change {
		f(v)
	}
	return v
}

func newClaim(name, request string, change ...func(*v1.PersistentVolumeClaim)) *v1.PersistentVolumeClaim {
	c := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v1.PersistentVolumeClaimSpec{
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, Resources: v1.VolumeResourceRequirements{Requests: size(request)},
		StorageClassName: ptr.To(""),
	}, Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimPending}}
	for _, f := range change {
		f(c)
	}
	return c
}

func inClass(name string) func(*v1.PersistentVolumeClaim) {
	return func(c *v1.PersistentVolumeClaim) { c.Spec.StorageClassName = &name }
}

func newClass(name, provisioner string, mode storage.VolumeBindingMode) *storage.StorageClass {
	return &storage.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
}

type suite struct {
	*controllertest.Cluster
	t *testing.T
}

func (s suite) add(objects ...any) {
	s.t.Helper()
	var err error
	for _, o := range objects {
		switch o := o.(type) {
		case *v1.PersistentVolume:
			_, err = s.Client.CoreV1().PersistentVolumes().Create(ctx, o, metav1.CreateOptions{})
		case *v1.PersistentVolumeClaim:
			_, err = s.Client.CoreV1().PersistentVolumeClaims(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
		case *storage.StorageClass:
			_, err = s.Client.StorageV1().StorageClasses().Create(ctx, o, metav1.CreateOptions{})
		case *v1.Pod:
			_, err = s.Client.CoreV1().Pods(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
		}
		if err != nil {
			s.t.Fatal(err)
		}
		synctest.Wait()
	}
}

func (s suite) claim(name string) *v1.PersistentVolumeClaim {
	s.t.Helper()
	synctest.Wait()
	return controllertest.Must[*v1.PersistentVolumeClaim](s.t)(s.Client.CoreV1().PersistentVolumeClaims("ns").Get(ctx, name, metav1.GetOptions{}))
}

func (s suite) volume(name string) *v1.PersistentVolume {
	s.t.Helper()
	synctest.Wait()
	return controllertest.Must[*v1.PersistentVolume](s.t)(s.Client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{}))
}

// want checks that claims and volumes are as in lines, each "claim name phase
// volume" or "volume name phase claim".
func (s suite) want(lines ...string) {
	s.t.Helper()
	synctest.Wait()
	for _, line := range lines {
		var kind, name, phase, other string
		_, _ = fmt.Sscan(line, &kind, &name, &phase, &other)
		var gotPhase, gotOther string
		if kind == "claim" {
			c := s.claim(name)
			gotPhase, gotOther = string(c.Status.Phase), c.Spec.VolumeName
		} else {
			v := s.volume(name)
			gotPhase = string(v.Status.Phase)
			if v.Spec.ClaimRef != nil {
				gotOther = v.Spec.ClaimRef.Name
			}
		}
		if gotPhase != phase || gotOther != other {
			s.t.Errorf("%s %s: %s %q, want %s %q", kind, name, gotPhase, gotOther, phase, other)
		}
	}
}

func TestBinder(t *testing.T) {
	for _, c := range []struct {
		name   string
		make   []any
		then   func(s suite)
		want   []string
		events []string
	}{
		{name: "the smallest that is enough", make: []any{newVolume("big", "10Gi"), newVolume("fit", "2Gi"), newVolume("small", "1Gi"), newClaim("c", "2Gi")},
			want: []string{"claim c Bound fit", "volume fit Bound c", "volume big Available", "volume small Available"}},
		{name: "a volume that comes later", make: []any{newClaim("c", "1Gi"), newVolume("v", "1Gi")}, want: []string{"claim c Bound v"},
			events: []string{"Normal FailedBinding no persistent volumes available for this claim and no storage class is set"}},
		{name: "by its labels", make: []any{newVolume("other", "1Gi"), newVolume("v", "1Gi", func(v *v1.PersistentVolume) { v.Labels = map[string]string{"a": "b"} }),
			newClaim("c", "1Gi", func(c *v1.PersistentVolumeClaim) {
				c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
			})},
			want: []string{"claim c Bound v", "volume other Available"}},
		{name: "another access mode", make: []any{newVolume("v", "1Gi"), newClaim("c", "1Gi", func(c *v1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}
		})}, want: []string{"claim c Pending", "volume v Available"}},
		{name: "another mode", make: []any{newVolume("v", "1Gi", func(v *v1.PersistentVolume) { v.Spec.VolumeMode = ptr.To(v1.PersistentVolumeBlock) }), newClaim("c", "1Gi")},
			want: []string{"claim c Pending"}},
		{name: "the volume is kept for the claim", make: []any{newVolume("a", "1Gi"),
			newVolume("kept", "5Gi", func(v *v1.PersistentVolume) {
				v.Spec.ClaimRef = &v1.ObjectReference{Namespace: "ns", Name: "c"}
			}), newClaim("c", "1Gi")},
			want: []string{"claim c Bound kept", "volume a Available"}},
		{name: "the claim names its volume", make: []any{newClaim("c", "1Gi", func(c *v1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" }), newVolume("a", "1Gi"), newVolume("v", "3Gi")},
			want: []string{"claim c Bound v", "volume a Available"}},
		{name: "the named volume is too small", make: []any{newVolume("v", "1Gi"), newClaim("c", "2Gi", func(c *v1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" })},
			want:   []string{"claim c Pending v", "volume v Available"},
			events: []string{`Warning VolumeMismatch Cannot bind to requested volume "v": requested PV is too small`}},
		{name: "the named volume is another claim's", make: []any{newVolume("v", "1Gi"), newClaim("a", "1Gi"), newClaim("c", "1Gi", func(c *v1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" })},
			want:   []string{"claim a Bound v", "claim c Pending v"},
			events: []string{`Warning FailedBinding volume "v" already bound to a different claim.`}},
		{name: "a provisioner of its own", make: []any{newClass("fast", "example.com/p", storage.VolumeBindingImmediate), newClaim("c", "1Gi", inClass("fast"))},
			want: []string{"claim c Pending"},
			events: []string{"Normal ExternalProvisioning Waiting for a volume to be created either by the external provisioner 'example.com/p' or manually by the system administrator. " +
				"If volume creation is delayed, please verify that the provisioner is running and correctly registered."},
			then: func(s suite) {
				if got := s.claim("c").Annotations[volume.AnnStorageProvisioner]; got != "example.com/p" {
					s.t.Errorf("provisioner: %q", got)
				}
			}},
		{name: "no such class", make: []any{newClaim("c", "1Gi", inClass("none"))}, want: []string{"claim c Pending"},
			events: []string{`Warning ProvisioningFailed storageclass.storage.k8s.io "none" not found`}},
		{name: "a class that comes later", make: []any{newClaim("c", "1Gi", inClass("fast")), newClass("fast", "p", storage.VolumeBindingImmediate)},
			then: func(s suite) {
				if got := s.claim("c").Annotations[volume.AnnStorageProvisioner]; got != "p" {
					s.t.Errorf("provisioner: %q", got)
				}
			}},
		{name: "no provisioner", make: []any{newClass("local", volume.NotSupportedProvisioner, storage.VolumeBindingImmediate), newClaim("c", "1Gi", inClass("local"))},
			events: []string{"Warning ProvisioningFailed no volume plugin matched name: kubernetes.io/no-provisioner"}},
		{name: "the first consumer", make: []any{newClass("late", "p", storage.VolumeBindingWaitForFirstConsumer), newClaim("c", "1Gi", inClass("late"))},
			want: []string{"claim c Pending"}, events: []string{"Normal WaitForFirstConsumer waiting for first consumer to be created before binding"},
			then: func(s suite) {
				c := s.claim("c")
				if metav1.HasAnnotation(c.ObjectMeta, volume.AnnStorageProvisioner) {
					s.t.Error("provisioned before there is a pod")
				}
				metav1.SetMetaDataAnnotation(&c.ObjectMeta, volume.AnnSelectedNode, "n")
				controllertest.Must[*v1.PersistentVolumeClaim](s.t)(s.Client.CoreV1().PersistentVolumeClaims("ns").Update(ctx, c, metav1.UpdateOptions{}))
				if c = s.claim("c"); c.Annotations[volume.AnnStorageProvisioner] != "p" {
					s.t.Error("not provisioned for the node")
				}
			}},
		{name: "a pod waits", make: []any{newClass("late", "p", storage.VolumeBindingWaitForFirstConsumer),
			&v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod"}, Spec: v1.PodSpec{Volumes: []v1.Volume{{Name: "x",
				VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}}}, newClaim("c", "1Gi", inClass("late"))},
			events: []string{"Normal WaitForPodScheduled waiting for pod pod to be scheduled"}},
		{name: "the default class, which comes later", make: []any{newClaim("c", "1Gi", func(c *v1.PersistentVolumeClaim) { c.Spec.StorageClassName = nil }),
			func() *storage.StorageClass {
				s := newClass("std", "p", storage.VolumeBindingImmediate)
				s.Annotations = map[string]string{isDefault: "true"}
				return s
			}()}, then: func(s suite) {
			if c := s.claim("c"); ptr.Deref(c.Spec.StorageClassName, "") != "std" || c.Annotations[volume.AnnStorageProvisioner] != "p" {
				s.t.Errorf("class %v, annotations %v", c.Spec.StorageClassName, c.Annotations)
			}
		}},
		{name: "the volume is gone", make: []any{newVolume("v", "1Gi"), newClaim("c", "1Gi")}, then: func(s suite) {
			controllertest.Must[any](s.t)(nil, s.Client.CoreV1().PersistentVolumes().Delete(ctx, "v", metav1.DeleteOptions{}))
			s.want("claim c Lost v")
		}, events: []string{"Warning ClaimLost Bound claim has lost its PersistentVolume. Data on the volume is lost!"}},
		{name: "retained", make: []any{newVolume("v", "1Gi"), newClaim("c", "1Gi")}, then: released("volume v Released c")},
		{name: "not deletable", make: []any{newVolume("v", "1Gi", policy(v1.PersistentVolumeReclaimDelete)), newClaim("c", "1Gi")},
			then: released("volume v Failed c"), events: []string{`Warning VolumeFailedDelete error getting deleter volume plugin for volume "v": no deletable volume plugin matched`}},
		{name: "its provisioner deletes it", make: []any{newVolume("v", "1Gi", policy(v1.PersistentVolumeReclaimDelete), func(v *v1.PersistentVolume) {
			v.Annotations = map[string]string{volume.AnnDynamicallyProvisioned: "p"}
		}), newClaim("c", "1Gi")}, then: released("volume v Released c")},
		{name: "no recycler", make: []any{newVolume("v", "1Gi", policy(v1.PersistentVolumeReclaimRecycle), func(v *v1.PersistentVolume) {
			v.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: "/x"}}
		}), newClaim("c", "1Gi")}, then: released("volume v Failed c"), events: []string{"Warning VolumeFailedRecycle No recycler plugin found for the volume!"}},
		{name: "recycled", make: []any{newVolume("v", "1Gi", policy(v1.PersistentVolumeReclaimRecycle)), newClaim("c", "1Gi")}, then: func(s suite) {
			released("volume v Released c")(s)
			pod := s.Pods("default")[0]
			s.SetPhase(&pod, v1.PodFailed)
			s.want("volume v Failed c")
			s.Advance(time.Minute)
			pod = s.Pods("default")[0]
			s.SetPhase(&pod, v1.PodSucceeded)
			s.want("volume v Available")
			if n := len(s.Pods("default")); n != 0 {
				s.t.Errorf("%d recyclers are left", n)
			}
		}, events: []string{"Normal VolumeRecycled Volume recycled"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := suite{controllertest.New(t, New), t}
				s.add(c.make...)
				s.want(c.want...)
				if c.then != nil {
					c.then(s)
				}
				for _, e := range c.events {
					s.HasEvent(e)
				}
			})
		})
	}
}

func policy(p v1.PersistentVolumeReclaimPolicy) func(*v1.PersistentVolume) {
	return func(v *v1.PersistentVolume) { v.Spec.PersistentVolumeReclaimPolicy = p }
}

func released(want string) func(suite) {
	return func(s suite) {
		s.t.Helper()
		s.want("claim c Bound v")
		controllertest.Must[any](s.t)(nil, s.Client.CoreV1().PersistentVolumeClaims("ns").Delete(ctx, "c", metav1.DeleteOptions{}))
		s.want(want)
	}
}

// TestSurvives checks that after crashes and errors each claim has one volume,
// and no two have the same.
func TestSurvives(t *testing.T) {
	step := func(name string) func(*controllertest.Cluster) {
		return func(c *controllertest.Cluster) {
			s := suite{c, t}
			s.add(newVolume("v"+name, "1Gi"), newClaim("c"+name, "1Gi"))
		}
	}
	controllertest.Trial{Seeds: 30, Controllers: []controllertest.Constructor{New}, Actions: []controllertest.Action{step("1"), step("2"), step("3")}, End: func(t *testing.T, c *controllertest.Cluster) {
		s := suite{c, t}
		has := map[string]string{}
		for _, name := range []string{"c1", "c2", "c3"} {
			claim := s.claim(name)
			if claim.Status.Phase != v1.ClaimBound || has[claim.Spec.VolumeName] != "" {
				t.Errorf("claim %s: %s, volume %q, which %q has", name, claim.Status.Phase, claim.Spec.VolumeName, has[claim.Spec.VolumeName])
				continue
			}
			has[claim.Spec.VolumeName] = name
			if v := s.volume(claim.Spec.VolumeName); v.Status.Phase != v1.VolumeBound || v.Spec.ClaimRef.Name != name {
				t.Errorf("volume %s: %s of %v", v.Name, v.Status.Phase, v.Spec.ClaimRef)
			}
		}
	}}.Survives(t)
}
