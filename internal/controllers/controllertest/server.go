package controllertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"
)

// server gives the tracker of a fake clientset an API server's manners.
type server struct {
	clienttesting.ObjectTracker
	mu       sync.Mutex
	revision int
	changed  int
	graceful map[string]bool
	// collected says that a garbage collector follows the propagation policies of
	// deletions, which are not looked at without one.
	collected bool
	// beats are the resources that are written to all the time.
	beats map[string]bool
	// last is the last event of each object, by resource and name.
	last map[schema.GroupVersionResource]map[types.NamespacedName]watch.Event
}

// note keeps the last event of an object.
func (s *server) note(gvr schema.GroupVersionResource, t watch.EventType, obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	if !s.beats[gvr.Resource] {
		s.changed++
	}
	if s.last == nil {
		s.last = map[schema.GroupVersionResource]map[types.NamespacedName]watch.Event{}
	}
	if s.last[gvr] == nil {
		s.last[gvr] = map[types.NamespacedName]watch.Event{}
	}
	s.last[gvr][types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}] = watch.Event{Type: t, Object: obj.DeepCopyObject()}
}

// watch returns the events of a resource from now on, and the last one of each object:
// the tracker has no history, from which what came after the client's list could be
// told.
func (s *server) watch(gvr schema.GroupVersionResource, namespace string) (watch.Interface, []watch.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, err := s.Watch(gvr, namespace)
	if err != nil {
		return nil, nil, err
	}
	var missed []watch.Event
	for name, e := range s.last[gvr] {
		if namespace == "" || namespace == name.Namespace {
			missed = append(missed, e)
		}
	}
	return w, missed, nil
}

func (s *server) next() string {
	s.revision++
	return fmt.Sprint(s.revision)
}

func (s *server) Create(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.CreateOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	rv := s.next()
	if m.GetName() == "" && m.GetGenerateName() != "" {
		m.SetName(fmt.Sprintf("%s%05d", m.GetGenerateName(), s.revision))
	}
	if m.GetUID() == "" {
		m.SetUID(types.UID("uid-" + rv))
	}
	if m.GetCreationTimestamp().Time.IsZero() {
		m.SetCreationTimestamp(metav1.NewTime(time.Now()))
	}
	m.SetGeneration(1)
	m.SetResourceVersion(rv)
	if err := s.ObjectTracker.Create(gvr, obj, ns, opts...); err != nil {
		return err
	}
	s.note(gvr, watch.Modified, obj)
	return nil
}

func (s *server) Update(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.UpdateOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.admit(gvr, obj, ns, func(name string) error {
		return apierrors.NewConflict(gvr.GroupResource(), name, errors.New("Precondition failed: UID in precondition differs from that in object meta"))
	})
	if err != nil || m == nil {
		return err
	}
	if err := s.ObjectTracker.Update(gvr, obj, ns, opts...); err != nil {
		return err
	}
	s.note(gvr, watch.Modified, obj)
	return s.collect(gvr, ns, m, obj)
}

func (s *server) Patch(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.PatchOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.admit(gvr, obj, ns, func(name string) error {
		return apierrors.NewInvalid(schema.GroupKind{Group: gvr.Group, Kind: gvr.Resource}, name, field.ErrorList{field.Invalid(field.NewPath("metadata", "uid"), "", "field is immutable")})
	})
	if err != nil || m == nil {
		return err
	}
	if err := s.ObjectTracker.Patch(gvr, obj, ns, opts...); err != nil {
		return err
	}
	s.note(gvr, watch.Modified, obj)
	return s.collect(gvr, ns, m, obj)
}

