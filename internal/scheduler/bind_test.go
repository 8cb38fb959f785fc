package scheduler

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// bindReaction tells bound of the node of each binding.
func bindReaction(bound chan<- string) clienttesting.ReactionFunc {
	return func(a clienttesting.Action) (bool, runtime.Object, error) {
		c, ok := a.(clienttesting.CreateAction)
		if !ok || c.GetSubresource() != "binding" {
			return false, nil, nil
		}
		bound <- c.GetObject().(*v1.Binding).Target.Name
		return true, nil, nil
	}
}
