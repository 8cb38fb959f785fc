package job

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// TestMislabelledPods checks that pods that are given other labels on their way are not made
// one after the other, and that those that were do not stay for their finalizer.
func TestMislabelledPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(nil))
		change := true
		c.Client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if change {
				a.(clienttesting.CreateAction).GetObject().(*v1.Pod).Labels = map[string]string{"app": "other"}
			}
			return false, nil, nil
		})
		p := c.live()[0]
		c.exit(&p, 1)
		seen := map[string]bool{}
		for range 3600 {
			c.Advance(time.Second)
			for _, p := range c.Pods("ns") {
				seen[p.Name] = true
			}
			c.reap()
		}
		if n := len(c.live()); n != 0 || len(seen) > 30 {
			t.Errorf("%d pods are left of %d", n, len(seen))
		}
		for _, p := range c.Pods("ns") {
			if len(p.Finalizers) > 0 {
				t.Errorf("%s stays for %q", p.Name, p.Finalizers)
			}
		}
		change = false
		c.Advance(20 * time.Minute)
		if n := len(c.live()); n != 1 {
			t.Errorf("there are %d pods: %s", n, c.summary())
		}
	})
}
