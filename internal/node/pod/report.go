package pod

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// report sends a pod's status to the API.
type report struct {
	*base
	// inAPI returns the pod as the API has it, nil if it has none.
	inAPI func() *v1.Pod
	// written takes the pod that the API gave for a status that was made from base, and
	// reports whether the worker's is another one.
	written func(base, got *v1.Pod) bool
	// ending reports whether the worker takes the pod down, and waits for the status to be
	// written.
	ending func() bool

	mu      sync.Mutex
	status  *v1.PodStatus // as last computed
	posted  *v1.PodStatus // as the API last had it from us
	posting bool
	changed time.Time // since when the API does not have the status
	from    string    // version of the pod that the last status was written to
	got     *v1.Pod   // what the API gave for it
}

// last returns the status as it was last computed, nil if it was not.
func (r *report) last() *v1.PodStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// underWay reports whether a status is being written: the worker is woken afterwards, if the
// pod is not the one then that was written.
func (r *report) underWay() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.posting
}

// forget makes the next publish send the status, even if the API has it
// already.
func (r *report) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.posted = nil
}

// settled reports whether the API has the status last computed.
func (r *report) settled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.posting && (r.status == nil || r.posted != nil && equality.Semantic.DeepEqual(r.status, r.posted))
}

// publish sends the status if it has changed. It was made from base, nil for none
// in the API: later writes of others are not lost.
func (r *report) publish(ctx context.Context, base *v1.Pod, s v1.PodStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if base != nil && r.from != "" && base.ResourceVersion == r.from && base.UID == r.got.UID {
		base = r.got
	}
	r.status = &s
	if base == nil {
		return // the mirror, when it is there, wakes the worker
	}
	same := equality.Semantic.DeepEqual(s, base.Status)
	if same {
		r.posted = &s
	}
	// The API's form of the status that was written last may differ from it; later
	// writes of others are overwritten.
	kept := r.got == nil || equality.Semantic.DeepEqual(base.Status, r.got.Status)
	if same || r.posting || kept && r.posted != nil && equality.Semantic.DeepEqual(s, *r.posted) {
		return
	}
	r.posting = true
	if r.changed.IsZero() {
		r.changed = r.Clock.Now()
	}
	ctx = context.WithoutCancel(ctx)
	r.wg.Go(func() { r.post(ctx, base, s) })
}

// post writes a status. It is made from the pod it was read from: where the
// pod has changed since, the change wakes the worker, which computes it anew.
func (r *report) post(ctx context.Context, base *v1.Pod, s v1.PodStatus) {
	p := *base
	p.Status = s
	got, err := r.Client.CoreV1().Pods(base.Namespace).UpdateStatus(ctx, &p, metav1.UpdateOptions{})
	now := r.inAPI()
	stale := now != nil && now.ResourceVersion == base.ResourceVersion
	r.mu.Lock()
	r.posting = false
	// The worker has nothing to do where what was written is the pod now.
	more := err != nil || r.written(base, got) || !equality.Semantic.DeepEqual(*r.status, s)
	if err == nil || apierrors.IsNotFound(err) { // in the second case there is no pod to update
		r.posted = &s
	}
	switch {
	case err == nil:
		r.from, r.got = base.ResourceVersion, got
		r.Metrics.StatusSynced(r.Clock.Since(r.changed))
		r.changed = time.Time{}
	case apierrors.IsNotFound(err):
		r.from, r.got = base.ResourceVersion, base
	}
	r.mu.Unlock()
	if err != nil && !apierrors.IsNotFound(err) {
		if !apierrors.IsConflict(err) {
			klog.FromContext(ctx).Error(err, "Updating the pod's status failed")
		}
		if stale {
			select {
			case <-r.Clock.After(shortRetry):
			case <-r.ctx.Done():
			}
		}
	}
	if more || r.ending() {
		r.notify()
	}
}
