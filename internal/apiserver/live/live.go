// Package live reads objects as they are in the store now, for what may not act on
// an informer's older ones: admission, the Node authorizer, tokens. It may import
// packages api/catalogue and store.
package live

import (
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api/catalogue"

	"context"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keelson.dev/keelson/internal/store"
)

// PodsByNode is the index of pods by the node that they are bound to.
const PodsByNode = "spec.nodeName"

// Indexers returns the indexes that a Reader wants of its store.
func Indexers() []store.Indexer {
	return []store.Indexer{{
		Name: PodsByNode, Prefix: "/registry/pods/",
		Value: func(o runtime.Object) (string, bool) {
			p, ok := o.(*v1.Pod)
			if !ok || p.Spec.NodeName == "" {
				return "", false
			}
			return p.Spec.NodeName, true
		},
	}}
}

// Reader reads objects in Store.
type Reader struct {
	Store     store.Store
	Catalogue *catalogue.Catalogue
	// DefaultAccounts reports whether a controller beside this server gives each
	// namespace its account "default", for which ServiceAccount waits a moment.
	DefaultAccounts bool
}

func lookup[T any](ctx context.Context, l *Reader, resource, namespace, name string) (T, error) {
	return lookupIn[T](ctx, l, "", resource, namespace, name)
}

func lookupIn[T any](ctx context.Context, l *Reader, group, resource, namespace, name string) (T, error) {
	var none T
	row := l.Catalogue.Must(group, "v1", resource)
	e, err := l.Store.Get(ctx, row.Key(namespace, name))
	if err != nil {
		return none, err
	}
	if e == nil {
		return none, apierrors.NewNotFound(row.GroupVersionResource.GroupResource(), name)
	}
	return e.Object().(T), nil
}

// Namespace reads a namespace.
func (l *Reader) Namespace(ctx context.Context, name string) (*v1.Namespace, error) {
	return lookup[*v1.Namespace](ctx, l, "namespaces", "", name)
}

// Pod implements token.Getter.
func (l *Reader) Pod(ctx context.Context, namespace, name string) (*v1.Pod, error) {
	return lookup[*v1.Pod](ctx, l, "pods", namespace, name)
}

// Secret implements token.Getter.
func (l *Reader) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	return lookup[*v1.Secret](ctx, l, "secrets", namespace, name)
}

// Node implements token.Getter.
func (l *Reader) Node(ctx context.Context, name string) (*v1.Node, error) {
	return lookup[*v1.Node](ctx, l, "nodes", "", name)
}

// PodsOf implements authz.Objects.
func (l *Reader) PodsOf(ctx context.Context, node string) ([]*v1.Pod, error) {
	res, err := l.Store.List(ctx, l.Catalogue.Must("", "v1", "pods").Prefix(""), store.ListOptions{Index: PodsByNode, Value: node})
	if err != nil {
		return nil, err
	}
	out := make([]*v1.Pod, len(res.Entries))
	for i, e := range res.Entries {
		out[i] = e.Object().(*v1.Pod)
	}
	return out, nil
}

// Claim implements authz.Objects.
func (l *Reader) Claim(ctx context.Context, namespace, name string) (*v1.PersistentVolumeClaim, error) {
	return lookup[*v1.PersistentVolumeClaim](ctx, l, "persistentvolumeclaims", namespace, name)
}

// Volume implements authz.Objects.
func (l *Reader) Volume(ctx context.Context, name string) (*v1.PersistentVolume, error) {
	return lookup[*v1.PersistentVolume](ctx, l, "persistentvolumes", "", name)
}

// Attachment implements authz.Objects.
func (l *Reader) Attachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error) {
	return lookupIn[*storagev1.VolumeAttachment](ctx, l, storagev1.GroupName, "volumeattachments", "", name)
}

// ResourceSlice implements authz.Objects.
func (l *Reader) ResourceSlice(ctx context.Context, name string) (*resourcev1.ResourceSlice, error) {
	return lookupIn[*resourcev1.ResourceSlice](ctx, l, resourcev1.GroupName, "resourceslices", "", name)
}

// PodCertificateRequest implements authz.Objects.
func (l *Reader) PodCertificateRequest(ctx context.Context, namespace, name string) (*certificatesv1.PodCertificateRequest, error) {
	return lookupIn[*certificatesv1.PodCertificateRequest](ctx, l, certificatesv1.GroupName, "podcertificaterequests", namespace, name)
}

// accountWait is how long a pod waits for its namespace's default account,
// which a controller makes just after the namespace.
const accountWait = time.Second

// ServiceAccount implements token.Getter, and admission's source of accounts.
func (l *Reader) ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error) {
	sa, err := lookup[*v1.ServiceAccount](ctx, l, "serviceaccounts", namespace, name)
	if !apierrors.IsNotFound(err) || name != "default" || !l.DefaultAccounts {
		return sa, err
	}
	w, werr := l.Store.Watch(l.Catalogue.Must("", "v1", "serviceaccounts").Key(namespace, name), store.WatchOptions{})
	if werr != nil {
		return nil, werr
	}
	defer w.Stop()
	wait, cancel := context.WithTimeout(ctx, accountWait)
	defer cancel()
	for {
		if sa, err = lookup[*v1.ServiceAccount](ctx, l, "serviceaccounts", namespace, name); err == nil {
			return sa, nil
		}
		if _, werr := w.Next(wait); werr != nil {
			return nil, err
		}
	}
}
