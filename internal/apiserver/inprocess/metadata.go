package inprocess

import (
	"context"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
)

// Metadata is a client of objects' metadata that lists and watches whole
// resources in the store itself, and asks the API server for everything else.
// What it gets, lists and watches comes without managed fields, and must not be changed.
type Metadata struct {
	metadata.Interface
	store store.Store
	cat   *catalogue.Catalogue
}

// NewMetadata makes one; client is the one that asks the API server.
func NewMetadata(client metadata.Interface, s store.Store, cat *catalogue.Catalogue) *Metadata {
	return &Metadata{client, s, cat}
}

// IsWatchListSemanticsUnSupported tells reflectors that a list costs no more
// than a stream of initial events.
func (m *Metadata) IsWatchListSemanticsUnSupported() bool { return true }

// Resource implements metadata.Interface.
func (m *Metadata) Resource(gvr schema.GroupVersionResource) metadata.Getter {
	client := m.Interface.Resource(gvr)
	row := m.cat.Lookup(gvr.Group, gvr.Version, gvr.Resource)
	if row == nil || row.NotStored {
		return client
	}
	return &metadataOf{client, &listWatch{m.store, row, partial}}
}

type metadataOf struct {
	metadata.Getter
	whole *listWatch
}

// Get implements metadata.ResourceInterface.
func (m *metadataOf) Get(ctx context.Context, name string, o metav1.GetOptions, subresources ...string) (*metav1.PartialObjectMetadata, error) {
	return m.whole.get(ctx, m.Getter, "", name, o, subresources)
}

// Namespace implements metadata.Getter.
func (m *metadataOf) Namespace(namespace string) metadata.ResourceInterface {
	return &metadataIn{m.Getter.Namespace(namespace), m.whole, namespace}
}

// metadataIn is a metadataOf in a namespace. It gets objects in the store itself.
type metadataIn struct {
	metadata.ResourceInterface
	whole     *listWatch
	namespace string
}

// Get implements metadata.ResourceInterface.
func (m *metadataIn) Get(ctx context.Context, name string, o metav1.GetOptions, subresources ...string) (*metav1.PartialObjectMetadata, error) {
	return m.whole.get(ctx, m.ResourceInterface, m.namespace, name, o, subresources)
}

// get reads an object's metadata in the store. What is not found there, client says. As
// in what is watched, the maps and slices are the store's.
func (l *listWatch) get(ctx context.Context, client metadata.ResourceInterface, namespace, name string, o metav1.GetOptions, subresources []string) (*metav1.PartialObjectMetadata, error) {
	if l.row.Namespaced == (namespace != "") && name != "" && len(subresources) == 0 && o.ResourceVersion == "" {
		e, err := l.store.Get(ctx, l.row.Key(namespace, name))
		if err == nil && e != nil {
			return l.shown(e.Object()).(*metav1.PartialObjectMetadata), nil
		}
	}
	return client.Get(ctx, name, o, subresources...)
}

// isWhole reports whether nothing is selected.
func isWhole(o metav1.ListOptions) bool {
	return o.LabelSelector == "" && o.FieldSelector == "" && o.Continue == "" && (o.SendInitialEvents == nil || !*o.SendInitialEvents)
}

// List implements metadata.ResourceInterface.
func (m *metadataOf) List(ctx context.Context, o metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	if !isWhole(o) {
		return m.Getter.List(ctx, o)
	}
	res, err := m.whole.store.List(ctx, m.whole.row.Prefix(""), store.ListOptions{})
	if err != nil {
		return nil, err
	}
	l := &metav1.PartialObjectMetadataList{Items: make([]metav1.PartialObjectMetadata, len(res.Entries))}
	l.ResourceVersion = strconv.FormatInt(res.Revision, 10)
	for i, e := range res.Entries {
		l.Items[i] = *partial(e.Object()).(*metav1.PartialObjectMetadata)
	}
	return l, nil
}

// Watch implements metadata.ResourceInterface.
func (m *metadataOf) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	if !isWhole(o) || o.ResourceVersion == "" {
		return m.Getter.Watch(ctx, o)
	}
	return m.whole.WatchWithContext(ctx, o)
}

// unmanaged is metadata without the managers.
type unmanaged struct{ metav1.Object }

// GetManagedFields implements metav1.Object.
func (unmanaged) GetManagedFields() []metav1.ManagedFieldsEntry { return nil }

// partial returns the metadata of obj.
func partial(obj runtime.Object) runtime.Object {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return &metav1.PartialObjectMetadata{}
	}
	return meta.AsPartialObjectMetadata(unmanaged{acc})
}
