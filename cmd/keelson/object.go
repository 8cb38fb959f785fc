package main

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
)

// object is the one that a command is about, be it that it does not exist.
type object struct {
	mapper    meta.RESTMapper
	mapping   *meta.RESTMapping
	namespace string // "" where its kind has none
	name      string
}

// findObject returns the object that an argument names as TYPE/NAME, where TYPE may be
// short (deploy) or have a group (deployments.apps). The default of the namespace is the
// kubeconfig's.
func findObject(cs kubernetes.Interface, arg, namespace string) (*object, error) {
	typ, name, ok := strings.Cut(arg, "/")
	if !ok || typ == "" || name == "" {
		return nil, fmt.Errorf("%q: give a type and a name, as in deploy/web", arg)
	}
	if namespace == "" {
		var err error
		if namespace, _, err = userKubeconfig().Namespace(); err != nil {
			return nil, err
		}
	}
	o := &object{mapper: typeMapper(cs), name: name}
	var err error
	if o.mapping, err = findType(o.mapper, typ); err != nil {
		return nil, err
	}
	o.namespace = namespaceOf(o.mapping, namespace)
	return o, nil
}

// typeMapper returns the mapper of what the cluster serves, short names included.
func typeMapper(cs kubernetes.Interface) meta.RESTMapper {
	cached := memory.NewMemCacheClient(cs.Discovery())
	return restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(cached), cached, nil)
}

// findType returns the resource of a type, in the version that the cluster prefers.
func findType(mapper meta.RESTMapper, typ string) (*meta.RESTMapping, error) {
	gvk, err := mapper.KindFor(schema.ParseGroupResource(typ).WithVersion(""))
	if err != nil {
		return nil, err
	}
	return mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
}

// namespaceOf returns namespace, or "" if objects of m are in none.
func namespaceOf(m *meta.RESTMapping, namespace string) string {
	if m.Scope.Name() != meta.RESTScopeNameNamespace {
		return ""
	}
	return namespace
}

func (o *object) resource() schema.GroupResource { return o.mapping.Resource.GroupResource() }

// in returns the client of the object's resource in its namespace.
func (o *object) in(d dynamic.Interface) dynamic.ResourceInterface {
	return d.Resource(o.mapping.Resource).Namespace(o.namespace)
}
