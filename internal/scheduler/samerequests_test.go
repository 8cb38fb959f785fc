package scheduler

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestSameRequests checks when a pod's requests are taken for those that it had.
func TestSameRequests(t *testing.T) {
	requests := v1.ResourceList{v1.ResourceCPU: resource.MustParse("2")}
	old := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Generation: 1}, Spec: v1.PodSpec{Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: requests}}}}}
	going := *old // as the API server makes it
	going.Generation, going.DeletionTimestamp = 2, &metav1.Time{Time: time.Unix(1, 0)}
	resized := old.DeepCopy()
	resized.Generation = 2
	resized.Spec.Containers[0].Resources.Requests[v1.ResourceCPU] = resource.MustParse("1")
	told := old.DeepCopy()
	told.Status.ContainerStatuses = []v1.ContainerStatus{{Resources: &v1.ResourceRequirements{Requests: requests}}}
	for name, c := range map[string]struct {
		p          *v1.Pod
		same, less bool
	}{
		"of its status, nothing that matters": {old.DeepCopy(), true, false},
		"its deletion":                        {&going, true, false},
		"its deletion, read of a wire":        {going.DeepCopy(), false, false},
		"its requests":                        {resized, false, true},
		"what its node has allocated":         {told, false, false},
	} {
		if same, less := sameRequests(old, c.p), requestsLess(old, c.p); same != c.same || less != c.less {
			t.Errorf("where a change is of %s: the same %v, less %v", name, same, less)
		}
	}
}
