package controllertest

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	clienttesting "k8s.io/client-go/testing"
)

// mapper knows the built-in kinds.
var mapper = sync.OnceValue(func() meta.RESTMapper { return testrestmapper.TestOnlyStaticRESTMapper(scheme.Scheme) })

// served are the resources that discovery tells of, enough for what follows any kind.
func served() []*metav1.APIResourceList {
	verbs := metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
	namespaced := func(name, kind string) metav1.APIResource {
		return metav1.APIResource{Name: name, Kind: kind, Namespaced: true, Verbs: verbs}
	}
	return []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{namespaced("pods", "Pod"), namespaced("configmaps", "ConfigMap"), namespaced("secrets", "Secret")}},
		{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{namespaced("replicasets", "ReplicaSet"), namespaced("deployments", "Deployment")}},
	}
}

// metadataClient is the client of the metadata of all resources.
type metadataClient struct{ *connection }

// Resource implements metadata.Interface.
func (m metadataClient) Resource(gvr schema.GroupVersionResource) metadata.Getter {
	return metadataResource{m.connection, gvr, ""}
}

// IsWatchListSemanticsUnSupported tells reflectors to list and then watch.
func (metadataClient) IsWatchListSemanticsUnSupported() bool { return true }

type metadataResource struct {
	*connection
	gvr       schema.GroupVersionResource
	namespace string
}

// Namespace implements metadata.Getter.
func (r metadataResource) Namespace(ns string) metadata.ResourceInterface {
	r.namespace = ns
	return r
}

// partial returns the metadata of an object.
func partial(obj runtime.Object) *metav1.PartialObjectMetadata {
	m, err := meta.Accessor(obj)
	if err != nil {
		panic(err)
	}
	gvk, _ := kindOf(obj)
	out := meta.AsPartialObjectMetadata(m)
	out.SetGroupVersionKind(gvk)
	return out.DeepCopy()
}

// Get implements metadata.ResourceInterface.
func (r metadataResource) Get(_ context.Context, name string, _ metav1.GetOptions, _ ...string) (out *metav1.PartialObjectMetadata, err error) {
	err = r.read(func() error {
		obj, err := r.server.Get(r.gvr, r.namespace, name)
		if err == nil {
			out = partial(obj)
		}
		return err
	})
	return out, err
}

// List implements metadata.ResourceInterface.
func (r metadataResource) List(context.Context, metav1.ListOptions) (out *metav1.PartialObjectMetadataList, err error) {
	err = r.read(func() (err error) {
		out, err = r.list()
		return err
	})
	return out, err
}

func (r metadataResource) list() (*metav1.PartialObjectMetadataList, error) {
	gvk, err := mapper().KindFor(r.gvr)
	if err != nil {
		return nil, err
	}
	list, err := r.server.List(r.gvr, gvk, r.namespace)
	if err != nil {
		return nil, err
	}
	out := &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	return out, meta.EachListItem(list, func(o runtime.Object) error {
		out.Items = append(out.Items, *partial(o))
		return nil
	})
}

// Watch implements metadata.ResourceInterface.
func (r metadataResource) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return r.watch(r.gvr, r.namespace, func(o runtime.Object) runtime.Object { return partial(o) })
}

// change does a write that the test does not refuse.
func (r metadataResource) change(verb string, do func() error) error {
	if r.refuse != nil {
		if err := r.refuse(clienttesting.ActionImpl{Verb: verb, Resource: r.gvr, Namespace: r.namespace}); err != nil {
			r.count.add(true)
			return err
		}
	}
	return r.write(do)
}

// Delete implements metadata.ResourceInterface.
func (r metadataResource) Delete(_ context.Context, name string, opts metav1.DeleteOptions, _ ...string) error {
	return r.change("delete", func() error { return r.server.Delete(r.gvr, r.namespace, name, opts) })
}

// DeleteCollection implements metadata.ResourceInterface.
func (r metadataResource) DeleteCollection(_ context.Context, opts metav1.DeleteOptions, _ metav1.ListOptions) error {
	return r.change("delete-collection", func() error {
		all, err := r.list()
		if err != nil {
			return err
		}
		for i := range all.Items {
			if err := r.server.Delete(r.gvr, all.Items[i].Namespace, all.Items[i].Name, opts); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		return nil
	})
}

// Patch implements metadata.ResourceInterface for merge patches, and for the apply
// patches that change nothing.
func (r metadataResource) Patch(_ context.Context, name string, pt types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (out *metav1.PartialObjectMetadata, err error) {
	if pt != types.MergePatchType && pt != types.ApplyPatchType {
		return nil, errors.New("the test's server knows merge patches of metadata only")
	}
	err = r.change("patch", func() error {
		old, err := r.server.Get(r.gvr, r.namespace, name)
		if err != nil {
			return err
		}
		was, err := json.Marshal(old)
		if err != nil {
			return err
		}
		now, err := jsonpatch.MergePatch(was, data)
		if err != nil {
			return err
		}
		obj := reflect.New(reflect.TypeOf(old).Elem()).Interface().(runtime.Object)
		if err := json.Unmarshal(now, obj); err != nil {
			return err
		}
		if err := r.server.Patch(r.gvr, obj, r.namespace); err != nil {
			return err
		}
		out = partial(obj)
		return nil
	})
	return out, err
}
