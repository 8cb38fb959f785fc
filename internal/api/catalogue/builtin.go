package catalogue

import (
	"slices"
	"sync"

	"k8s.io/apiserver/pkg/endpoints/deprecation"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/admissionregistration"
	"keelson.dev/keelson/internal/api/apiextensions"
	"keelson.dev/keelson/internal/api/apiregistration"
	"keelson.dev/keelson/internal/api/apps"
	"keelson.dev/keelson/internal/api/authentication"
	"keelson.dev/keelson/internal/api/authorization"
	"keelson.dev/keelson/internal/api/autoscaling"
	"keelson.dev/keelson/internal/api/batch"
	"keelson.dev/keelson/internal/api/certificates"
	"keelson.dev/keelson/internal/api/coordination"
	"keelson.dev/keelson/internal/api/core"
	"keelson.dev/keelson/internal/api/discovery"
	"keelson.dev/keelson/internal/api/events"
	"keelson.dev/keelson/internal/api/flowcontrol"
	"keelson.dev/keelson/internal/api/metrics"
	"keelson.dev/keelson/internal/api/networking"
	"keelson.dev/keelson/internal/api/node"
	"keelson.dev/keelson/internal/api/policy"
	"keelson.dev/keelson/internal/api/rbac"
	"keelson.dev/keelson/internal/api/resource"
	"keelson.dev/keelson/internal/api/scheduling"
	"keelson.dev/keelson/internal/api/storage"
	"keelson.dev/keelson/internal/api/storagemigration"
)

// groups has each API group's rows, in the order of discovery.
var groups = []func() []*api.Resource{
	core.Resources,
	apiregistration.Resources,
	apiextensions.Resources,
	apps.Resources,
	events.Resources,
	authentication.Resources,
	authorization.Resources,
	autoscaling.Resources,
	batch.Resources,
	certificates.Resources,
	networking.Resources,
	policy.Resources,
	rbac.Resources,
	storage.Resources,
	admissionregistration.Resources,
	scheduling.Resources,
	coordination.Resources,
	node.Resources,
	discovery.Resources,
	flowcontrol.Resources,
	resource.Resources,
	storagemigration.Resources,
	metrics.Resources,
}

var builtin = sync.OnceValue(func() []*api.Resource {
	var rows []*api.Resource
	for _, resources := range groups {
		rows = append(rows, resources()...)
	}
	for _, r := range rows {
		obj := r.New()
		obj.GetObjectKind().SetGroupVersionKind(r.GVK())
		if deprecation.IsDeprecated(obj, release.major, release.minor) {
			r.Deprecation = deprecation.WarningMessage(obj)
		}
	}
	return rows
})

// release is the one of Kubernetes whose API this is.
var release = struct{ major, minor int }{1, 37}

// Builtin returns the rows of all built-in groups, always in the same order. They
// are built on the first call and shared after it: do not change them.
func Builtin() []*api.Resource { return slices.Clone(builtin()) }
