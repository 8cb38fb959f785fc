package namespace

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	discoveryfake "k8s.io/client-go/discovery/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

var (
	pods    = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}
)

type suite struct {
	*controllertest.Cluster
	meta *metadatafake.FakeMetadataClient
	// refuse makes lists fail.
	refuse bool
	order  []string
}

func object(apiVersion, kind, name string, finalizers ...string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiVersion, Kind: kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Finalizers: finalizers},
	}
}

func run(t *testing.T, f func(s *suite), objs ...runtime.Object) {
	synctest.Test(t, func(t *testing.T) {
		sch := metadatafake.NewTestScheme()
		if err := metav1.AddMetaToScheme(sch); err != nil {
			t.Fatal(err)
		}
		s := &suite{meta: metadatafake.NewSimpleMetadataClient(sch, objs...)}
		s.meta.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			return s.refuse, nil, errors.New("no")
		})
		s.meta.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if strings.HasPrefix(a.GetVerb(), "delete") {
				s.order = append(s.order, a.GetVerb()+" "+a.GetResource().Resource)
			}
			return false, nil, nil
		})
		// The fake deletes no collection; and what has finalizers stays.
		s.meta.PrependReactor("delete-collection", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
			list := controllertest.Must[*metav1.PartialObjectMetadataList](t)(s.meta.Resource(a.GetResource()).Namespace(a.GetNamespace()).List(ctx, metav1.ListOptions{}))
			for _, o := range list.Items {
				if len(o.Finalizers) == 0 {
					if err := s.meta.Tracker().Delete(a.GetResource(), a.GetNamespace(), o.Name); err != nil {
						return true, nil, err
					}
				}
			}
			return true, nil, nil
		})
		disc := &discoveryfake.FakeDiscovery{Fake: &clienttesting.Fake{Resources: []*metav1.APIResourceList{
			{GroupVersion: "v1", APIResources: []metav1.APIResource{
				{Name: "pods", Kind: "Pod", Namespaced: true, Verbs: metav1.Verbs{"list", "delete", "deletecollection"}},
				{Name: "nodes", Kind: "Node", Verbs: metav1.Verbs{"list", "delete", "deletecollection"}},
			}},
			{GroupVersion: "example.com/v1", APIResources: []metav1.APIResource{
				{Name: "widgets", Kind: "Widget", Namespaced: true, Verbs: metav1.Verbs{"list", "delete"}}}},
		}}}
		s.Cluster = controllertest.NewWith(t, func(c *controllers.Context) { c.Metadata, c.Discovery = s.meta, disc }, Start)
		f(s)
	})
}

func (s *suite) terminate(t *testing.T) {
	now := metav1.Now()
	controllertest.Must[*v1.Namespace](t)(s.Client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "ns", DeletionTimestamp: &now},
		Spec:       v1.NamespaceSpec{Finalizers: []v1.FinalizerName{v1.FinalizerKubernetes}},
	}, metav1.CreateOptions{}))
	synctest.Wait()
}

// state gives the namespace's conditions that are true, and whether it has
// been finalized.
func (s *suite) state(t *testing.T) (map[v1.NamespaceConditionType]string, bool) {
	ns, err := s.Client.CoreV1().Namespaces().Get(ctx, "ns", metav1.GetOptions{})
	if err != nil {
		return nil, true
	}
	if ns.Status.Phase != v1.NamespaceTerminating {
		t.Errorf("phase %s", ns.Status.Phase)
	}
	out := map[v1.NamespaceConditionType]string{}
	for _, c := range ns.Status.Conditions {
		if c.Status == v1.ConditionTrue {
			out[c.Type] = c.Reason + ": " + c.Message
		}
	}
	return out, len(ns.Spec.Finalizers) == 0
}

func TestEmptiesAndFinalizes(t *testing.T) {
	run(t, func(s *suite) {
		s.terminate(t)
		if _, done := s.state(t); !done {
			t.Error("not finalized")
		}
		for _, r := range []schema.GroupVersionResource{pods, widgets} {
			if l := controllertest.Must[*metav1.PartialObjectMetadataList](t)(s.meta.Resource(r).Namespace("ns").List(ctx, metav1.ListOptions{})); len(l.Items) > 0 {
				t.Errorf("%v left", l.Items)
			}
		}
		if want := []string{"delete-collection pods", "delete widgets"}; !slices.Equal(s.order, want) {
			t.Errorf("deleted %q, want %q", s.order, want)
		}
	}, object("v1", "Pod", "p"), object("example.com/v1", "Widget", "w"))
}

func TestWaitsForPodsWithFinalizers(t *testing.T) {
	run(t, func(s *suite) {
		s.terminate(t)
		conditions, done := s.state(t)
		if done {
			t.Fatal("finalized with a pod left")
		}
		want := map[v1.NamespaceConditionType]string{
			v1.NamespaceContentRemaining:    "SomeResourcesRemain: Some resources are remaining: pods. has 1 resource instances",
			v1.NamespaceFinalizersRemaining: "SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
		}
		for k, v := range want {
			if conditions[k] != v {
				t.Errorf("%s is %q, want %q", k, conditions[k], v)
			}
		}
		if slices.Contains(s.order, "delete widgets") {
			t.Error("other content was deleted before the pods")
		}
		if err := s.meta.Tracker().Delete(pods, "ns", "p"); err != nil {
			t.Fatal(err)
		}
		s.Advance(20 * time.Second)
		if _, done := s.state(t); !done {
			t.Error("not finalized after the pod went")
		}
	}, object("v1", "Pod", "p", "example.com/hold"), object("example.com/v1", "Widget", "w"))
}

func TestContentFailure(t *testing.T) {
	run(t, func(s *suite) {
		s.refuse = true
		s.terminate(t)
		conditions, done := s.state(t)
		if got := conditions[v1.NamespaceDeletionContentFailure]; done || got != "ContentDeletionFailed: Failed to delete all resource types, 1 remaining: no" {
			t.Errorf("finalized %v, content failure %q", done, got)
		}
		s.refuse = false
		s.Advance(time.Minute)
		if _, done := s.state(t); !done {
			t.Error("not finalized after the failure")
		}
	})
}
