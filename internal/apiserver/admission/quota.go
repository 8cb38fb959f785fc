package admission

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	quotaapi "k8s.io/apiserver/pkg/admission/plugin/resourcequota/apis/resourcequota"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/quota"
	"keelson.dev/keelson/internal/store"
)

// resourceQuota charges what is created to the quotas of its namespace. The
// charge is written before the object is, on condition that the quota has not
// changed: of any number of concurrent requests, to any number of servers, no
// more are admitted than fit.
type resourceQuota struct {
	store      store.Store
	row        *api.Resource
	limited    []quotaapi.LimitedResource
	evaluators map[schema.GroupResource]quotav1.Evaluator
	// turns spare the requests of one namespace the conflicts among themselves.
	turns [64]sync.Mutex
	seed  maphash.Seed
}

func newResourceQuota(e *Environment) (admission.Interface, error) {
	q := &resourceQuota{store: e.Store, seed: maphash.MakeSeed(),
		row: e.Catalogue.Lookup("", "v1", "resourcequotas"), evaluators: map[schema.GroupResource]quotav1.Evaluator{}}
	for _, ev := range quota.Evaluators(nil, clock.RealClock{}) {
		q.evaluators[ev.GroupResource()] = ev
	}
	r, err := e.Configuration.ConfigFor(resourcequota.PluginName)
	if err != nil {
		return nil, err
	}
	config, err := resourcequota.LoadConfiguration(r)
	if err != nil {
		return nil, err
	}
	q.limited = config.LimitedResources
	return validates(&function{concerns: q.concerns, run: q.validate}, admission.Create, admission.Update), nil
}

// uncounted holds the resources that no quota counts: they are not kept, or not
// for long.
var uncounted = func() map[schema.GroupResource]bool {
	out := map[schema.GroupResource]bool{
		{Resource: "namespaces"}: true, {Resource: "bindings"}: true, {Resource: "componentstatuses"}: true,
		{Resource: "events"}: true, {Group: "events.k8s.io", Resource: "events"}: true,
	}
	for _, gr := range excluded {
		out[gr] = true
	}
	return out
}()

// ofQuotas reports whether a request concerns quotas: if it is about an object
// itself, or about a subresource that changes its usage.
func ofQuotas(a admission.Attributes) bool {
	switch a.GetSubresource() {
	case "":
		return true
	case "resize":
		return a.GetResource().GroupResource() == podResource
	case "status":
		return a.GetResource().Resource == "persistentvolumeclaims" && a.GetResource().Group == ""
	}
	return false
}

// concerns reports whether the request may change what is used of a quota.
func (q *resourceQuota) concerns(a admission.Attributes) bool {
	if a.GetNamespace() == "" || !ofQuotas(a) || uncounted[a.GetResource().GroupResource()] {
		return false
	}
	if ev := q.evaluators[a.GetResource().GroupResource()]; ev != nil {
		return ev.Handles(a)
	}
	return a.GetOperation() == admission.Create
}

func (q *resourceQuota) validate(ctx context.Context, a admission.Attributes) error {
	ev := q.evaluators[a.GetResource().GroupResource()]
	entries, err := q.quotas(ctx, a.GetNamespace())
	if err != nil {
		return err
	}
	if len(entries) == 0 && len(q.limited) == 0 {
		return nil
	}
	if ev == nil {
		ev = quota.Count(a.GetResource().GroupResource(), nil)
	}
	if a.IsDryRun() {
		_, err := resourcequota.CheckRequest(objectsOf(entries), a, ev, q.limited)
		return err
	}
	turn := &q.turns[maphash.String(q.seed, a.GetNamespace())%uint64(len(q.turns))]
	turn.Lock()
	defer turn.Unlock()
	return q.charge(ctx, a, ev)
}

func (q *resourceQuota) quotas(ctx context.Context, namespace string) ([]*store.Entry, error) {
	res, err := q.store.List(ctx, q.row.Prefix(namespace), store.ListOptions{})
	if err != nil {
		return nil, err
	}
	return res.Entries, nil
}

func objectsOf(entries []*store.Entry) []v1.ResourceQuota {
	out := make([]v1.ResourceQuota, len(entries))
	for i, e := range entries {
		out[i] = *e.Object().(*v1.ResourceQuota)
	}
	return out
}

// charge writes the request's use to each quota that it matches. Where another
// writer came between, those quotas that have not been charged yet are looked
// at again.
func (q *resourceQuota) charge(ctx context.Context, a admission.Attributes, ev quotav1.Evaluator) error {
	charged := map[string]bool{}
	for ctx.Err() == nil {
		entries, err := q.quotas(ctx, a.GetNamespace())
		if err != nil {
			return err
		}
		entries = slices.DeleteFunc(slices.Clone(entries), func(e *store.Entry) bool { return charged[e.Key] })
		before := objectsOf(entries)
		after, err := resourcequota.CheckRequest(before, a, ev, q.limited)
		if err != nil {
			return err
		}
		again := false
		for i := range after {
			if quotav1.Equals(before[i].Status.Used, after[i].Status.Used) {
				continue
			}
			next := before[i].DeepCopy()
			next.Status.Used = after[i].Status.Used
			switch _, err := q.store.Update(ctx, entries[i].Key, entries[i].ModRevision, next, 0); {
			case err == nil:
				charged[entries[i].Key] = true
			case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
				again = true
			default:
				return fmt.Errorf("charging quota %s: %w", next.Name, err)
			}
		}
		if !again {
			return nil
		}
	}
	return ctx.Err()
}
