package apiserver

import (
	"context"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// componentStatuses is the resource of components.
var componentStatuses = schema.GroupResource{Resource: "componentstatuses"}

// components computes the ComponentStatuses that upstream reports.
type components struct{ s *Server }

// componentNames are the names of upstream's ComponentStatuses.
var componentNames = []string{"controller-manager", "etcd-0", "scheduler"}

// Get implements Computed.
func (c components) Get(_ context.Context, _, name string) (runtime.Object, error) {
	for _, n := range componentNames {
		if n == name {
			return c.status(n), nil
		}
	}
	return nil, nil //nolint:nilnil // there is none
}

// List implements Computed.
func (c components) List(_ context.Context, _ string, selector labels.Selector) ([]runtime.Object, error) {
	if !selector.Matches(labels.Set{}) {
		return nil, nil
	}
	var all []runtime.Object
	for _, n := range componentNames {
		all = append(all, c.status(n))
	}
	return all, nil
}

func (c components) status(name string) runtime.Object {
	condition := v1.ComponentCondition{Type: v1.ComponentHealthy, Status: v1.ConditionTrue, Message: "ok"}
	if name == "etcd-0" {
		if err := c.s.storeAlive(); err != nil {
			condition.Status, condition.Message, condition.Error = v1.ConditionFalse, "", err.Error()
		}
	}
	return &v1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Conditions: []v1.ComponentCondition{condition}}
}
