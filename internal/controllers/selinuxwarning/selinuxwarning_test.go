package selinuxwarning

import (
	"slices"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestDiffer(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", false},
		{":::s0:c1,c2", "", false},
		{":::s0:c1,c2", ":::s0:c1,c2", false},
		{":::s0:c1,c2", ":::s0:c3,c4", true},
		{"system_u:system_r:container_t:s0:c1,c2", ":::s0:c1,c2", false},
		{"system_u:system_r:container_t:s0:c1,c2", ":::s0:c98,c99", true},
		{"::container_t:", "::spc_t:", true},
	} {
		if got := differ(c.a, c.b); got != c.want || differ(c.b, c.a) != c.want {
			t.Errorf("%q and %q: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

// pod returns a pod that mounts the volume of a claim with a level.
func pod(namespace, name, claim, level string, change ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1.PodSpec{
		Containers: []v1.Container{{Name: "c", VolumeMounts: []v1.VolumeMount{{Name: "v"}}}},
		Volumes:    []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}}}
	if level != "" {
		p.Spec.SecurityContext = &v1.PodSecurityContext{SELinuxOptions: &v1.SELinuxOptions{Level: level}}
	}
	for _, f := range change {
		f(p)
	}
	return p
}

// bound returns a claim and its volume, of a driver's handle.
func bound(namespace, name, driver, handle string) []controllertest.Object {
	uid := types.UID(namespace + name)
	return []controllertest.Object{
		&v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid}, Spec: v1.PersistentVolumeClaimSpec{VolumeName: string(uid)}},
		&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: string(uid)}, Spec: v1.PersistentVolumeSpec{ClaimRef: &v1.ObjectReference{Namespace: namespace, Name: name, UID: uid},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle}}}},
	}
}

func recursive(p *v1.Pod) {
	p.Spec.SecurityContext.SELinuxChangePolicy = ptr.To(v1.SELinuxChangePolicyRecursive)
}

const rest = " If both pods land on the same node, only one of them may access the volume."

func TestConflicts(t *testing.T) {
	for name, c := range map[string]struct {
		pods []controllertest.Object
		want []string
	}{
		"one label": {[]controllertest.Object{pod("ns", "a", "c", "s0:c1,c2"), pod("ns", "b", "c", "s0:c1,c2")}, nil},
		"two labels": {[]controllertest.Object{pod("ns", "a", "c", "s0:c1,c2"), pod("ns", "b", "c", "s0:c3,c4")}, []string{
			`Normal SELinuxLabelConflict SELinux label ":::s0:c1,c2" conflicts with pod b that uses the same volume as this pod with SELinux label ":::s0:c3,c4".` + rest,
			`Normal SELinuxLabelConflict SELinux label ":::s0:c3,c4" conflicts with pod a that uses the same volume as this pod with SELinux label ":::s0:c1,c2".` + rest,
		}},
		"two policies": {[]controllertest.Object{pod("ns", "a", "c", "s0:c1,c2"), pod("ns", "b", "c", "s0:c1,c2", recursive)}, []string{
			`Normal SELinuxChangePolicyConflict SELinuxChangePolicy "MountOption" conflicts with pod b that uses the same volume as this pod with SELinuxChangePolicy "Recursive".` + rest,
			`Normal SELinuxChangePolicyConflict SELinuxChangePolicy "Recursive" conflicts with pod a that uses the same volume as this pod with SELinuxChangePolicy "MountOption".` + rest,
		}},
		"another namespace": {[]controllertest.Object{pod("ns", "a", "c", "s0:c1,c2"), pod("other", "b", "c", "s0:c3,c4")}, []string{
			`Normal SELinuxLabelConflict SELinux label":::s0:c1,c2" conflicts with another pod that uses the same volume as this pod with a different SELinux label.` + rest,
			`Normal SELinuxLabelConflict SELinux label":::s0:c3,c4" conflicts with another pod that uses the same volume as this pod with a different SELinux label.` + rest,
		}},
		"a driver that does not mount with labels": {[]controllertest.Object{pod("ns", "a", "plain", "s0:c1,c2"), pod("ns", "b", "plain", "s0:c3,c4")}, nil},
		"one that has ended":                       {[]controllertest.Object{pod("ns", "a", "c", "s0:c1,c2"), pod("ns", "b", "c", "s0:c3,c4", func(p *v1.Pod) { p.Status.Phase = v1.PodSucceeded })}, nil},
		"two labels in a pod": {[]controllertest.Object{pod("ns", "a", "c", "s0:c1,c2", func(p *v1.Pod) {
			p.Spec.InitContainers = []v1.Container{{Name: "i", VolumeMounts: []v1.VolumeMount{{Name: "v"}}, SecurityContext: &v1.SecurityContext{SELinuxOptions: &v1.SELinuxOptions{Level: "s0:c9"}}}}
		})}, []string{`Warning MultipleSELinuxLabels Volume "v" is mounted twice with different SELinux labels inside this pod`}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := controllertest.New(t, New)
				cl.Put(&storage.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: storage.CSIDriverSpec{SELinuxMount: ptr.To(true)}})
				cl.Put(c.pods...) // before their claims and volumes
				for _, objects := range [][]controllertest.Object{bound("ns", "c", "d", "h"), bound("other", "c", "d", "h"), bound("ns", "plain", "other-driver", "h")} {
					cl.Put(objects...)
				}
				got := cl.Events()
				slices.Sort(got)
				if !slices.Equal(got, c.want) {
					t.Errorf("events\n%q, want\n%q", got, c.want)
				}
			})
		})
	}
}

// TestSurvives checks that the controller changes nothing, whatever goes wrong.
func TestSurvives(t *testing.T) {
	controllertest.Trial{
		Seeds: 50, Controllers: []controllertest.Constructor{New},
		World: append(bound("ns", "c", "d", "h"), pod("ns", "a", "c", "s0:c1"), pod("ns", "b", "c", "s0:c2")),
		Actions: []controllertest.Action{
			controllertest.Creates(&storage.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: storage.CSIDriverSpec{SELinuxMount: ptr.To(true)}}),
			controllertest.Removes[*v1.Pod]("ns", "a"),
		},
		End: controllertest.Are("ns", controllertest.Name[*v1.Pod], "b"),
	}.Survives(t)
}
