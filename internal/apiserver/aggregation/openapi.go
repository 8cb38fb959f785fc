package aggregation

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// MergeV2 returns all, an OpenAPI v2 document that it may change, together with what
// the other servers' say of their group versions. A document that is none is left out.
func (r *Registry) MergeV2(all *spec.Swagger) *spec.Swagger {
	backends := *r.current.Load()
	var gvs []schema.GroupVersion
	for gv, b := range backends {
		if b.found != nil && b.found.openapiV2 != nil {
			gvs = append(gvs, gv)
		}
	}
	if len(gvs) == 0 {
		return all
	}
	slices.SortFunc(gvs, func(a, b schema.GroupVersion) int {
		return slices.Compare([]string{a.Group, a.Version}, []string{b.Group, b.Version})
	})
	for name, d := range all.Definitions {
		if d.Extensions == nil { // the other documents' are put there
			d.Extensions = spec.Extensions{}
			all.Definitions[name] = d
		}
	}
	for _, gv := range gvs {
		next, err := with(all, gv, backends[gv].found.openapiV2)
		if err != nil {
			// One server's mistake is not the others' loss.
			klog.Background().Error(err, "The OpenAPI document of an aggregated API is left out", "groupVersion", gv)
			continue
		}
		all = next
	}
	return all
}

// with returns all, which stays as it is, together with what doc says of gv.
func with(all *spec.Swagger, gv schema.GroupVersion, doc []byte) (_ *spec.Swagger, err error) {
	defer func() {
		if p := recover(); p != nil { // the library trusts documents to be in order
			err = fmt.Errorf("merging the OpenAPI document: %v", p)
		}
	}()
	var other spec.Swagger
	if err := json.Unmarshal(doc, &other); err != nil {
		return nil, fmt.Errorf("reading the OpenAPI document: %w", err)
	}
	next := *all
	next.Definitions, next.Parameters = maps.Clone(all.Definitions), maps.Clone(all.Parameters)
	if all.Paths != nil {
		paths := *all.Paths
		paths.Paths = maps.Clone(all.Paths.Paths)
		next.Paths = &paths
	}
	part := aggregator.FilterSpecByPathsWithoutSideEffects(&other, []string{gvPath(gv) + "/"})
	if err := aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(&next, part); err != nil {
		return nil, fmt.Errorf("merging the OpenAPI document: %w", err)
	}
	return &next, nil
}
