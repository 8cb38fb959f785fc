package controllers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// TestClaimOrphan checks an object without a controller that matches an owner's
// selector. Where the owner may not adopt it, Claim returns an error: a controller
// that took the object for gone would make another in its place.
func TestClaimOrphan(t *testing.T) {
	web := map[string]string{"app": "web"}
	owner := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web", UID: "1"}}
	deleted := metav1.NewTime(time.Unix(1, 0))
	for _, c := range []struct {
		what    string
		fresh   *appsv1.ReplicaSet
		err     error
		patch   error
		claimed bool
		want    string // in the error
	}{
		{what: "adopted", fresh: owner, claimed: true},
		{what: "the owner is being deleted", fresh: &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{UID: "1", DeletionTimestamp: &deleted}}, want: "has just been deleted"},
		{what: "the owner is another", fresh: &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{UID: "2"}}, want: "is gone: got uid 2, wanted 1"},
		{what: "the owner has gone", err: apierrors.NewNotFound(appsv1.Resource("replicasets"), "web"), want: `replicasets.apps "web" not found`},
		{what: "the API server does not answer", err: errors.New("refused"), want: "refused"},
		{what: "the object has gone", fresh: owner, patch: apierrors.NewNotFound(v1.Resource("pods"), "web-1")},
		{what: "the object has changed", fresh: owner, patch: apierrors.NewConflict(v1.Resource("pods"), "web-1", nil), want: "web-1"},
	} {
		claimer := Claimer[*v1.Pod]{
			Owner: owner, Kind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), Selector: labels.SelectorFromSet(web),
			Fresh: func(context.Context) (metav1.Object, error) { return c.fresh, c.err },
			Patch: func(context.Context, *v1.Pod, []byte) error { return c.patch },
		}
		got, err := claimer.Claim(t.Context(), []*v1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web-1", UID: "3", Labels: web}}})
		if (len(got) == 1) != c.claimed {
			t.Errorf("%s: claimed %d objects", c.what, len(got))
		}
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", c.what, err, c.want)
		}
	}
}
