package clusterrole

import (
	"context"
	"slices"
	"strings"

	v1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/trace"
)

const component = "clusterrole-aggregation-controller"

// Start runs the controller until ctx is done.
func Start(ctx context.Context, c controllers.Context) error {
	client := c.Client(component).RbacV1().ClusterRoles()
	informer := c.Informers.Rbac().V1().ClusterRoles()
	lister := informer.Lister()
	queue := controllers.NewQueue("cluster_role_aggregator", c.Clock)
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
	controllers.Handle(informer.Informer(), changed, func(_, _ *v1.ClusterRole) { all() }, changed)
	loop := controllers.Loop{
		Name: component, Queue: queue, Workers: 1, Synced: []cache.SharedIndexInformer{informer.Informer()},
		Sync: func(ctx context.Context, name string) error {
			role, err := lister.Get(name)
			if apierrors.IsNotFound(err) || err == nil && role.AggregationRule == nil {
				return nil
			}
			if err != nil {
				return err
			}
			roles, err := lister.List(labels.Everything())
			if err != nil {
				return err
			}
			slices.SortFunc(roles, func(a, b *v1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
			rules, err := authz.Aggregate(role, roles)
			if err != nil || equality.Semantic.DeepEqual(rules, role.Rules) {
				return err
			}
			role = role.DeepCopy()
			role.Rules = nil
			for i := range rules {
				role.Rules = append(role.Rules, *rules[i].DeepCopy())
			}
			_, err = client.Update(trace.WithCause(ctx, role), role, metav1.UpdateOptions{})
			return err
		},
	}
	go loop.Run(ctx)
	return nil
}
