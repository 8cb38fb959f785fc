package clusterrole

import (
	"context"
	"slices"
	"strings"

	v1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	client := c.Client().RbacV1().ClusterRoles()
	informer := c.Informers.Rbac().V1().ClusterRoles()
	lister := informer.Lister()
	queue := c.Queue("cluster_role_aggregator")
	// Any role may be a part of any other that aggregates.
	all := func() {
		roles, _ := lister.List(labels.Everything())
		for _, r := range roles {
			if r.AggregationRule != nil {
				queue.Add(r.Name)
			}
		}
	}
	changed := func(*v1.ClusterRole) { all() }
	reconcile.Handle(informer.Informer(), changed, func(_, _ *v1.ClusterRole) { all() }, changed)
	return reconcile.Loop[*v1.ClusterRole]{
		Queue: queue, For: informer.Informer(),
		Reconcile: func(ctx context.Context, role *v1.ClusterRole) (reconcile.Result, error) {
			if role.AggregationRule == nil {
				return reconcile.Result{}, nil
			}
			roles, err := lister.List(labels.Everything())
			if err != nil {
				return reconcile.Result{}, err
			}
			slices.SortFunc(roles, func(a, b *v1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
			rules, err := authz.Aggregate(role, roles)
			if err != nil || equality.Semantic.DeepEqual(rules, role.Rules) {
				return reconcile.Result{}, err
			}
			role = role.DeepCopy()
			role.Rules = nil
			for i := range rules {
				role.Rules = append(role.Rules, *rules[i].DeepCopy())
			}
			_, err = client.Update(ctx, role, metav1.UpdateOptions{})
			return reconcile.Result{}, err
		},
	}.Run, nil
}
