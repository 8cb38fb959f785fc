package catalogue

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"

	"keelson.dev/keelson/internal/api"
)

// RuntimeConfig enables and disables built-in versions and resources: upstream's
// --runtime-config. Keys are api/all, api/ga, api/beta, api/alpha, a version of a
// group (apps/v1; v1 or api/v1 is the core's) and a resource of one
// (apps/v1/deployments); values are true, false, or nothing for true.
type RuntimeConfig map[string]string

var stages = map[string]*regexp.Regexp{
	"api/all": regexp.MustCompile(`^`), "api/ga": regexp.MustCompile(`^v\d+$`),
	"api/beta": regexp.MustCompile(`^v\d+beta\d+$`), "api/alpha": regexp.MustCompile(`^v\d+alpha\d+$`),
}

// Hidden returns which of rows are not served.
func (c RuntimeConfig) Hidden(rows []*api.Resource) (hidden sets.Set[schema.GroupVersionResource], err error) {
	hidden = sets.New[schema.GroupVersionResource]()
	set := func(on bool, match func(*api.Resource) bool) (found bool) {
		for _, r := range rows {
			if !match(r) {
				continue
			}
			if found = true; on {
				hidden.Delete(r.GroupVersionResource)
			} else {
				hidden.Insert(r.GroupVersionResource)
			}
		}
		return found
	}
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	// What is said of more comes before what is said of less: stages, versions, resources.
	sort.Slice(keys, func(i, j int) bool { return order(keys[i]) < order(keys[j]) })
	var errs []error
	for _, key := range keys {
		on, perr := true, error(nil)
		if v := c[key]; v != "" {
			on, perr = strconv.ParseBool(v)
		}
		if perr != nil {
			errs = append(errs, fmt.Errorf("--runtime-config: invalid value of: %s: %s, err: %w", key, c[key], perr))
			continue
		}
		if stage := stages[key]; stage != nil {
			set(on, func(r *api.Resource) bool { return stage.MatchString(r.Version) })
			continue
		}
		if key == "api/legacy" {
			continue // of upstream's past, which it ignores too
		}
		gvr, ok := parseEnabled(key)
		if !ok {
			errs = append(errs, fmt.Errorf("--runtime-config: runtime-config invalid key %s: give api/all, api/ga, api/beta, api/alpha, or a version as in apps/v1", key))
			continue
		}
		found := set(on, func(r *api.Resource) bool {
			return r.GroupVersion() == gvr.GroupVersion() && (gvr.Resource == "" || r.Resource == gvr.Resource)
		})
		switch {
		case found || !on: // what there is not is off
		case !IsBuiltin(gvr.Group):
			errs = append(errs, fmt.Errorf("--runtime-config: unknown api groups %s", gvr.Group))
		default:
			errs = append(errs, fmt.Errorf("--runtime-config: %s is not served by this version of Keelson: of group %q it serves %s", key, gvr.Group, strings.Join(versionsOf(rows, gvr.Group), ", ")))
		}
	}
	return hidden, errors.Join(errs...)
}

func order(key string) string {
	if stages[key] != nil {
		if key == "api/all" {
			return "0"
		}
		return "1" + key
	}
	return strconv.Itoa(2+strings.Count(key, "/")) + key
}

// parseEnabled reads v1, api/v1, group/version and those with a resource.
func parseEnabled(key string) (schema.GroupVersionResource, bool) {
	parts := strings.Split(strings.TrimPrefix(key, "api/"), "/")
	if len(parts) > 0 && parts[0] == "v1" {
		parts = append([]string{""}, parts...)
	}
	switch len(parts) {
	case 2:
		return schema.GroupVersionResource{Group: parts[0], Version: parts[1]}, true
	case 3:
		return schema.GroupVersionResource{Group: parts[0], Version: parts[1], Resource: parts[2]}, true
	}
	return schema.GroupVersionResource{}, false
}

func versionsOf(rows []*api.Resource, group string) (out []string) {
	for _, r := range rows {
		if r.Group == group && !slices.Contains(out, r.Version) {
			out = append(out, r.Version)
		}
	}
	return out
}
