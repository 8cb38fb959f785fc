package aggregation

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/certs"
)

// TestSetLate checks that an informer that is behind does not undo a newer
// state.
func TestSetLate(t *testing.T) {
	r := New(nil, func() (certs.Pair, error) { return certs.Pair{}, nil })
	service := func(uid types.UID, revision string, available v1.ConditionStatus) *v1.APIService {
		a := &v1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.a", UID: uid, ResourceVersion: revision}}
		a.Spec = v1.APIServiceSpec{Group: "a", Version: "v1", InsecureSkipTLSVerify: true, Service: &v1.ServiceReference{Name: "s", Namespace: "n", Port: ptr.To[int32](443)}}
		a.Status.Conditions = []v1.APIServiceCondition{{Type: v1.Available, Status: available}}
		return a
	}
	for _, c := range []struct {
		what string
		set  *v1.APIService
		want bool
	}{
		{"new", service("one", "7", v1.ConditionFalse), false},
		{"available", service("one", "12", v1.ConditionTrue), true},
		{"the informer is behind", service("one", "7", v1.ConditionFalse), true},
		{"it has come after", service("one", "12", v1.ConditionTrue), true},
		{"unavailable", service("one", "113", v1.ConditionFalse), false},
		{"another of the name", service("other", "5", v1.ConditionTrue), true},
	} {
		r.Set(c.set)
		if got := r.backend(groupVersion(c.set)).available; got != c.want {
			t.Errorf("%s: available %v", c.what, got)
		}
	}
}
