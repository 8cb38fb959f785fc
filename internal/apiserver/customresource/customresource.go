package customresource

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/conversion"
	client "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/api/customresource"
	"keelson.dev/keelson/internal/reconcile"
)

// Options of the controller.
type Options struct {
	Client    client.CustomResourceDefinitionsGetter
	Metadata  metadata.Interface
	Informers informers.SharedInformerFactory
	Catalogue *catalogue.Catalogue
	// Converters reach conversion webhooks.
	Converters *conversion.CRConverterFactory
	Clock      clock.WithTicker
}

type controller struct {
	Options
	queue    reconcile.Queue
	informer cache.SharedIndexInformer

	// named are the names that definitions had at their last sync; the one worker's.
	named map[string]named

	mu sync.Mutex
	// served are the definitions whose rows are in the catalogue.
	served map[string]served
}

// named are a definition's accepted names.
type named struct {
	uid   types.UID
	names v1.CustomResourceDefinitionNames
}

// served holds the rows that a definition has put into the catalogue, and their
// source.
type served struct {
	generation int64
	uid        string
	names      v1.CustomResourceDefinitionNames
	deleting   bool
	rows       []schema.GroupVersionResource
}

// New makes the controller.
func New(o Options) (reconcile.Run, error) {
	c := &controller{
		Options:  o,
		queue:    reconcile.NewQueue("crd", o.Clock),
		informer: o.Informers.InformerFor(&v1.CustomResourceDefinition{}, nil),
		named:    map[string]named{},
		served:   map[string]served{},
	}
	if err := c.informer.AddIndexers(cache.Indexers{byGroup: func(o any) ([]string, error) {
		return []string{o.(*v1.CustomResourceDefinition).Spec.Group}, nil
	}}); err != nil {
		return nil, err
	}
	reconcile.Handle(c.informer, reconcile.Enqueue[*v1.CustomResourceDefinition](c.queue), nil, func(d *v1.CustomResourceDefinition) {
		c.queue.Add(d.Name)
		c.others(d) // its names are free
	})
	// One worker: names are given in turn.
	return reconcile.Loop[*v1.CustomResourceDefinition]{
		Queue: c.queue, For: c.informer, Reconcile: c.reconcile,
		Gone: func(_ context.Context, name string) error {
			delete(c.named, name)
			c.withdraw(name)
			return nil
		},
	}.Run, nil
}

// byGroup is the index of definitions by their API group.
const byGroup = "group"

// of returns the definitions of an API group.
func (c *controller) of(group string) []*v1.CustomResourceDefinition {
	objs, err := c.informer.GetIndexer().ByIndex(byGroup, group)
	if err != nil {
		panic(err) // there is no such index
	}
	out := make([]*v1.CustomResourceDefinition, len(objs))
	for i, o := range objs {
		out[i] = o.(*v1.CustomResourceDefinition)
	}
	return out
}

// others queues the other definitions of d's group that lack a name.
func (c *controller) others(d *v1.CustomResourceDefinition) {
	for _, o := range c.of(d.Spec.Group) {
		if o.Name != d.Name && !apihelpers.IsCRDConditionTrue(o, v1.NamesAccepted) {
			c.queue.Add(o.Name)
		}
	}
}

// given returns the names that the other definitions of d's group have: by their
// status, or by what this controller has written last and does not see yet.
func (c *controller) given(d *v1.CustomResourceDefinition) map[string]v1.CustomResourceDefinitionNames {
	names := map[string]v1.CustomResourceDefinitionNames{}
	for _, o := range c.of(d.Spec.Group) {
		if o.Name == d.Name {
			continue
		}
		names[o.Name] = o.Status.AcceptedNames
		if last, ok := c.named[o.Name]; ok && last.uid == o.UID {
			names[o.Name] = last.names
		}
	}
	return names
}

