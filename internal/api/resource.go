package api

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Resource is a row of the catalogue: one resource in one version.
type Resource struct {
	schema.GroupVersionResource
	Kind       string
	Singular   string
	ShortNames []string
	Categories []string
	Namespaced bool
	// IsNamespace reports whether the objects are namespaces themselves: a request
	// for one is a request in the namespace of its name.
	IsNamespace bool

	// Verbs that the resource serves; nil means all of create, delete,
	// deletecollection, get, list, patch, update and watch. A review
	// (create only, nothing stored) has Verbs "create" and Stored false.
	Verbs []string
	// NotStored marks a resource whose answers are computed (reviews,
	// bindings, component statuses): the API server has a handler for it.
	NotStored bool

	// New and NewList make empty objects of the versioned Go types.
	New     func() runtime.Object
	NewList func() runtime.Object

	// StoragePrefix is the key below /registry/ without slashes at the ends:
	// "pods", "services/specs", "minions"; upstream's layout.
	StoragePrefix string
	// Hub is set on a row whose objects are stored in the version of another
	// row (autoscaling/v1 in autoscaling/v2, events.k8s.io/v1 in v1).
	Hub *Hub

	// Models, DocumentV2 and DocumentV3 describe a custom resource: its types,
	// for server-side apply, and its part of the OpenAPI documents.
	Models     func() (map[string]*spec.Schema, error)
	DocumentV2 func() (*spec.Swagger, error)
	DocumentV3 func() (*spec3.OpenAPI, error)
	// Versions are the rows of all versions of a custom resource, its own among
	// them, and those that are not served.
	Versions []*Resource
	// DocumentKey changes whenever these documents do.
	DocumentKey string
	// ListKind is the kind of lists, where it is not the kind and "List".
	ListKind string
	// Coerce checks the form of a decoded object without a Go type, and drops
	// the fields that its schema does not have; it gives their paths.
	Coerce func(obj runtime.Object) (unknown []string, err error)
	// Deprecation, if set, is the warning that every request gets.
	Deprecation string
	// Terminating, if set, says why nothing may be created any more.
	Terminating string

	Strategy
	// Table columns as upstream prints them.
	Columns []metav1.TableColumnDefinition
	// Cells returns one object's table cells, in the order of Columns. now serves
	// the ages.
	Cells func(obj runtime.Object, now time.Time) []any
	// RowConditions, if set, returns the conditions of an object's row in the table.
	RowConditions func(obj runtime.Object) []metav1.TableRowCondition

	// Status is the strategy of the status subresource, nil if there is none.
	Status *UpdateStrategy
	// Scale is the scale subresource, nil if there is none.
	Scale *Scale
	// Updates are further subresources that update the main object through
	// a GET/PUT/PATCH of its whole form, by name: "ephemeralcontainers",
	// "resize", "approval", "finalize".
	Updates map[string]*UpdateStrategy
	// Subresources lists the other subresources (name → kind and verbs),
	// for which the API server has a handler of its own: "log", "exec",
	// "binding", "eviction", "token", "proxy".
	Subresources []Subresource
}

// Subresource announces a subresource in discovery.
type Subresource struct {
	Name  string
	Kind  schema.GroupVersionKind
	Verbs []string
	// Methods of HTTP, of one that is a connection: its kind are the options.
	Methods []string
	// Paths lets a connection have a path of its own below the subresource's.
	Paths bool
	// Options, if set, are the parameters of one that answers with text.
	Options runtime.Object
}

