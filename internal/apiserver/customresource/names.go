package customresource

import (
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// taken are the names that the definitions of a group have been given.
type taken struct{ resources, kinds map[string]bool }

// takenBy collects the names that definitions have.
func takenBy(given map[string]v1.CustomResourceDefinitionNames) taken {
	t := taken{map[string]bool{}, map[string]bool{}}
	for _, n := range given {
		for _, r := range append([]string{n.Plural, n.Singular}, n.ShortNames...) {
			t.resources[r] = true
		}
		t.kinds[n.Kind], t.kinds[n.ListKind] = true, true
	}
	delete(t.resources, "")
	delete(t.kinds, "")
	return t
}

// accept returns the names that c may have of those in its spec, and the reason
// and the message of its condition for those that it may not have.
func accept(c *v1.CustomResourceDefinition, t taken) (names v1.CustomResourceDefinitionNames, reason, message string) {
	want, names := c.Spec.Names, c.Status.AcceptedNames
	refuse := func(r string, err error) { reason, message = r, err.Error() }
	free := func(name, has string, in map[string]bool) error {
		if name != has && in[name] {
			return fmt.Errorf("%q is already in use", name)
		}
		return nil
	}
	for _, f := range []struct {
		want   string
		has    *string
		in     map[string]bool
		reason string
	}{
		{want.Plural, &names.Plural, t.resources, "PluralConflict"},
		{want.Singular, &names.Singular, t.resources, "SingularConflict"},
		{want.Kind, &names.Kind, t.kinds, "KindConflict"},
		{want.ListKind, &names.ListKind, t.kinds, "ListKindConflict"},
	} {
		if err := free(f.want, *f.has, f.in); err != nil {
			refuse(f.reason, err)
		} else {
			*f.has = f.want
		}
	}
	var errs []error
	for _, s := range want.ShortNames {
		if !slices.Contains(names.ShortNames, s) {
			errs = append(errs, free(s, "", t.resources))
		}
	}
	if err := errors.Join(errs...); err != nil {
		refuse("ShortNamesConflict", err)
	} else {
		names.ShortNames = want.ShortNames
	}
	names.Categories = want.Categories
	return names, reason, message
}
