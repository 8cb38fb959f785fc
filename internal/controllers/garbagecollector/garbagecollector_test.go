package garbagecollector

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	discoveryfake "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/metadata"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

var (
	pods        = v1.SchemeGroupVersion.WithResource("pods")
	replicaSets = apps.SchemeGroupVersion.WithResource("replicasets")
)

type suite struct {
	t    *testing.T
	meta *metadatafake.FakeMetadataClient
	disc *discoveryfake.FakeDiscovery
}

func run(t *testing.T, f func(s *suite)) {
	synctest.Test(t, func(t *testing.T) {
		sch := metadatafake.NewTestScheme()
		if err := metav1.AddMetaToScheme(sch); err != nil {
			t.Fatal(err)
		}
		verbs := metav1.Verbs{"get", "list", "watch", "delete", "patch"}
		s := &suite{t: t, meta: metadatafake.NewSimpleMetadataClient(sch), disc: &discoveryfake.FakeDiscovery{Fake: &clienttesting.Fake{Resources: []*metav1.APIResourceList{
			{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "pods", Kind: "Pod", Namespaced: true, Verbs: verbs}}},
			{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{{Name: "replicasets", Kind: "ReplicaSet", Namespaced: true, Verbs: verbs}}},
		}}}}
		mapper := meta.NewDefaultRESTMapper(nil)
		mapper.Add(v1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
		mapper.Add(apps.SchemeGroupVersion.WithKind("ReplicaSet"), meta.RESTScopeNamespace)
		mapper.Add(v1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace) // which is not watched
		controllertest.NewWith(t, func(c *controllers.Context) {
			c.Metadatas, c.Discovery, c.RESTMapper = func(string) metadata.Interface { return s.meta }, s.disc, mapper
		}, New)
		f(s)
	})
}

func owner(name string, block bool) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name, UID: types.UID("uid-" + name), BlockOwnerDeletion: ptr.To(block)}
}

func (s *suite) put(gvr schema.GroupVersionResource, kind, name string, owners ...metav1.OwnerReference) {
	s.t.Helper()
	s.create(gvr, kind, name, owners...)
	synctest.Wait()
}

// create is put without waiting for the collector.
func (s *suite) create(gvr schema.GroupVersionResource, kind, name string, owners ...metav1.OwnerReference) {
	s.t.Helper()
	err := s.meta.Tracker().Create(gvr, &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: gvr.GroupVersion().String(), Kind: kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), OwnerReferences: owners},
	}, "ns")
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *suite) get(gvr schema.GroupVersionResource, name string) *metav1.PartialObjectMetadata {
	synctest.Wait()
	o, err := s.meta.Resource(gvr).Namespace("ns").Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return o
}

