package statefulset

import (
	"testing"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that whatever goes wrong on the way, the set has the pods and
// claims that it wants in the end, and a revision for each template.
func TestSurvives(t *testing.T) {
	for _, policy := range []apps.PodManagementPolicyType{apps.OrderedReadyPodManagement, apps.ParallelPodManagement} {
		controllertest.Trial{Seeds: 40, Controllers: []controllertest.Constructor{New}, Actions: []controllertest.Action{
			func(c *controllertest.Cluster) {
				set := withClaims(newSet(4), apps.RetainPersistentVolumeClaimRetentionPolicyType, apps.DeletePersistentVolumeClaimRetentionPolicyType)
				set.Spec.PodManagementPolicy = policy
				suite{c, t}.create(set)
			},
			func(c *controllertest.Cluster) {
				suite{c, t}.change(func(s *apps.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "two" })
			},
			func(c *controllertest.Cluster) {
				suite{c, t}.change(func(s *apps.StatefulSet) { s.Spec.Replicas = ptr.To[int32](1) })
			},
			func(c *controllertest.Cluster) {
				suite{c, t}.change(func(s *apps.StatefulSet) { s.Spec.Replicas = ptr.To[int32](3) })
			},
		}, End: func(t *testing.T, c *controllertest.Cluster) {
			s := suite{c, t}
			if have, want := s.pods(), "web-0 two, web-1 two, web-2 two"; have != want {
				t.Errorf("%s: pods are %q, want %q", policy, have, want)
			}
			if st := s.get().Status; st.ReadyReplicas != 3 || st.UpdatedReplicas != 3 || st.CurrentRevision != st.UpdateRevision {
				t.Errorf("%s: status is %+v", policy, st)
			}
			if n := len(controllertest.Must[*apps.ControllerRevisionList](t)(c.Client.AppsV1().ControllerRevisions("ns").List(ctx, metav1.ListOptions{})).Items); n != 2 {
				t.Errorf("%s: %d revisions, want 2", policy, n)
			}
			for _, claim := range controllertest.Must[*v1.PersistentVolumeClaimList](t)(c.Client.CoreV1().PersistentVolumeClaims("ns").List(ctx, metav1.ListOptions{})).Items {
				if len(claim.OwnerReferences) != 1 || claim.OwnerReferences[0].Kind != "StatefulSet" {
					t.Errorf("%s: owners of %s are %+v", policy, claim.Name, claim.OwnerReferences)
				}
			}
		}}.Survives(t)
	}
}
