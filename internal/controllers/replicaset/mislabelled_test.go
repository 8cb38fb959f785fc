package replicaset

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestMislabelledPods checks that a set whose pods are given other labels on their way does
// not make one after the other, says so, and has its pods once that ends.
func TestMislabelledPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := suite{controllertest.New(t, New), t}
		made, change := 0, true
		s.Client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			pod := a.(clienttesting.CreateAction).GetObject().(*v1.Pod)
			made++
			if change {
				pod.Labels = map[string]string{"app": "other"}
			}
			return false, nil, nil
		})
		s.create(newSet(3))
		s.Advance(time.Hour)
		if made < 2 || made > 30 {
			t.Errorf("%d pods were made in an hour", made)
		}
		if n := len(s.Pods("ns")); n != 0 {
			t.Errorf("%d pods are left", n)
		}
		const told = `a pod with the labels "app=web" was given others, which the selector "app=web" does not select: see which mutating webhook or policy changes the labels of pods`
		s.HasEvent("Warning FailedCreate Error creating: " + told)
		if c := s.get().Status.Conditions; len(c) != 1 || c[0].Message != told {
			t.Errorf("the conditions are %+v", c)
		}
		change = false
		s.Advance(20 * time.Minute)
		if n := len(s.Pods("ns")); n != 3 {
			t.Errorf("there are %d pods", n)
		}
	})
}
