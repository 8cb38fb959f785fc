package apiserver

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"keelson.dev/keelson/internal/objectjson"
)

// creation is an object as a manager created it, and the fields that it owns
// then. They depend on nothing but the object's shape, and most objects of a
// custom resource that one client creates have the same.
type creation struct {
	shape  map[string]any
	fields map[string]any // shared: not to be changed
}

// creations are the latest creations of a resource, by whichever manager.
type creations struct {
	sync.RWMutex
	latest [8]*creation
	next   int
}

// known returns the fields of an object like u, or nil.
func (c *creations) known(u map[string]any) map[string]any {
	c.RLock()
	defer c.RUnlock()
	for _, k := range c.latest {
		if k != nil && objectjson.SameShape(k.shape, u) {
			return k.fields
		}
	}
	return nil
}

func (c *creations) learn(k *creation) {
	c.Lock()
	defer c.Unlock()
	c.latest[c.next] = k
	c.next = (c.next + 1) % len(c.latest)
}

// created records that manager owns the fields of the new object u, as the field
// manager does, if it knows the fields of an object of the same shape, and
// reports whether it does.
func (o *ownership) created(u *unstructured.Unstructured, version, manager string, now time.Time) bool {
	metadata, ok := u.Object["metadata"].(map[string]any)
	if !ok {
		return false
	}
	fields := o.creations.known(u.Object)
	if fields == nil {
		return false
	}
	metadata["managedFields"] = []any{map[string]any{
		"manager": manager, "operation": string(metav1.ManagedFieldsOperationUpdate), "apiVersion": version,
		"fieldsType": "FieldsV1", "fieldsV1": fields, "time": now.UTC().Format(time.RFC3339),
	}}
	return true
}

// learn remembers the owned fields of the created u for objects of its shape.
func (o *ownership) learn(shape map[string]any, u *unstructured.Unstructured) {
	metadata, _ := u.Object["metadata"].(map[string]any)
	managers, _ := metadata["managedFields"].([]any)
	if len(managers) != 1 {
		return
	}
	m, _ := managers[0].(map[string]any)
	if fields, ok := m["fieldsV1"].(map[string]any); ok && m["operation"] == string(metav1.ManagedFieldsOperationUpdate) {
		o.creations.learn(&creation{shape, fields})
	}
}
