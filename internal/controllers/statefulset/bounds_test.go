package statefulset

import (
	"fmt"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestRefused checks that a set whose pods, or claims, are refused says so, is tried again
// ever more rarely, and holds up no other.
func TestRefused(t *testing.T) {
	named := func(name string, n int32) *apps.StatefulSet {
		s := withClaims(newSet(n), apps.RetainPersistentVolumeClaimRetentionPolicyType, apps.RetainPersistentVolumeClaimRetentionPolicyType)
		s.Name = name
		s.Spec.Selector.MatchLabels, s.Spec.Template.Labels = map[string]string{"app": name}, map[string]string{"app": name}
		return s
	}
	for _, policy := range []apps.PodManagementPolicyType{apps.OrderedReadyPodManagement, apps.ParallelPodManagement} {
		for resource, what := range map[string]string{"pods": "Pod bad-0 in StatefulSet bad failed error: ", "persistentvolumeclaims": "Claim data-bad-0 for Pod bad-0 in StatefulSet bad failed error: "} {
			for name, err := range controllertest.Refusals(v1.SchemeGroupVersion.WithKind("Pod").GroupKind(), resource) {
				t.Run(fmt.Sprint(policy, " ", resource, " ", name), func(t *testing.T) {
					bad := named("bad", 3)
					bad.Spec.PodManagementPolicy = policy
					// The API server names claims by the set, which labels them, too.
					bad.Spec.VolumeClaimTemplates[0].Labels = map[string]string{"app": "bad"}
					controllertest.Misfit{
						Controllers: []controllertest.Constructor{New},
						World:       []controllertest.Object{bad, named("good", 2)},
						Refuse:      controllertest.Refuses(resource, err),
						Event:       "Warning FailedCreate create " + what,
						Later:       controllertest.Edits("ns", "good", func(s *apps.StatefulSet) { s.Spec.Replicas = ptr.To[int32](3) }),
						Fine: controllertest.Are("ns", func(s *apps.StatefulSet) string {
							return strings.Join([]string{s.Name, fmt.Sprint(s.Status.AvailableReplicas)}, " ")
						}, "bad 0", "good 3"),
					}.Bounded(t)
				})
			}
		}
	}
}
