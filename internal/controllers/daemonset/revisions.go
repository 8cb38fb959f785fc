package daemonset

import (
	"context"
	"slices"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/history"
)

const hashLabel = apps.ControllerRevisionHashLabelKey

// revisions finds or makes the revision of the set's template, and returns the others.
func (p *pass) revisions(ctx context.Context) ([]*apps.ControllerRevision, error) {
	all, err := p.history.Claim(ctx, p.ds, gvk, p.selector, p.fresh(p.ds))
	if err != nil {
		return nil, err
	}
	data, err := history.Patch(&p.ds.Spec.Template)
	if err != nil {
		return nil, err
	}
	var same, old []*apps.ControllerRevision
	for _, r := range all {
		if history.Has(r, data) {
			same = append(same, r)
		} else {
			old = append(old, r)
		}
	}
	next := history.Next(old)
	if len(same) == 0 {
		r, err := p.snapshot(ctx, data, next)
		if err != nil {
			return nil, err
		}
		p.hash = r.Labels[hashLabel]
		return old, nil
	}
	current := same[len(same)-1]
	if err := p.merge(ctx, current, same[:len(same)-1]); err != nil {
		return nil, err
	}
	if current.Revision < next {
		if current, err = p.history.Renumber(ctx, current, next); err != nil {
			return nil, err
		}
	}
	p.hash = current.Labels[hashLabel]
	return old, nil
}

// snapshot makes the revision of the set's template.
func (p *pass) snapshot(ctx context.Context, data []byte, number int64) (*apps.ControllerRevision, error) {
	hash := controllers.TemplateHash(&p.ds.Spec.Template, p.ds.Status.CollisionCount)
	r := history.New(p.ds, gvk, p.ds.Spec.Template.Labels, data, number)
	r.Name, r.Labels[hashLabel] = history.Name(p.ds, hash), hash
	made, err := p.client.AppsV1().ControllerRevisions(r.Namespace).Create(ctx, r, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return made, err
	}
	have, getErr := p.client.AppsV1().ControllerRevisions(r.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
	if getErr != nil {
		return nil, getErr
	}
	if history.Has(have, data) && controllers.ControlledBy(have, p.ds) {
		return have, nil
	}
	// Another hash is tried at the next look.
	set, getErr := p.client.AppsV1().DaemonSets(p.ds.Namespace).Get(ctx, p.ds.Name, metav1.GetOptions{})
	if getErr != nil {
		return nil, getErr
	}
	if ptr.Equal(set.Status.CollisionCount, p.ds.Status.CollisionCount) {
		set = set.DeepCopy()
		set.Status.CollisionCount = ptr.To(ptr.Deref(set.Status.CollisionCount, 0) + 1)
		if _, err := p.client.AppsV1().DaemonSets(set.Namespace).UpdateStatus(ctx, set, metav1.UpdateOptions{}); err != nil {
			return nil, err
		}
	}
	return nil, err
}

// merge has the pods of twins, of which the data is that of current, be of current,
// and deletes the twins.
func (p *pass) merge(ctx context.Context, current *apps.ControllerRevision, twins []*apps.ControllerRevision) error {
	for _, r := range twins {
		for _, pod := range p.all() {
			if pod.Labels[hashLabel] != r.Labels[hashLabel] || pod.Labels[hashLabel] == current.Labels[hashLabel] {
				continue
			}
			next := pod.DeepCopy()
			next.Labels[hashLabel] = current.Labels[hashLabel]
			if _, err := p.client.CoreV1().Pods(pod.Namespace).Update(ctx, next, metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
		err := p.client.AppsV1().ControllerRevisions(r.Namespace).Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// all returns the set's pods.
func (p *pass) all() []*v1.Pod {
	out := slices.Clone(p.elsewhere)
	for i := range p.places {
		out = append(out, p.places[i].pods...)
	}
	return out
}

// truncate deletes old revisions that no pod is of, beyond the set's limit of all
// that are old.
func (p *pass) truncate(ctx context.Context, old []*apps.ControllerRevision) error {
	hashes := map[string]bool{}
	for _, pod := range p.all() {
		hashes[pod.Labels[hashLabel]] = true
	}
	live := map[string]bool{}
	for _, r := range old {
		live[r.Name] = hashes[r.Labels[hashLabel]]
	}
	dead := len(slices.DeleteFunc(slices.Clone(old), func(r *apps.ControllerRevision) bool { return live[r.Name] }))
	keep := max(0, int(ptr.Deref(p.ds.Spec.RevisionHistoryLimit, 10))-(len(old)-dead))
	return p.history.Truncate(ctx, old, live, keep)
}