func (c *controller) reconcile(ctx context.Context, d *v1.CustomResourceDefinition) (reconcile.Result, error) {
	// The rows keep it, for as long as they are: it shares all but the status.
	shared := *d
	next := &shared
	d.Status.DeepCopyInto(&next.Status)
	if !reflect.DeepEqual(d.Spec.Names, d.Status.AcceptedNames) || apihelpers.FindCRDCondition(d, v1.NamesAccepted) == nil {
		c.name(next)
	}
	established := apihelpers.IsCRDConditionTrue(next, v1.Established)
	if apihelpers.IsCRDConditionTrue(next, v1.NamesAccepted) && !established {
		c.set(next, v1.Established, v1.ConditionTrue, "InitialNamesAccepted", "the initial names have been accepted")
		established = true
	}
	approve(next, c.Clock)
	if established {
		// Before the status is written: a client that waits for Established
		// finds it served.
		if err := c.serve(next); err != nil {
			return reconcile.Result{}, err
		}
	}
	if !reflect.DeepEqual(d.Status, next.Status) {
		_, err := c.Client.CustomResourceDefinitions().UpdateStatus(ctx, next, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return reconcile.Result{}, nil // it has changed, and comes again
		}
		if err == nil {
			c.named[d.Name] = named{next.UID, next.Status.AcceptedNames}
			c.others(next)
		}
		return reconcile.Result{}, err
	}
	c.named[d.Name] = named{next.UID, next.Status.AcceptedNames}
	if d.DeletionTimestamp != nil && apihelpers.CRDHasFinalizer(d, v1.CustomResourceCleanupFinalizer) {
		return c.finalize(ctx, d)
	}
	return reconcile.Result{}, nil
}

func (c *controller) set(d *v1.CustomResourceDefinition, t v1.CustomResourceDefinitionConditionType, status v1.ConditionStatus, reason, message string) {
	apihelpers.SetCRDCondition(d, v1.CustomResourceDefinitionCondition{Type: t, Status: status, Reason: reason, Message: message,
		LastTransitionTime: metav1.Time{Time: c.Clock.Now()}})
}

// name settles the definition's names.
func (c *controller) name(d *v1.CustomResourceDefinition) {
	names, reason, message := accept(d, takenBy(c.given(d)))
	d.Status.AcceptedNames = names
	if reason != "" {
		c.set(d, v1.NamesAccepted, v1.ConditionFalse, reason, message)
		if !apihelpers.IsCRDConditionTrue(d, v1.Established) {
			c.set(d, v1.Established, v1.ConditionFalse, "NotAccepted", "not all names are accepted")
		}
		return
	}
	c.set(d, v1.NamesAccepted, v1.ConditionTrue, "NoConflicts", "no conflicts found")
}

// approve sets the condition KubernetesAPIApprovalPolicyConformant, for definitions
// in Kubernetes' own groups.
func approve(d *v1.CustomResourceDefinition, clk clock.Clock) {
	if !apihelpers.IsProtectedCommunityGroup(d.Spec.Group) {
		apihelpers.RemoveCRDCondition(d, v1.KubernetesAPIApprovalPolicyConformant)
		return
	}
	state, reason := apihelpers.GetAPIApprovalState(d.Annotations)
	cond := v1.CustomResourceDefinitionCondition{Type: v1.KubernetesAPIApprovalPolicyConformant, Message: reason, LastTransitionTime: metav1.Time{Time: clk.Now()}}
	switch state {
	case apihelpers.APIApproved:
		cond.Status, cond.Reason = v1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalBypassed:
		cond.Status, cond.Reason = v1.ConditionFalse, "UnapprovedAnnotation"
	case apihelpers.APIApprovalInvalid:
		cond.Status, cond.Reason = v1.ConditionUnknown, "InvalidAnnotation"
	default:
		cond.Status, cond.Reason = v1.ConditionFalse, "MissingAnnotation"
	}
	if old := apihelpers.FindCRDCondition(d, cond.Type); !apihelpers.IsCRDConditionEquivalent(old, &cond) {
		apihelpers.SetCRDCondition(d, cond)
	}
}

