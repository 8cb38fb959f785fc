package controllertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"
)

// server gives the tracker of a fake clientset an API server's manners.
type server struct {
	clienttesting.ObjectTracker
	mu       sync.Mutex
	revision int
	graceful map[string]bool
	// last is the last event of each object, by resource and name.
	last map[schema.GroupVersionResource]map[types.NamespacedName]watch.Event
}

// note keeps the last event of an object.
func (s *server) note(gvr schema.GroupVersionResource, t watch.EventType, obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
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
	m, err := s.admit(gvr, obj, ns)
	if err != nil {
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
	m, err := s.admit(gvr, obj, ns)
	if err != nil {
		return err
	}
	if err := s.ObjectTracker.Patch(gvr, obj, ns, opts...); err != nil {
		return err
	}
	s.note(gvr, watch.Modified, obj)
	return s.collect(gvr, ns, m, obj)
}

// admit checks obj against the version it replaces and stamps it.
func (s *server) admit(gvr schema.GroupVersionResource, obj runtime.Object, ns string) (metav1.Object, error) {
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
	m.SetResourceVersion(s.next())
	return m, nil
}

func spec(obj runtime.Object) any {
	data, err := json.Marshal(obj)
	if err != nil {
		return nil
	}
	var o struct{ Spec any }
	if json.Unmarshal(data, &o) != nil {
		return nil
	}
	return o.Spec
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
	now := false
	if len(opts) > 0 {
		if p := opts[0].Preconditions; p != nil && p.UID != nil && *p.UID != m.GetUID() {
			return apierrors.NewConflict(gvr.GroupResource(), name, errors.New("the UID in the precondition does not match"))
		}
		now = opts[0].GracePeriodSeconds != nil && *opts[0].GracePeriodSeconds == 0
	}
	if len(m.GetFinalizers()) == 0 && (now || !s.graceful[gvr.Resource]) {
		s.note(gvr, watch.Deleted, obj)
		return s.ObjectTracker.Delete(gvr, ns, name, opts...)
	}
	if m.GetDeletionTimestamp() == nil {
		t := metav1.NewTime(time.Now())
		m.SetDeletionTimestamp(&t)
		m.SetResourceVersion(s.next())
		s.note(gvr, watch.Modified, obj)
		return s.ObjectTracker.Update(gvr, obj, ns)
	}
	return nil
}
