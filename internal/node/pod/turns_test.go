package pod

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// TestTurns checks the order of changes that wait.
func TestTurns(t *testing.T) {
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	pod := func(name string, priority int32, class v1.PodQOSClass, cpu string) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.PodStatus{QOSClass: class}, Spec: v1.PodSpec{Priority: ptr.To(priority),
			Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}}}}}}
	}
	has := pod("", 0, "", "1")
	later := first.Add(time.Minute)
	turns := []turn{
		newTurn(pod("new", 0, v1.PodQOSBurstable, "2"), has, nil),
		newTurn(pod("later", 0, v1.PodQOSBurstable, "2"), has, &later),
		newTurn(pod("earlier", 0, v1.PodQOSBurstable, "2"), has, &first),
		newTurn(pod("guaranteed", 0, v1.PodQOSGuaranteed, "2"), has, &later),
		newTurn(pod("important", 7, v1.PodQOSBurstable, "2"), has, nil),
		newTurn(pod("shrinks", -7, v1.PodQOSBurstable, "500m"), has, nil),
	}
	slices.SortFunc(turns, turn.compare)
	var got []string
	for _, t := range turns {
		got = append(got, t.pod.Name)
	}
	if want := "shrinks important guaranteed earlier later new"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}
