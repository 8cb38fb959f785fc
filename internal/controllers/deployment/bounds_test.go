package deployment

import (
	"fmt"
	"testing"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/controllers/replicaset"
)

// TestRefused checks that a Deployment whose pods, or ReplicaSets, are refused says so, is
// tried again ever more rarely, and holds up no other.
func TestRefused(t *testing.T) {
	bad, good := newDeployment(3), newDeployment(2)
	bad.Name, good.Name = "bad", "good"
	for d, app := range map[*apps.Deployment]string{bad: "bad", good: "good"} {
		d.Spec.Selector.MatchLabels, d.Spec.Template.Labels = map[string]string{"app": app}, map[string]string{"app": app}
	}
	for resource, kind := range map[string]metav1.GroupVersionKind{"pods": {Version: "v1", Kind: "Pod"}, "replicasets": {Group: "apps", Version: "v1", Kind: "ReplicaSet"}} {
		for what, err := range controllertest.Refusals(apps.SchemeGroupVersion.WithKind(kind.Kind).GroupKind(), resource) {
			t.Run(resource+" "+what, func(t *testing.T) {
				event, condition := "Warning FailedCreate Error creating: "+err.Error(), apps.DeploymentReplicaFailure
				reason := "FailedCreate"
				if resource == "replicasets" {
					event, condition, reason = "Warning ReplicaSetCreateError Failed to create new replica set \"bad-", apps.DeploymentProgressing, "ReplicaSetCreateError"
				}
				controllertest.Misfit{
					Controllers: []controllertest.Constructor{New, replicaset.New},
					World:       []controllertest.Object{bad, good},
					Refuse:      controllertest.Refuses(resource, err),
					Event:       event,
					Told: controllertest.Is("ns", "bad", func(d *apps.Deployment) error {
						for _, c := range d.Status.Conditions {
							if c.Type == condition && c.Reason == reason {
								return nil
							}
						}
						return fmt.Errorf("the conditions are %+v", d.Status.Conditions)
					}),
					Later: controllertest.Edits("ns", "good", func(d *apps.Deployment) {
						d.Spec.Replicas, d.Spec.Template.Spec.Containers[0].Image = ptr.To[int32](3), "two"
					}),
					Fine: controllertest.Are("ns", func(p *v1.Pod) string { return p.Labels["app"] + " " + p.Spec.Containers[0].Image }, "good two", "good two", "good two"),
				}.Bounded(t)
			})
		}
	}
}
