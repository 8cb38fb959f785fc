package policystatus

import (
	"strconv"
	"testing"

	arv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that each policy's last generation has been looked at in the end.
func TestSurvives(t *testing.T) {
	policy := func(name string) *arv1.ValidatingAdmissionPolicy {
		return &arv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: arv1.ValidatingAdmissionPolicySpec{FailurePolicy: ptr.To(arv1.Fail)}}
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{policy("a"), policy("b")},
		Actions: []controllertest.Action{
			controllertest.Creates(policy("c")),
			controllertest.Edits("", "a", func(p *arv1.ValidatingAdmissionPolicy) { p.Spec.FailurePolicy = ptr.To(arv1.Ignore) }),
			controllertest.Then(controllertest.Removes[*arv1.ValidatingAdmissionPolicy]("", "b"), controllertest.Creates(policy("b"))),
		},
		End: controllertest.Are("", func(p *arv1.ValidatingAdmissionPolicy) string {
			return p.Name + strconv.FormatInt(p.Status.ObservedGeneration, 10)
		}, "a2", "b1", "c1"),
	}.Survives(t)
}
