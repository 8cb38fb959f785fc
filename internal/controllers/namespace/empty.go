package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// finalizerEstimate is how long an object with finalizers is thought to need.
const finalizerEstimate = 15 * time.Second

type resource struct {
	schema.GroupVersionResource
	verbs []string
}

func (r resource) can(verb string) bool { return slices.Contains(r.verbs, verb) }

// empty deletes what is in ns: the pods first, so that they do not lose what
// they use while they run, then all else. It returns an estimate of how long
// what is left will need, zero where nothing is.
func (n *controller) empty(ctx context.Context, ns *v1.Namespace) (time.Duration, *findings, error) {
	f := newFindings()
	var errs []error
	resources, err := n.resources(f)
	if err != nil {
		// What was discovered is emptied all the same.
		errs = append(errs, err)
	}
	var estimate time.Duration
	var content []error
	remove := func(r resource) {
		left, err := n.emptyOf(ctx, ns.Name, r, f)
		if err != nil {
			content = append(content, err)
		}
		estimate = max(estimate, left)
	}
	for _, r := range resources {
		if r.Group == "" && r.Resource == "pods" {
			remove(r)
		}
	}
	if estimate == 0 && len(content) == 0 {
		for _, r := range resources {
			if r.Group != "" || r.Resource != "pods" {
				remove(r)
			}
		}
	}
	if len(content) > 0 {
		f.fail(v1.NamespaceDeletionContentFailure, "ContentDeletionFailed",
			fmt.Sprintf("Failed to delete all resource types, %d remaining: %v", len(content), errors.Join(content...)))
		errs = append(errs, content...)
	}
	return estimate, f, errors.Join(errs...)
}

// resources returns the namespaced resources whose objects can be deleted.
func (n *controller) resources(f *findings) ([]resource, error) {
	lists, err := discovery.ServerPreferredNamespacedResources(n.discovery)
	if err != nil {
		f.fail(v1.NamespaceDeletionDiscoveryFailure, "DiscoveryFailed", discoveryMessage(err))
	}
	var out []resource
	for _, l := range lists {
		gv, parseErr := schema.ParseGroupVersion(l.GroupVersion)
		if parseErr != nil {
			f.fail(v1.NamespaceDeletionGVParsingFailure, "GroupVersionParsingFailed", parseErr.Error())
			err = errors.Join(err, parseErr)
			continue
		}
		for _, r := range l.APIResources {
			if r.Namespaced && slices.Contains(r.Verbs, "delete") {
				out = append(out, resource{gv.WithResource(r.Name), r.Verbs})
			}
		}
	}
	return out, err
}

func discoveryMessage(err error) string {
	if groups, ok := discovery.GroupDiscoveryFailedErrorGroups(err); ok {
		return fmt.Sprintf("Discovery failed for some groups, %d failing: %v", len(groups), err)
	}
	return err.Error()
}

// emptyOf deletes a resource's objects and counts those that stay a while.
func (n *controller) emptyOf(ctx context.Context, ns string, r resource, f *findings) (time.Duration, error) {
	client := n.metadata.Resource(r.GroupVersionResource).Namespace(ns)
	background := metav1.DeletePropagationBackground
	opts := metav1.DeleteOptions{PropagationPolicy: &background}
	if !r.can("list") {
		if r.can("deletecollection") {
			return 0, unsupported(client.DeleteCollection(ctx, opts, metav1.ListOptions{}))
		}
		return 0, nil
	}
	list, err := client.List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) == 0 {
		return 0, unsupported(err)
	}
	collected := false
	if r.can("deletecollection") {
		switch err := client.DeleteCollection(ctx, opts, metav1.ListOptions{}); {
		case err == nil:
			collected = true
		case unsupported(err) != nil:
			return 0, err
		}
	}
	if !collected {
		for _, o := range list.Items {
			if err := client.Delete(ctx, o.Name, opts); err != nil && unsupported(err) != nil {
				return 0, err
			}
		}
	}
	if list, err = client.List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) == 0 {
		return 0, unsupported(err)
	}
	estimate := time.Duration(0)
	f.remaining[r.GroupVersionResource] = len(list.Items)
	bare := 0
	for _, o := range list.Items {
		for _, fin := range o.Finalizers {
			f.finalizers[fin]++
			estimate = max(estimate, finalizerEstimate)
		}
		if g := o.DeletionGracePeriodSeconds; o.DeletionTimestamp != nil && g != nil {
			estimate = max(estimate, time.Duration(*g)*time.Second)
		}
		if len(o.Finalizers) == 0 && o.DeletionTimestamp == nil {
			bare++
		}
	}
	if estimate == 0 && bare > 0 {
		return 0, fmt.Errorf("unexpected items still remain in namespace: %s for gvr: %v", ns, r.GroupVersionResource)
	}
	return max(estimate, time.Second), nil
}

// unsupported drops the error of a resource that is gone or cannot do what was
// asked: there is nothing of it to delete.
func unsupported(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		return nil
	}
	return err
}
