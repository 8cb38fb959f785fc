package cluster

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"net/netip"
	"os"
	"reflect"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/store"
)

// quiet drops what net/http says about clients' broken connections.
var quiet = log.New(discard{}, "", 0)

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func hostname() string {
	h, _ := os.Hostname()
	return h
}

// advertised is the machine's address towards its default route, else
// loopback. Nothing is sent.
func advertised() netip.Addr {
	if conn, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer conn.Close()
		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			return a.AddrPort().Addr().Unmap()
		}
	}
	return netip.MustParseAddr("127.0.0.1")
}

func (c *Cluster) row(group, version, resource string) *api.Resource {
	r := c.Catalogue.Lookup(group, version, resource)
	if r == nil {
		panic(fmt.Sprintf("the catalogue has no %s/%s %s", group, version, resource))
	}
	return r
}

// bootstrap stores what a cluster has from its first start: namespaces, RBAC
// policy, priority classes. All of it goes to disk in one or two writes.
func (c *Cluster) bootstrap() error {
	var objs []runtime.Object
	for _, ns := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, v1.NamespaceNodeLease} {
		objs = append(objs, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	class := func(name, description string, value int32) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: description, PreemptionPolicy: ptr.To(v1.PreemptLowerPriority)}
	}
	objs = append(objs,
		class("system-cluster-critical", "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.", 2_000_000_000),
		class("system-node-critical", "Used for system critical pods that must not be moved from their current node.", 2_000_001_000),
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{c.ServiceCIDR.String()}}})
	others, err := c.extensionAuthentication()
	if err != nil {
		return err
	}
	objs = append(objs, others)
	objs = append(objs, priorities()...)
	policy := authz.Bootstrap()
	var roles []*rbacv1.ClusterRole
	for _, o := range policy {
		if r, ok := o.(*rbacv1.ClusterRole); ok {
			roles = append(roles, r)
		}
	}
	// view goes into edit, and edit into admin, so the order is from the parts up.
	for _, name := range []string{"view", "edit", "admin"} {
		for _, r := range roles {
			if r.Name == name {
				rules, err := authz.Aggregate(r, roles)
				if err != nil {
					return err
				}
				r.Rules = rules
			}
		}
	}
	objs = append(objs, policy...)
	rows := map[reflect.Type]*api.Resource{}
	for _, r := range c.Catalogue.All() {
		if r.Hub == nil && !r.NotStored {
			rows[reflect.TypeOf(r.New())] = r
		}
	}
	errs := make([]error, len(objs))
	var wg sync.WaitGroup
	for i, o := range objs {
		row := rows[reflect.TypeOf(o)]
		wg.Go(func() {
			errs[i] = c.seed(row, o.DeepCopyObject())
			for errors.Is(errs[i], store.ErrExists) || errors.Is(errs[i], store.ErrConflict) {
				// Another server starts at the same time.
				errs[i] = c.seed(row, o.DeepCopyObject())
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// extensionAuthentication tells aggregated API servers how to authenticate
// what they are passed on from here, and clients who come to them directly.
func (c *Cluster) extensionAuthentication() (*v1.ConfigMap, error) {
	proxies, err := c.Authentication.RequestHeader.Published(c.Certs.FrontProxy.CAPEM, []string{frontProxyClient})
	if err != nil {
		return nil, err
	}
	clients := string(c.Certs.CAPEM)
	if c.Authentication.ClientCAFile != "" {
		more, err := os.ReadFile(c.Authentication.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("--client-ca-file: %w", err)
		}
		clients += string(more)
	}
	proxies["client-ca-file"] = clients
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "extension-apiserver-authentication"}, Data: proxies}, nil
}

// seed stores obj if there is none, or brings the policy that asks for it up
// to date.
func (c *Cluster) seed(row *api.Resource, obj runtime.Object) error {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	key := row.Key(acc.GetNamespace(), acc.GetName())
	e, err := c.Store.Get(c.ctx, key)
	if err != nil {
		return err
	}
	if e != nil {
		return c.refresh(e, obj)
	}
	if row.Default != nil {
		row.Default(obj)
	}
	if row.PrepareForCreate != nil {
		row.PrepareForCreate(obj)
	}
	acc.SetUID(uuid.NewUUID())
	acc.SetCreationTimestamp(metav1.Time{Time: c.Clock.Now().UTC().Truncate(time.Second)})
	_, err = c.Store.Create(c.ctx, key, obj, 0)
	return err
}

// refresh adds to a stored role what the policy has and it lacks.
func (c *Cluster) refresh(e *store.Entry, want runtime.Object) error {
	if want, ok := want.(*v1.ConfigMap); ok {
		old := e.Object().(*v1.ConfigMap)
		if maps.Equal(old.Data, want.Data) {
			return nil
		}
		next := old.DeepCopy()
		next.Data = want.Data
		_, err := c.Store.Update(c.ctx, e.Key, e.ModRevision, next, 0)
		return err
	}
	acc, err := meta.Accessor(e.Object())
	if err != nil || acc.GetAnnotations()[authz.AutoUpdate] != "true" {
		return err
	}
	var next runtime.Object
	switch old := e.Object().(type) {
	case *rbacv1.ClusterRole:
		if old.AggregationRule != nil || covered(old.Rules, want.(*rbacv1.ClusterRole).Rules) {
			return nil
		}
		n := old.DeepCopy()
		n.Rules = union(n.Rules, want.(*rbacv1.ClusterRole).Rules)
		next = n
	case *rbacv1.Role:
		if covered(old.Rules, want.(*rbacv1.Role).Rules) {
			return nil
		}
		n := old.DeepCopy()
		n.Rules = union(n.Rules, want.(*rbacv1.Role).Rules)
		next = n
	default:
		return nil
	}
	_, err = c.Store.Update(c.ctx, e.Key, e.ModRevision, next, 0)
	return err
}

func covered(have, want []rbacv1.PolicyRule) bool { return len(union(have, want)) == len(have) }

func union(have, want []rbacv1.PolicyRule) []rbacv1.PolicyRule {
next:
	for _, w := range want {
		for _, h := range have {
			if equality.Semantic.DeepEqual(h, w) {
				continue next
			}
		}
		have = append(have, w)
	}
	return have
}
