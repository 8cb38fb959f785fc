package index

import (
	"fmt"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// ByService is the index of EndpointSlices by the namespace/name of their Service.
const ByService = "keelson.dev/service"

// ServiceOf returns the namespace/name of a slice's Service, "" if it has none.
func ServiceOf(s *discoveryv1.EndpointSlice) string {
	n := s.Labels[discoveryv1.LabelServiceName]
	if n == "" {
		return ""
	}
	return s.Namespace + "/" + n
}

// Slices makes the informer of EndpointSlices keep the index ByService.
func Slices(i cache.SharedIndexInformer) error {
	return Add(i, ByService, func(obj any) ([]string, error) {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
			if key := ServiceOf(s); key != "" {
				return []string{key}, nil
			}
		}
		return nil, nil
	})
}

// Add adds an index to an informer, if it is not there already.
func Add(i cache.SharedIndexInformer, name string, f cache.IndexFunc) error {
	if _, there := i.GetIndexer().GetIndexers()[name]; there {
		return nil
	}
	if err := i.AddIndexers(cache.Indexers{name: f}); err != nil {
		if _, there := i.GetIndexer().GetIndexers()[name]; there {
			return nil // another component has added it meanwhile
		}
		return fmt.Errorf("index %s: %w", name, err)
	}
	return nil
}

// Of returns the slices of a Service by name. They are the informer's own.
func Of(i cache.Indexer, namespace, name string) []*discoveryv1.EndpointSlice {
	all, err := i.ByIndex(ByService, namespace+"/"+name)
	if err != nil {
		return nil
	}
	out := make([]*discoveryv1.EndpointSlice, 0, len(all))
	for _, o := range all {
		if s, ok := o.(*discoveryv1.EndpointSlice); ok {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	return out
}