// Strategy holds what is particular to a resource in create, update and
// delete. Every function may be nil, which means nothing to do.
type Strategy struct {
	// Default fills in absent fields, right after decoding; idempotent, with
	// no view of the old object. Upstream's SetDefaults/SetObjectDefaults.
	Default func(obj runtime.Object)
	// PrepareForCreate clears what a client may not set (status) and sets
	// generation 1 where the kind has generations.
	PrepareForCreate func(obj runtime.Object)
	// PrepareForRequest fills in what a new object has of the request that makes
	// it, after PrepareForCreate.
	PrepareForRequest func(req Request, obj runtime.Object)
	// Validate checks a new object beyond its ObjectMeta names (which the
	// API server checks with ValidateName).
	Validate func(obj runtime.Object) field.ErrorList
	// ValidateName returns messages for a bad metadata.name, or nil; default is DNS
	// subdomain. With prefix true the name is a generateName prefix.
	ValidateName func(name string, prefix bool) []string
	// Warnings for create and update (old nil for create).
	Warnings func(obj, old runtime.Object) []string
	UpdateStrategy
	// AllowCreateOnUpdate lets a PUT create (Lease, Event, Endpoints, …).
	AllowCreateOnUpdate bool
	// RequireResourceVersion refuses an update without resourceVersion
	// (upstream's AllowUnconditionalUpdate false).
	RequireResourceVersion bool
	// GracePeriod, if set, makes the deletion graceful: it gives the seconds
	// to wait for obj, given the client's wish (nil if none). 0 deletes now.
	GracePeriod func(obj runtime.Object, wanted *int64) int64
	// BeforeDelete changes an object whose deletion has been asked for, the
	// first time: it may add finalizers.
	BeforeDelete func(obj runtime.Object)
	// Finalizing reports whether something beside metadata.finalizers holds an
	// object that is being deleted.
	Finalizing func(obj runtime.Object) bool
	// AnyFinalizer lets metadata.finalizers have names without a domain.
	AnyFinalizer bool
	// OrphanByDefault reports whether a deletion without a propagationPolicy
	// orphans dependents.
	OrphanByDefault bool
	// DeleteWarning warns of a deletion that leaves the propagation to the
	// default.
	DeleteWarning string
	// DeleteReturnsObject answers a deletion with the object, not a Status
	// (pods, services, serviceaccounts, …: upstream's ReturnDeletedObject).
	DeleteReturnsObject bool
	// TTL returns the life of a new version (Events: one hour); 0 is for ever.
	TTL func(obj runtime.Object) time.Duration
	// Fields returns the selectable fields besides metadata.name and
	// metadata.namespace.
	Fields func(obj runtime.Object) fields.Set
	// FieldLabels are the names that Fields may give, so that a selector
	// on another one is refused.
	FieldLabels []string
	// IndexedField is the one of FieldLabels that the store has an index of.
	IndexedField string
	// BadFieldLabel, if set, is the format of the message about a label that
	// does not select, in place of that of most kinds.
	BadFieldLabel string
}

// UpdateStrategy holds the rules for updates of an object or of one of its
// subresources.
type UpdateStrategy struct {
	// PrepareForUpdate restores in obj what this update may not change (the
	// status from old for the main resource; everything but the status for
	// the status subresource) and advances the generation when the spec
	// changed.
	PrepareForUpdate func(obj, old runtime.Object)
	// ValidateUpdate checks the change, ObjectMeta's own rules excepted.
	ValidateUpdate func(obj, old runtime.Object) field.ErrorList
	// ValidateRequest checks what depends on the request: its user, or other
	// objects. old is nil for a creation.
	ValidateRequest func(req Request, obj, old runtime.Object) field.ErrorList
}

// Hub converts between a row's version and the one in which it is stored.
type Hub struct {
	Resource schema.GroupVersionResource
	ToHub    func(obj runtime.Object) (runtime.Object, error)
	FromHub  func(hub runtime.Object) (runtime.Object, error)
}

// Scale reads and writes the scale of an object; the wire form is
// autoscaling/v1 Scale.
type Scale struct {
	// Path is the field of an object that has spec.replicas.
	Path []string
	// Get returns spec.replicas, nil where the object has none, status.replicas and
	// the selector's string form.
	Get func(obj runtime.Object) (spec *int32, status int32, selector string, err error)
	// Set changes spec.replicas of obj, in place.
	Set func(obj runtime.Object, replicas int32) error
}

// ListGVK returns the kind of the row's lists.
func (r *Resource) ListGVK() schema.GroupVersionKind {
	if r.ListKind != "" {
		return r.GroupVersion().WithKind(r.ListKind)
	}
	return r.GroupVersion().WithKind(r.Kind + "List")
}

// GVK returns the row's kind.
func (r *Resource) GVK() schema.GroupVersionKind { return r.GroupVersion().WithKind(r.Kind) }

// Key returns the store key of an object; ns is ignored for a cluster-scoped row.
func (r *Resource) Key(ns, name string) string { return r.Prefix(ns) + name }

// Prefix returns the store prefix of all objects, or of those in ns; with the
// closing slash.
func (r *Resource) Prefix(ns string) string {
	p := "/registry/" + r.StoragePrefix + "/"
	if r.Namespaced && ns != "" {
		p += ns + "/"
	}
	return p
}

// HasVerb reports whether the row serves verb.
func (r *Resource) HasVerb(verb string) bool {
	for _, v := range r.ServedVerbs() {
		if v == verb {
			return true
		}
	}
	return false
}

var allVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// ServedVerbs returns the verbs in discovery's order.
func (r *Resource) ServedVerbs() []string {
	if r.Verbs == nil {
		return allVerbs
	}
	return r.Verbs
}
