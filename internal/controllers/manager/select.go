package manager

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
)

// Names returns the names of all controllers, in order.
func Names() []string {
	var out []string
	for i := range table {
		out = append(out, table[i].Name)
	}
	slices.Sort(out)
	return out
}

// Identities returns the service accounts that the controllers act as, in order.
func Identities() []string {
	all := sets.New[string]()
	for i := range table {
		all.Insert(table[i].Identity)
	}
	return sets.List(all)
}

// Select returns the names of the controllers that a list in the form of
// upstream's --controllers selects: "*" is all that run by default, "name" enables
// one and "-name" disables one, whichever comes first; an empty list is "*".
func Select(list []string) (sets.Set[string], error) {
	names := map[string]string{}
	for i := range table {
		names[table[i].Name] = table[i].Name
		for _, alias := range table[i].Aliases {
			names[alias] = table[i].Name
		}
	}
	all := len(list) == 0
	said := map[string]bool{}
	for _, item := range list {
		if item == "*" {
			all = true
			continue
		}
		bare, off := strings.CutPrefix(item, "-")
		name, ok := names[bare]
		if !ok {
			return nil, fmt.Errorf("%q is not in the list of known controllers", bare)
		}
		if _, again := said[name]; !again {
			said[name] = !off
		}
	}
	out := sets.New[string]()
	for i := range table {
		if on, ok := said[table[i].Name]; on || !ok && all && !table[i].Off {
			out.Insert(table[i].Name)
		}
	}
	return out, nil
}
