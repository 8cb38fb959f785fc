package manager

import (
	"context"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// clients gives the client of a component of the table.
type clients struct {
	of         func(identity string) kubernetes.Interface
	identities map[string]string // by component
}

// sink writes each event as the controller that it comes from.
type sink struct{ clients }

func (s *sink) events(e *v1.Event) typedv1.EventInterface {
	return s.of(s.identities[e.Source.Component]).CoreV1().Events(e.Namespace)
}

// Create implements record.EventSink.
func (s *sink) Create(e *v1.Event) (*v1.Event, error) {
	return s.events(e).Create(context.Background(), e, metav1.CreateOptions{})
}

// Update implements record.EventSink.
func (s *sink) Update(e *v1.Event) (*v1.Event, error) {
	return s.events(e).Update(context.Background(), e, metav1.UpdateOptions{})
}

// Patch implements record.EventSink.
func (s *sink) Patch(e *v1.Event, data []byte) (*v1.Event, error) {
	return s.events(e).Patch(context.Background(), e.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
}