// terminate does what an API server does for a deletion that waits for a
// finalizer.
func (s *suite) terminate(gvr schema.GroupVersionResource, name, finalizer string) {
	s.t.Helper()
	o := s.get(gvr, name).DeepCopy()
	o.DeletionTimestamp = ptr.To(metav1.Now())
	o.Finalizers = []string{finalizer}
	if err := s.meta.Tracker().Update(gvr, o, "ns"); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

func TestBackground(t *testing.T) {
	run(t, func(s *suite) {
		s.put(replicaSets, "ReplicaSet", "a")
		s.put(pods, "Pod", "p", owner("a", true))
		s.put(pods, "Pod", "free")
		if s.get(pods, "p") == nil {
			t.Fatal("deleted though its owner is there")
		}
		if err := s.meta.Tracker().Delete(replicaSets, "ns", "a"); err != nil {
			t.Fatal(err)
		}
		if s.get(pods, "p") != nil || s.get(pods, "free") == nil {
			t.Error("wanted p gone and free left")
		}
	})
}

func TestOwnerThatNeverExisted(t *testing.T) {
	run(t, func(s *suite) {
		s.put(pods, "Pod", "p", owner("nobody", false))
		if s.get(pods, "p") != nil {
			t.Error("p is left though its owner does not exist")
		}
	})
}

func TestNamesakeIsNoOwner(t *testing.T) {
	run(t, func(s *suite) {
		s.put(replicaSets, "ReplicaSet", "a")
		ref := owner("a", false)
		ref.UID = "uid-of-the-one-before"
		s.put(pods, "Pod", "p", ref)
		if s.get(pods, "p") != nil {
			t.Error("p is left though its owner was another of the same name")
		}
	})
}

// TestOtherCoordinates checks that a reference with an owner's UID, but with another name,
// has no other dependent of the owner deleted, though nothing is known of the owner yet.
func TestOtherCoordinates(t *testing.T) {
	of := func(name string) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: name, UID: "uid-c"}
	}
	run(t, func(s *suite) {
		s.put(v1.SchemeGroupVersion.WithResource("configmaps"), "ConfigMap", "c")
		s.create(pods, "Pod", "wrong", of("w"))
		s.create(pods, "Pod", "right", of("c"))
		s.create(pods, "Pod", "unknown", metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Widget", Name: "c", UID: "uid-c"})
		synctest.Wait()
		s.put(pods, "Pod", "late", of("c"))
		s.put(pods, "Pod", "unknown-too", metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Widget", Name: "w", UID: "uid-c"})
		time.Sleep(time.Minute)
		if s.get(pods, "wrong") != nil {
			t.Error("the pod that names its owner wrongly is left")
		}
		for _, name := range []string{"right", "late", "unknown", "unknown-too"} {
			if s.get(pods, name) == nil {
				t.Errorf("pod %s has been deleted", name)
			}
		}
	})
}

// TestOtherKind checks that an owner of another kind is none, though the name and the UID
// are right.
func TestOtherKind(t *testing.T) {
	run(t, func(s *suite) {
		s.put(replicaSets, "ReplicaSet", "a")
		ref := owner("a", false)
		ref.APIVersion, ref.Kind = "v1", "Pod"
		s.put(pods, "Pod", "p", ref)
		if s.get(pods, "p") != nil {
			t.Error("p is left though there is no pod that it names as its owner")
		}
	})
}

func TestUnknownKindOfOwnerKeepsItsDependents(t *testing.T) {
	run(t, func(s *suite) {
		s.put(pods, "Pod", "p", metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Widget", Name: "w", UID: "w"})
		time.Sleep(time.Minute)
		if s.get(pods, "p") == nil {
			t.Error("p was deleted though its owner may exist")
		}
	})
}

func TestOneOfTwoOwnersGoes(t *testing.T) {
	run(t, func(s *suite) {
		s.put(replicaSets, "ReplicaSet", "a")
		s.put(replicaSets, "ReplicaSet", "b")
		s.put(pods, "Pod", "p", owner("a", true), owner("b", false))
		if err := s.meta.Tracker().Delete(replicaSets, "ns", "a"); err != nil {
			t.Fatal(err)
		}
		p := s.get(pods, "p")
		if p == nil || len(p.OwnerReferences) != 1 || p.OwnerReferences[0].Name != "b" {
			t.Errorf("%+v, want it owned by b alone", p)
		}
	})
}

func TestForeground(t *testing.T) {
	run(t, func(s *suite) {
		s.put(replicaSets, "ReplicaSet", "a")
		s.put(pods, "Pod", "held", owner("a", true))
		s.put(pods, "Pod", "p", owner("a", true))
		s.terminate(pods, "held", "example.com/hold")
		s.terminate(replicaSets, "a", metav1.FinalizerDeleteDependents)
		if s.get(pods, "p") != nil {
			t.Error("the dependent is left")
		}
		if a := s.get(replicaSets, "a"); a == nil || len(a.Finalizers) == 0 {
			t.Fatal("the owner did not wait for a dependent that blocks it")
		}
		if err := s.meta.Tracker().Delete(pods, "ns", "held"); err != nil {
			t.Fatal(err)
		}
		if a := s.get(replicaSets, "a"); a == nil || len(a.Finalizers) != 0 {
			t.Errorf("the owner is still held: %+v", a)
		}
	})
}

func TestForegroundIsNotBlockedByOthers(t *testing.T) {
	run(t, func(s *suite) {
		s.put(replicaSets, "ReplicaSet", "a")
		s.put(pods, "Pod", "held", owner("a", false))
		s.terminate(pods, "held", "example.com/hold")
		s.terminate(replicaSets, "a", metav1.FinalizerDeleteDependents)
		if a := s.get(replicaSets, "a"); a == nil || len(a.Finalizers) != 0 {
			t.Errorf("the owner waits for a dependent that does not block it: %+v", a)
		}
	})
}

func TestOrphan(t *testing.T) {
	run(t, func(s *suite) {
		s.put(replicaSets, "ReplicaSet", "a")
		s.put(pods, "Pod", "p", owner("a", true))
		s.terminate(replicaSets, "a", metav1.FinalizerOrphanDependents)
		if p := s.get(pods, "p"); p == nil || len(p.OwnerReferences) != 0 {
			t.Errorf("%+v, want an orphan", p)
		}
		if a := s.get(replicaSets, "a"); a == nil || len(a.Finalizers) != 0 {
			t.Errorf("the owner is still held: %+v", a)
		}
	})
}

// TestOrphanWithoutAnswer has a resource not be listed while an owner goes. The
// dependents of it that are known are made orphans all the same.
func TestOrphanWithoutAnswer(t *testing.T) {
	run(t, func(s *suite) {
		s.put(replicaSets, "ReplicaSet", "a")
		s.put(replicaSets, "ReplicaSet", "b")
		s.put(pods, "Pod", "p", owner("a", true))
		s.meta.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewServiceUnavailable("no server")
		})
		for _, name := range []string{"a", "b"} {
			s.terminate(replicaSets, name, metav1.FinalizerOrphanDependents)
			if o := s.get(replicaSets, name); o == nil || len(o.Finalizers) != 0 {
				t.Errorf("%s is still held: %+v", name, o)
			}
		}
		if p := s.get(pods, "p"); p == nil || len(p.OwnerReferences) != 0 {
			t.Errorf("%+v, want an orphan", p)
		}
	})
}

func TestNewResourceIsDiscovered(t *testing.T) {
	run(t, func(s *suite) {
		s.disc.Lock() // who asks it comes by this lock
		s.disc.Resources = append(s.disc.Resources, &metav1.APIResourceList{GroupVersion: "example.com/v1",
			APIResources: []metav1.APIResource{{Name: "widgets", Kind: "Widget", Namespaced: true, Verbs: metav1.Verbs{"get", "list", "watch", "delete"}}}})
		s.disc.Unlock()
		time.Sleep(discoveryPeriod + time.Second)
		synctest.Wait()
		widgets := schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}
		s.put(widgets, "Widget", "w", owner("nobody", false))
		if s.get(widgets, "w") != nil {
			t.Error("the new resource's garbage is left")
		}
	})
}
