package apiserver

import (
	"context"
	"encoding/base64"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metainternalvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
)

// reader answers the reads of a resource: get, list and watch.
type reader struct{ *call }

// get answers with one object.
func (r reader) get() error {
	e, err := r.entry()
	if err != nil {
		return err
	}
	if rv := r.req.URL.RawQuery; strings.Contains(rv, "resourceVersion=") {
		want := r.req.URL.Query().Get("resourceVersion")
		n, err := strconv.ParseInt(want, 10, 64)
		if want != "" && err != nil {
			return badRequest("resourceVersion: Invalid value: %q: %v", want, err)
		}
		if err := r.reach(n); err != nil {
			return err
		}
		if e, err = r.entry(); err != nil {
			return err
		}
	}
	return r.writeEntry(http.StatusOK, e)
}

// reach waits up to 3 seconds, as upstream does, until the store has the
// revision.
func (r reader) reach(rev int64) error {
	if rev <= r.s.Store.Revision() {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.ctx(), 3*time.Second)
	defer cancel()
	err := r.s.Store.Reach(ctx, rev)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrClosed):
		return r.storeError(err, "")
	}
	return tooLarge(rev, r.s.Store.Revision())
}

func tooLarge(rev, current int64) error {
	err := apierrors.NewTimeoutError("Too large resource version: "+formatRevision(rev)+", current: "+formatRevision(current), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}

// selection holds the selectors of a list or watch.
type selection struct {
	prefix       string
	label        labels.Selector
	field        fields.Selector
	row          *api.Resource
	index, value string // the store's index to use
	trivial      bool   // matches everything below the prefix
}

// listOptions reads and checks the options of a list or watch.
func (r *incoming) listOptions() (*metainternal.ListOptions, *selection, error) {
	opts := &metainternal.ListOptions{}
	if r.req.URL.RawQuery != "" {
		if err := metainternalscheme.ParameterCodec.DecodeParameters(r.req.URL.Query(), metav1.SchemeGroupVersion, opts); err != nil {
			return nil, nil, apierrors.NewBadRequest(err.Error())
		}
	}
	opts.Watch = opts.Watch || r.info.Verb == "watch"
	metainternal.SetListOptionsDefaults(opts, true)
	if errs := metainternalvalidation.ValidateListOptions(opts, true); len(errs) > 0 {
		return nil, nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	sel := &selection{row: r.row, label: opts.LabelSelector, field: opts.FieldSelector, prefix: r.row.Prefix(r.info.Namespace)}
	if sel.label == nil {
		sel.label = labels.Everything()
	}
	if sel.field == nil {
		sel.field = fields.Everything()
	}
	if r.info.Name != "" { // of the deprecated /watch/ paths
		named := fields.OneTermEqualSelector("metadata.name", r.info.Name)
		if name, ok := sel.field.RequiresExactMatch("metadata.name"); ok && name != r.info.Name {
			return nil, nil, badRequest("field selector metadata.name=%s does not match the requested name %q", name, r.info.Name)
		}
		sel.field = fields.AndSelectors(sel.field, named)
	}
	for _, req := range sel.field.Requirements() {
		if !selectable(r.row, req.Field) {
			return nil, nil, badRequest("Unable to find %q that match label selector %q, field selector %q: %s",
				r.row.GroupVersionResource.String(), sel.label.String(), sel.field.String(), notSelectable(r.row, req.Field))
		}
	}
	if ns, ok := sel.field.RequiresExactMatch("metadata.namespace"); ok && r.row.Namespaced && r.info.Namespace == "" && ns != "" {
		sel.prefix = r.row.Prefix(ns)
	}
	if name, ok := sel.field.RequiresExactMatch("metadata.name"); ok && name != "" && (!r.row.Namespaced || sel.prefix != r.row.Prefix("")) {
		sel.prefix += name
	} else if value, ok := sel.field.RequiresExactMatch(r.row.IndexedField); ok && value != "" {
		sel.index, sel.value = r.row.IndexedField, value
	}
	sel.trivial = sel.label.Empty() && sel.field.Empty()
	return opts, sel, nil
}

// plainFields reports whether the row is of a built-in kind whose only selectable fields
// are name and namespace.
func plainFields(row *api.Resource) bool {
	return len(row.FieldLabels) == 0 && catalogue.IsBuiltin(row.Group)
}

// notSelectable returns upstream's message for a field that cannot be selected.
func notSelectable(row *api.Resource, label string) string {
	switch {
	case plainFields(row):
		return fmt.Sprintf("%q is not a known field selector: only %q, %q", label, "metadata.name", "metadata.namespace")
	case row.BadFieldLabel != "":
		return fmt.Sprintf(row.BadFieldLabel, label)
	}
	return "field label not supported: " + label
}

func selectable(row *api.Resource, label string) bool {
	if label == "metadata.name" || label == "metadata.namespace" && (row.Namespaced || plainFields(row)) {
		return true
	}
	for _, l := range row.FieldLabels {
		if l == label {
			return true
		}
	}
	return false
}

// matches reports whether e is selected.
func (s *selection) matches(e *store.Entry) bool {
	if e == nil {
		return false
	}
	if s.trivial {
		return true
	}
	if strings.Contains(s.prefix[len(s.row.Prefix("")):], "/") || !s.row.Namespaced {
		// A prefix that ends in a name also begins longer names.
		if !strings.HasSuffix(s.prefix, "/") && e.Key != s.prefix {
			return false
		}
	}
	if !s.label.Empty() && !s.label.Matches(labels.Set(e.Labels())) {
		return false
	}
	if s.field.Empty() {
		return true
	}
	acc, err := meta.Accessor(e.Object())
	if err != nil {
		return false
	}
	var set fields.Set
	if s.row.Fields != nil {
		obj, err := versioned(s.row, e.Object())
		if err != nil {
			return false
		}
		set = s.row.Fields(obj)
	}
	if set == nil {
		set = fields.Set{}
	}
	set["metadata.name"] = acc.GetName()
	set["metadata.namespace"] = acc.GetNamespace()
	return s.field.Matches(set)
}

// continueToken is the place where a list goes on. Start is relative to the
// resource's prefix; the revision -1 stands for the latest state.
type continueToken struct {
	APIVersion string `json:"v"`
	Revision   int64  `json:"rv"`
	Start      string `json:"start"`
	Past       bool   `json:"past,omitempty"` // the list is of the past: its revision does not go with those that watches can begin at
}

const inconsistent = -1

func (t continueToken) String() string {
	t.APIVersion = "meta.k8s.io/v1"
	b, _ := stdjson.Marshal(t)
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseContinue(s string) (t continueToken, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return t, badRequest("continue key is not valid: %v", err)
	}
	if err := stdjson.Unmarshal(b, &t); err != nil {
		return t, badRequest("continue key is not valid: %v", err)
	}
	if t.APIVersion != "meta.k8s.io/v1" || t.Revision == 0 || t.Start == "" || strings.Contains(t.Start, "..") {
		return t, badRequest("continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	}
	return t, nil
}

// list answers with the selected objects.
func (r reader) list() error {
	opts, sel, err := r.listOptions()
	if err != nil {
		return err
	}
	a, err := r.accept(canTransform)
	if err != nil {
		return err
	}
	lo := store.ListOptions{Limit: int(opts.Limit), Index: sel.index, Value: sel.value, Revision: r.at, Past: r.at != 0}
	if !sel.trivial {
		lo.Match = sel.matches
	}
	base := r.row.Prefix("")
	switch {
	case opts.Continue != "":
		if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
			return badRequest("specifying resource version is not allowed when using continue")
		}
		t, err := parseContinue(opts.Continue)
		if err != nil {
			return err
		}
		lo.After = base + t.Start
		if t.Revision > 0 {
			lo.Revision, lo.Past = t.Revision, t.Past
		}
	case r.at != 0:
	case opts.ResourceVersion != "" && opts.ResourceVersion != "0":
		rev, err := strconv.ParseInt(opts.ResourceVersion, 10, 64)
		if err != nil || rev < 0 {
			return badRequest("Invalid value: %q: resourceVersion is not a number", opts.ResourceVersion)
		}
		if err := r.reach(rev); err != nil {
			return err
		}
		if opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact || opts.ResourceVersionMatch == "" && opts.Limit > 0 {
			lo.Revision = rev
			lo.Past = opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact
		}
	}
	if lo.Past && lo.Revision != r.at { // which locate has checked
		if err := r.authorizeAt(lo.Revision); err != nil {
			return err
		}
	}
	if err := r.readError(r.s.Store.Unreadable(sel.prefix)); err != nil {
		return err
	}
	res, err := r.s.Store.List(r.ctx(), sel.prefix, lo)
	if err != nil {
		if errors.Is(err, store.ErrCompacted) && opts.Continue != "" {
			return expiredContinue(strings.TrimPrefix(lo.After, base))
		}
		return r.storeError(err, "")
	}
	m := metav1.ListMeta{ResourceVersion: formatRevision(res.Revision)}
	if res.More {
		last := res.Entries[len(res.Entries)-1].Key
		m.Continue = continueToken{Revision: res.Revision, Start: strings.TrimPrefix(last, base), Past: lo.Past}.String()
		if res.Remaining >= 0 && sel.trivial {
			m.RemainingItemCount = &res.Remaining
		}
	}
	if r.view != nil {
		res.Entries = r.view.entries(res.Entries)
	}
	return r.writeList(a, res.Entries, m)
}

// expiredContinue returns the answer to a token whose revision was compacted,
// with a new token that continues at the latest state.
func expiredContinue(start string) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. " +
		"You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. " +
		"Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first " +
		"chunk was returned and now may show up in the list.")
	err.ErrStatus.Continue = continueToken{Revision: inconsistent, Start: start}.String()
	return err
}