// serve puts the definition's rows into the catalogue, unless they are there.
func (c *controller) serve(d *v1.CustomResourceDefinition) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := served{generation: d.Generation, uid: string(d.UID), names: d.Status.AcceptedNames, deleting: d.DeletionTimestamp != nil}
	old, was := c.served[d.Name]
	now.rows = old.rows
	if was && reflect.DeepEqual(old, now) {
		return nil
	}
	convert, err := c.converter(d)
	if err != nil {
		return err
	}
	rows := customresource.Rows(d, convert)
	now.rows = nil
	for _, r := range rows {
		now.rows = append(now.rows, r.GroupVersionResource)
	}
	c.served[d.Name] = now
	gone := slices.DeleteFunc(slices.Clone(old.rows), func(r schema.GroupVersionResource) bool { return slices.Contains(now.rows, r) })
	if len(gone) > 0 {
		c.Catalogue.Remove(gone...)
	}
	c.Catalogue.Add(rows...)
	return nil
}

// converter returns what converts the definition's objects between its versions.
func (c *controller) converter(d *v1.CustomResourceDefinition) (customresource.Convert, error) {
	if d.Spec.Conversion == nil || d.Spec.Conversion.Strategy != v1.WebhookConverter {
		return customresource.SameInAll, nil
	}
	safe, _, err := c.Converters.NewConverter(d)
	if err != nil {
		return nil, err
	}
	return func(obj *unstructured.Unstructured, to schema.GroupVersion) (runtime.Object, error) {
		return safe.ConvertToVersion(obj, to)
	}, nil
}

func (c *controller) withdraw(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.served[name]; ok {
		delete(c.served, name)
		c.Catalogue.Remove(old.rows...)
	}
}

// recheck is how long objects with finalizers are waited for until the next look.
const recheck = time.Second

// finalize deletes the definition's objects, and lets it go when none is left.
func (c *controller) finalize(ctx context.Context, d *v1.CustomResourceDefinition) (reconcile.Result, error) {
	c.mu.Lock()
	rows := c.served[d.Name].rows
	c.mu.Unlock()
	if len(rows) > 0 {
		left, err := c.deleteAll(ctx, rows[0], d.Spec.Scope == v1.NamespaceScoped)
		if err != nil {
			return reconcile.Result{}, err
		}
		if left > 0 {
			again := reconcile.Result{RequeueAfter: recheck}
			next := d.DeepCopy()
			c.set(next, v1.Terminating, v1.ConditionTrue, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
			if reflect.DeepEqual(d.Status, next.Status) {
				return again, nil
			}
			_, err := c.Client.CustomResourceDefinitions().UpdateStatus(ctx, next, metav1.UpdateOptions{})
			return again, ignore(err)
		}
	}
	next := d.DeepCopy()
	c.set(next, v1.Terminating, v1.ConditionFalse, "InstanceDeletionCompleted", "removed all instances")
	apihelpers.CRDRemoveFinalizer(next, v1.CustomResourceCleanupFinalizer)
	_, err := c.Client.CustomResourceDefinitions().Update(ctx, next, metav1.UpdateOptions{})
	return reconcile.Result{}, ignore(err)
}

func ignore(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// deleteAll deletes the objects of a resource, and returns the number of those
// that are not gone yet.
func (c *controller) deleteAll(ctx context.Context, gvr schema.GroupVersionResource, namespaced bool) (int, error) {
	list, err := c.Metadata.Resource(gvr).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	namespaces := map[string]bool{}
	for i := range list.Items {
		namespaces[list.Items[i].Namespace] = true
	}
	for ns := range namespaces {
		r := c.Metadata.Resource(gvr)
		if namespaced {
			err = r.Namespace(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		} else {
			err = r.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		}
		if err != nil {
			return 0, fmt.Errorf("deleting the objects of %s: %w", gvr.GroupResource(), err)
		}
	}
	if len(list.Items) > 0 {
		if list, err = c.Metadata.Resource(gvr).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
			return 0, err
		}
	}
	return len(list.Items), nil
}
