package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/clock"
)

// PodControl makes and deletes the pods of workloads, and tells so in the
// workloads' events.
type PodControl struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	// mislabelled has the owners whose pods they do not count, by UID.
	mislabelled *flowcontrol.Backoff
}

// The times between attempts to make a pod for an owner that did not count the last one.
const (
	firstPause = time.Second
	lastPause  = 5 * time.Minute
)

// NewPodControl returns the PodControl of a controller.
func NewPodControl(client kubernetes.Interface, recorder record.EventRecorder, clk clock.Clock) PodControl {
	c := PodControl{client, recorder, flowcontrol.NewBackOff(firstPause, lastPause)}
	c.mislabelled.Clock = clk
	return c
}

// Create makes a pod of owner, whose pods selector selects. A pod that a terminating
// namespace does not take is an error with the cause NamespaceTerminating, and no event:
// owner goes, too. One whose labels admission changed so that owner does not count it is
// deleted, and an error for a while, in which none is made: owner would make another one in
// its place at once, and so on.
func (c PodControl) Create(ctx context.Context, owner runtime.Object, selector labels.Selector, pod *v1.Pod) error {
	pods, id := c.client.CoreV1().Pods(pod.Namespace), ""
	if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
		id = string(ref.UID)
	}
	mislabelled := func() error {
		return fmt.Errorf("a pod with the labels %q was given others, which the selector %q does not select: see which mutating webhook or policy changes the labels of pods", labels.Set(pod.Labels), selector)
	}
	if c.mislabelled.IsInBackOffSinceUpdate(id, c.mislabelled.Clock.Now()) {
		return mislabelled()
	}
	made, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	if err == nil && !selector.Matches(labels.Set(made.Labels)) {
		c.mislabelled.GC()
		c.mislabelled.Next(id, c.mislabelled.Clock.Now())
		err = mislabelled()
		if gone := pods.Delete(ctx, made.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(made.UID))}); gone != nil && !apierrors.IsNotFound(gone) {
			err = errors.Join(err, gone)
		}
	}
	if err != nil {
		if !apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
			c.recorder.Eventf(owner, v1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		}
		return err
	}
	c.recorder.Eventf(owner, v1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", made.Name)
	return nil
}

// Delete deletes a pod of owner, and no other of its name. That it has gone is an
// error, and no event.
func (c PodControl) Delete(ctx context.Context, owner runtime.Object, pod *v1.Pod) error {
	err := c.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsConflict(err) {
		err = apierrors.NewNotFound(v1.Resource("pods"), pod.Name)
	}
	if err != nil {
		if !apierrors.IsNotFound(err) {
			c.recorder.Eventf(owner, v1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		}
		return err
	}
	c.recorder.Eventf(owner, v1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
	return nil
}

// SlowStart calls f with 0 to n-1, in parallel batches of 1, 2, 4 and so on, and
// stops after the first batch with an error, so that a workload that cannot make its
// pods does not fill the API server with attempts. It returns the number of calls
// that succeeded, and an error of one that did not.
func SlowStart(n int, f func(i int) error) (int, error) {
	done, next := 0, 0
	for size := 1; next < n; size *= 2 {
		first, batch := next, min(size, n-next)
		next += batch
		var mu sync.Mutex
		err := Parallel(batch, func(i int) error {
			err := f(first + i)
			if err == nil {
				mu.Lock()
				done++
				mu.Unlock()
			}
			return err
		})
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Parallel calls f with 0 to n-1 at once, and returns the error of the first of these
// that failed.
func Parallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
