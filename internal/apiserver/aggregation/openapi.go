package aggregation

import (
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// MergeV2 adds to doc, an OpenAPI v2 document, what the other servers' say of
// their group versions. doc comes back as it is where there is nothing to add.
func (r *Registry) MergeV2(doc []byte) ([]byte, error) {
	generation := r.generation.Load()
	backends := *r.current.Load()
	var gvs []schema.GroupVersion
	for gv, b := range backends {
		if b.found != nil && b.found.openapiV2 != nil {
			gvs = append(gvs, gv)
		}
	}
	if len(gvs) == 0 {
		return doc, nil
	}
	slices.SortFunc(gvs, func(a, b schema.GroupVersion) int {
		return slices.Compare([]string{a.Group, a.Version}, []string{b.Group, b.Version})
	})
	r.merging.Lock()
	defer r.merging.Unlock()
	if m := &r.merged; m.generation == generation && len(m.of) > 0 && &m.of[0] == &doc[0] {
		return m.doc, nil
	}
	var all spec.Swagger
	if err := json.Unmarshal(doc, &all); err != nil {
		return nil, err
	}
	for _, gv := range gvs {
		var other spec.Swagger
		if err := json.Unmarshal(backends[gv].found.openapiV2, &other); err != nil {
			return nil, fmt.Errorf("reading the OpenAPI document of %s: %w", gv, err)
		}
		part := aggregator.FilterSpecByPathsWithoutSideEffects(&other, []string{gvPath(gv) + "/"})
		if err := aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(&all, part); err != nil {
			return nil, fmt.Errorf("merging the OpenAPI document of %s: %w", gv, err)
		}
	}
	out, err := json.Marshal(&all)
	if err == nil {
		r.merged = merged{of: doc, generation: generation, doc: out}
	}
	return out, err
}
