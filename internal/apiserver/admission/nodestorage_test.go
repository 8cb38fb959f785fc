package admission

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
)

// TestNodeStorage checks that a node writes volumes and capacities of the local driver
// on itself, and no others: neither makes them another's, nor takes another's.
func TestNodeStorage(t *testing.T) {
	const key = "topology." + LocalDriver + "/node"
	pv := func(driver, node string) *v1.PersistentVolume {
		return &v1.PersistentVolume{Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: driver}},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{Key: key, Operator: v1.NodeSelectorOpIn, Values: []string{node}}}}}}}}}
	}
	capacity := func(labels map[string]string) *storagev1.CSIStorageCapacity {
		return &storagev1.CSIStorageCapacity{NodeTopology: &metav1.LabelSelector{MatchLabels: labels}}
	}
	own, other := capacity(map[string]string{key: "a"}), capacity(map[string]string{key: "b"})
	wide := capacity(map[string]string{key: "a"})
	wide.NodeTopology.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "x", Operator: metav1.LabelSelectorOpExists}}
	for _, c := range []struct {
		name    string
		check   func(string, admission.Attributes) error
		old, is runtime.Object
		allowed bool
	}{
		{"its own volume", localVolume, nil, pv(LocalDriver, "a"), true},
		{"another node's", localVolume, nil, pv(LocalDriver, "b"), false},
		{"another driver's", localVolume, nil, pv("other", "a"), false},
		{"a volume taken", localVolume, pv(LocalDriver, "b"), pv(LocalDriver, "a"), false},
		{"another's, deleted", localVolume, pv(LocalDriver, "b"), nil, false},
		{"its own capacity", localCapacity, nil, own, true},
		{"its own, deleted", localCapacity, own, nil, true},
		{"another node's capacity", localCapacity, nil, other, false},
		{"a capacity taken", localCapacity, other, own, false},
		{"a capacity given away", localCapacity, own, other, false},
		{"of all nodes", localCapacity, nil, &storagev1.CSIStorageCapacity{}, false},
		{"of no topology", localCapacity, nil, capacity(nil), false},
		{"with another condition", localCapacity, nil, wide, false},
	} {
		op := admission.Update
		switch {
		case c.old == nil:
			op = admission.Create
		case c.is == nil:
			op = admission.Delete
		}
		a := admission.NewAttributesRecord(c.is, c.old, v1.SchemeGroupVersion.WithKind("X"), "", "x", v1.SchemeGroupVersion.WithResource("x"), "", op, nil, false, nil)
		if err := c.check("a", a); (err == nil) != c.allowed {
			t.Errorf("%s: %v, want allowed %t", c.name, err, c.allowed)
		}
	}
}