// admit checks obj against the version it replaces and stamps it. It returns nil where
// nothing changes: there is no new version then, and no event. another is the error
// of one that is of another object of its name.
func (s *server) admit(gvr schema.GroupVersionResource, obj runtime.Object, ns string, another func(name string) error) (metav1.Object, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	old, err := s.ObjectTracker.Get(gvr, ns, m.GetName())
	if err != nil {
		return nil, err
	}
	was, err := meta.Accessor(old)
	if err != nil {
		return nil, err
	}
	if uid := m.GetUID(); uid != "" && uid != was.GetUID() {
		return nil, another(m.GetName())
	}
	if rv := m.GetResourceVersion(); rv != "" && rv != was.GetResourceVersion() {
		return nil, apierrors.NewConflict(gvr.GroupResource(), m.GetName(),
			errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	m.SetUID(was.GetUID())
	m.SetCreationTimestamp(was.GetCreationTimestamp())
	m.SetGeneration(was.GetGeneration())
	if !reflect.DeepEqual(spec(old), spec(obj)) {
		m.SetGeneration(was.GetGeneration() + 1)
	}
	m.SetResourceVersion(was.GetResourceVersion())
	if equality.Semantic.DeepEqual(old, obj) {
		return nil, nil
	}
	m.SetResourceVersion(s.next())
	return m, nil
}

// spec returns what an object's generation is of: its spec, or of one without a spec, such
// as an EndpointSlice, all but its metadata and its status.
func spec(obj runtime.Object) any {
	data, err := json.Marshal(obj)
	if err != nil {
		return nil
	}
	var o map[string]any
	if json.Unmarshal(data, &o) != nil {
		return nil
	}
	if s, ok := o["spec"]; ok {
		return s
	}
	delete(o, "metadata")
	delete(o, "status")
	return o
}

// collect removes an object that is being deleted and has lost its last
// finalizer.
func (s *server) collect(gvr schema.GroupVersionResource, ns string, m metav1.Object, obj runtime.Object) error {
	if m.GetDeletionTimestamp() == nil || len(m.GetFinalizers()) > 0 || s.graceful[gvr.Resource] {
		return nil
	}
	s.note(gvr, watch.Deleted, obj)
	return s.ObjectTracker.Delete(gvr, ns, m.GetName())
}

func (s *server) Delete(gvr schema.GroupVersionResource, ns, name string, opts ...metav1.DeleteOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	obj, err := s.ObjectTracker.Get(gvr, ns, name)
	if err != nil {
		return err
	}
	obj = obj.DeepCopyObject()
	m, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	now, finalizers := false, m.GetFinalizers()
	if len(opts) > 0 {
		if p := opts[0].Preconditions; p != nil && p.UID != nil && *p.UID != m.GetUID() {
			return apierrors.NewConflict(gvr.GroupResource(), name, errors.New("the UID in the precondition does not match"))
		}
		if p := opts[0].Preconditions; p != nil && p.ResourceVersion != nil && *p.ResourceVersion != m.GetResourceVersion() {
			return apierrors.NewConflict(gvr.GroupResource(), name, errors.New("the ResourceVersion in the precondition does not match"))
		}
		if p := opts[0].PropagationPolicy; p != nil && s.collected {
			propagate(m, *p)
		}
		now = opts[0].GracePeriodSeconds != nil && *opts[0].GracePeriodSeconds == 0
	}
	if len(m.GetFinalizers()) == 0 && (now || !s.graceful[gvr.Resource]) {
		s.note(gvr, watch.Deleted, obj)
		return s.ObjectTracker.Delete(gvr, ns, name, opts...)
	}
	if m.GetDeletionTimestamp() == nil || !slices.Equal(m.GetFinalizers(), finalizers) {
		if m.GetDeletionTimestamp() == nil {
			t := metav1.NewTime(time.Now())
			m.SetDeletionTimestamp(&t)
		}
		m.SetResourceVersion(s.next())
		s.note(gvr, watch.Modified, obj)
		return s.ObjectTracker.Update(gvr, obj, ns)
	}
	return nil
}

// propagate sets the finalizer that a policy makes a deletion wait for.
func propagate(m metav1.Object, policy metav1.DeletionPropagation) {
	left := slices.DeleteFunc(slices.Clone(m.GetFinalizers()), func(f string) bool {
		return f == metav1.FinalizerDeleteDependents || f == metav1.FinalizerOrphanDependents
	})
	switch policy {
	case metav1.DeletePropagationForeground:
		left = append(left, metav1.FinalizerDeleteDependents)
	case metav1.DeletePropagationOrphan:
		left = append(left, metav1.FinalizerOrphanDependents)
	}
	m.SetFinalizers(left)
}

// changes returns how many changes there were but for those that go on for ever.
func (s *server) changes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
