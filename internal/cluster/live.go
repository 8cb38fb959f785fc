package cluster

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/store"
)

// live reads objects from the store as they are now, for admission and tokens.
type live struct{ c *Cluster }

func lookup[T any](ctx context.Context, l *live, resource, namespace, name string) (T, error) {
	return lookupIn[T](ctx, l, "", resource, namespace, name)
}

func lookupIn[T any](ctx context.Context, l *live, group, resource, namespace, name string) (T, error) {
	var none T
	row := l.c.row(group, "v1", resource)
	e, err := l.c.Store.Get(ctx, row.Key(namespace, name))
	if err != nil {
		return none, err
	}
	if e == nil {
		return none, apierrors.NewNotFound(row.GroupVersionResource.GroupResource(), name)
	}
	return e.Object().(T), nil
}

// Namespace reads a namespace.
func (l *live) Namespace(ctx context.Context, name string) (*v1.Namespace, error) {
	return lookup[*v1.Namespace](ctx, l, "namespaces", "", name)
}

// Pod implements token.Getter.
func (l *live) Pod(ctx context.Context, namespace, name string) (*v1.Pod, error) {
	return lookup[*v1.Pod](ctx, l, "pods", namespace, name)
}

// Secret implements token.Getter.
func (l *live) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	return lookup[*v1.Secret](ctx, l, "secrets", namespace, name)
}

// Node implements token.Getter.
func (l *live) Node(ctx context.Context, name string) (*v1.Node, error) {
	return lookup[*v1.Node](ctx, l, "nodes", "", name)
}

// PodsOf implements authz.Objects.
func (l *live) PodsOf(ctx context.Context, node string) ([]*v1.Pod, error) {
	res, err := l.c.Store.List(ctx, l.c.row("", "v1", "pods").Prefix(""), store.ListOptions{Index: podsByNode, Value: node})
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
func (l *live) Claim(ctx context.Context, namespace, name string) (*v1.PersistentVolumeClaim, error) {
	return lookup[*v1.PersistentVolumeClaim](ctx, l, "persistentvolumeclaims", namespace, name)
}

// Volume implements authz.Objects.
func (l *live) Volume(ctx context.Context, name string) (*v1.PersistentVolume, error) {
	return lookup[*v1.PersistentVolume](ctx, l, "persistentvolumes", "", name)
}

// Attachment implements authz.Objects.
func (l *live) Attachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error) {
	return lookupIn[*storagev1.VolumeAttachment](ctx, l, storagev1.GroupName, "volumeattachments", "", name)
}

// ResourceSlice implements authz.Objects.
func (l *live) ResourceSlice(ctx context.Context, name string) (*resourcev1.ResourceSlice, error) {
	return lookupIn[*resourcev1.ResourceSlice](ctx, l, resourcev1.GroupName, "resourceslices", "", name)
}

// PodCertificateRequest implements authz.Objects.
func (l *live) PodCertificateRequest(ctx context.Context, namespace, name string) (*certificatesv1.PodCertificateRequest, error) {
	return lookupIn[*certificatesv1.PodCertificateRequest](ctx, l, certificatesv1.GroupName, "podcertificaterequests", namespace, name)
}

// accountWait is how long a pod waits for its namespace's default account,
// which a controller makes just after the namespace.
const accountWait = time.Second

// ServiceAccount implements token.Getter, and admission's source of accounts.
func (l *live) ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error) {
	sa, err := lookup[*v1.ServiceAccount](ctx, l, "serviceaccounts", namespace, name)
	if !apierrors.IsNotFound(err) || name != "default" || l.c.NoControllers {
		return sa, err
	}
	w, werr := l.c.Store.Watch(l.c.row("", "v1", "serviceaccounts").Key(namespace, name), store.WatchOptions{})
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

// nodeTransport reaches node agents by their address and port, as the API
// server's own client.
type nodeTransport struct {
	kubelet *Kubelet
	certs   *certs.Bundle
	own     func(netip.AddrPort) bool
	mu      sync.Mutex
	ways    map[verification]http.RoundTripper
}

// agentPort is where a node's server is whose status does not say it.
const agentPort = 10250

// Node implements apiserver.NodeTransport.
func (n *nodeTransport) Node(_ context.Context, node *v1.Node, unchecked bool) (*url.URL, http.RoundTripper, error) {
	host := n.kubelet.host(node)
	if host == "" {
		return nil, nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no preferred addresses found; known addresses: %v", node.Status.Addresses))
	}
	port := cmp.Or(node.Status.DaemonEndpoints.KubeletEndpoint.Port, agentPort)
	v := n.kubelet.verification(node)
	if unchecked {
		v = unverified
	}
	rt, err := n.transport(v)
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}, rt, err
}

func (n *nodeTransport) transport(v verification) (http.RoundTripper, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if rt := n.ways[v]; rt != nil {
		return rt, nil
	}
	rt, err := n.kubelet.transport(n.certs, v, apiserver.RefuseOwn(n.own))
	if err == nil {
		n.ways[v] = rt
	}
	return rt, err
}
