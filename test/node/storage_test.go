package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

// claimTemplate returns a claim of the default class.
func claimTemplate(name string, mode v1.PersistentVolumeMode) v1.PersistentVolumeClaim {
	return v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PersistentVolumeClaimSpec{
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, VolumeMode: &mode,
		Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("10Mi")}}}}
}

func (e *env) claim(name string) *v1.PersistentVolumeClaim {
	e.Helper()
	c, err := e.client.CoreV1().PersistentVolumeClaims("default").Get(e.Context(), name, metav1.GetOptions{})
	if err != nil {
		e.Fatal(err)
	}
	return c
}

// volumes checks that a StatefulSet with claims gets volumes with nothing else
// installed, and has its data again after it was deleted and created; that claims
// grow; that block volumes and clones work; and that deleted volumes are removed
// from the node.
func (e *env) volumes() {
	labels := map[string]string{"app": "store"}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "store"}, Spec: appsv1.StatefulSetSpec{
		Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels}, PodManagementPolicy: appsv1.ParallelPodManagement,
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](1),
			SecurityContext: &v1.PodSecurityContext{RunAsUser: ptr.To[int64](1000), FSGroup: ptr.To[int64](2000)},
			Containers: []v1.Container{{Name: "c", Image: image, Command: []string{"/bin/demo", "sleep"},
				VolumeMounts: []v1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "data", MountPath: "/part", SubPath: "part"}}}}}},
		VolumeClaimTemplates: []v1.PersistentVolumeClaim{claimTemplate("data", v1.PersistentVolumeFilesystem)},
	}}
	up := func() {
		e.Helper()
		harness.Succeeds(e, "the end of what had the name, and a new one", func() error {
			_, err := e.client.AppsV1().StatefulSets("default").Create(e.Context(), set.DeepCopy(), metav1.CreateOptions{})
			return err
		})
		for i := range 2 {
			e.pod(fmt.Sprintf("store-%d", i), ready)
		}
	}
	up()
	for i := range 2 {
		pod := fmt.Sprintf("store-%d", i)
		e.exec(pod, "c", "", "/bin/demo", "write", "/data/name", pod)
		e.exec(pod, "c", "", "/bin/demo", "write", "/part/x", "part of "+pod)
	}
	if err := e.client.AppsV1().StatefulSets("default").Delete(e.Context(), "store", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		e.Fatal(err)
	}
	e.gone("app=store")
	up()
	for i := range 2 {
		pod := fmt.Sprintf("store-%d", i)
		if got := e.exec(pod, "c", "", "/bin/demo", "cat", "/data/name", "/data/part/x"); got != pod+"part of "+pod {
			e.Errorf("%s has %q", pod, got)
		}
	}
	e.grow("data-store-0")

	// A claim with the content of another, and a device.
	clone, device := claimTemplate("clone", v1.PersistentVolumeFilesystem), claimTemplate("device", v1.PersistentVolumeBlock)
	clone.Spec.DataSource = &v1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "data-store-1"}
	p := sleeper("volumes")
	for _, c := range []*v1.PersistentVolumeClaim{&clone, &device} {
		if _, err := e.client.CoreV1().PersistentVolumeClaims("default").Create(e.Context(), c, metav1.CreateOptions{}); err != nil {
			e.Fatal(err)
		}
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: c.Name, VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: c.Name}}})
	}
	own := claimTemplate("", v1.PersistentVolumeFilesystem)
	p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: "own", VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{VolumeClaimTemplate: &v1.PersistentVolumeClaimTemplate{Spec: own.Spec}}}})
	p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "clone", MountPath: "/clone"}, {Name: "own", MountPath: "/own"}}
	p.Spec.Containers[0].VolumeDevices = []v1.VolumeDevice{{Name: "device", DevicePath: "/dev/own"}}
	e.create(p)
	e.pod("volumes", ready)
	if got := e.exec("volumes", "c", "", "/bin/demo", "cat", "/clone/name"); got != "store-1" {
		e.Errorf("the copy has %q", got)
	}
	e.exec("volumes", "c", "", "/bin/demo", "write", "/dev/own", "on the device")
	e.exec("volumes", "c", "", "/bin/demo", "write", "/own/x", "")
	folder := filepath.Join(filepath.Dir(e.logs), "node", "volumes", "volumes")
	disk := filepath.Join(folder, e.claim("device").Spec.VolumeName, "disk")
	e.remove("volumes")
	if text, err := os.ReadFile(disk); err != nil || !strings.HasPrefix(string(text), "on the device") {
		e.Errorf("the device's file does not have what was written (%v)", err)
	}

	if err := e.client.AppsV1().StatefulSets("default").Delete(e.Context(), "store", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		e.Fatal(err)
	}
	e.gone("app=store")
	if err := e.client.CoreV1().PersistentVolumeClaims("default").DeleteCollection(e.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		e.Fatal(err)
	}
	harness.Succeeds(e, "the end of all volumes", func() error {
		left, err := os.ReadDir(folder)
		if err != nil {
			return err
		}
		objects, err := e.client.CoreV1().PersistentVolumes().List(e.Context(), metav1.ListOptions{})
		if err == nil && (len(left) > 0 || len(objects.Items) > 0) {
			err = fmt.Errorf("left: %v, %v", left, objects.Items)
		}
		return err
	})
	if loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file"); err != nil {
		e.Error(err)
	} else {
		for _, l := range loops {
			if text, err := os.ReadFile(l); err == nil && strings.HasPrefix(string(text), folder) {
				e.Errorf("a loop device is left of %s", text)
			}
		}
	}
}

// grow doubles a claim's size, and waits until its volume has it.
func (e *env) grow(name string) {
	e.Helper()
	want := resource.MustParse("20Mi")
	harness.Succeeds(e, "the change of the claim", func() error {
		c := e.claim(name)
		c.Spec.Resources.Requests[v1.ResourceStorage] = want
		_, err := e.client.CoreV1().PersistentVolumeClaims("default").Update(e.Context(), c, metav1.UpdateOptions{})
		if err != nil && !apierrors.IsConflict(err) {
			e.Fatal(err)
		}
		return err
	})
	harness.Eventually(e, "the growth of the claim", func() bool {
		have := e.claim(name).Status.Capacity[v1.ResourceStorage]
		return have.Cmp(want) == 0
	})
}

// TestStorage checks volumes on the node's disk, made by an agent with the
// rights of its node only.
func TestStorage(t *testing.T) {
	startApart(t).volumes()
}
