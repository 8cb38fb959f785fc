package certificates

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
)

// find gives the row of a resource.
func find(t *testing.T, resource string) *api.Resource {
	t.Helper()
	for _, r := range Resources() {
		if r.Resource == resource {
			return r
		}
	}
	t.Fatalf("there is no row of %s", resource)
	return nil
}

// expect compares errors with the messages wanted, in any order.
func expect(t *testing.T, errs field.ErrorList, want ...string) {
	t.Helper()
	var got []string
	for _, e := range errs {
		got = append(got, e.Error())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("errors are\n%q, want\n%q", got, want)
	}
}
