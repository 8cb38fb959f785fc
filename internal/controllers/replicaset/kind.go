package replicaset

import (
	"context"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// kind holds the differences between ReplicaSets and ReplicationControllers:
// one algorithm reconciles both, in the ReplicaSet's form.
type kind struct {
	gvk      schema.GroupVersionKind
	queue    string // its name in metrics
	informer cache.SharedIndexInformer
	convert  func(obj any) *apps.ReplicaSet
	// original returns the API object that events are about.
	original func(rs *apps.ReplicaSet) runtime.Object
	list     func(namespace string) ([]*apps.ReplicaSet, error)
	get      func(ctx context.Context, c kubernetes.Interface, ns, name string) (*apps.ReplicaSet, error)
	update   func(ctx context.Context, c kubernetes.Interface, rs *apps.ReplicaSet) (*apps.ReplicaSet, error)
}

func replicaSets(f informers.SharedInformerFactory) kind {
	inf := f.Apps().V1().ReplicaSets()
	return kind{
		gvk:      apps.SchemeGroupVersion.WithKind("ReplicaSet"),
		queue:    "replicaset",
		informer: inf.Informer(),
		convert:  func(o any) *apps.ReplicaSet { rs, _ := o.(*apps.ReplicaSet); return rs },
		original: func(rs *apps.ReplicaSet) runtime.Object { return rs },
		list: func(ns string) ([]*apps.ReplicaSet, error) {
			return inf.Lister().ReplicaSets(ns).List(labels.Everything())
		},
		get: func(ctx context.Context, c kubernetes.Interface, ns, name string) (*apps.ReplicaSet, error) {
			return c.AppsV1().ReplicaSets(ns).Get(ctx, name, metav1.GetOptions{})
		},
		update: func(ctx context.Context, c kubernetes.Interface, rs *apps.ReplicaSet) (*apps.ReplicaSet, error) {
			return c.AppsV1().ReplicaSets(rs.Namespace).UpdateStatus(ctx, rs, metav1.UpdateOptions{})
		},
	}
}

func replicationControllers(f informers.SharedInformerFactory) kind {
	inf := f.Core().V1().ReplicationControllers()
	return kind{
		gvk:      v1.SchemeGroupVersion.WithKind("ReplicationController"),
		queue:    "replicationmanager",
		informer: inf.Informer(),
		convert: func(o any) *apps.ReplicaSet {
			if rc, ok := o.(*v1.ReplicationController); ok {
				return fromRC(rc)
			}
			return nil
		},
		original: func(rs *apps.ReplicaSet) runtime.Object {
			return &v1.ReplicationController{TypeMeta: metav1.TypeMeta{Kind: "ReplicationController", APIVersion: "v1"}, ObjectMeta: rs.ObjectMeta}
		},
		list: func(ns string) ([]*apps.ReplicaSet, error) {
			rcs, err := inf.Lister().ReplicationControllers(ns).List(labels.Everything())
			out := make([]*apps.ReplicaSet, len(rcs))
			for i := range rcs {
				out[i] = fromRC(rcs[i])
			}
			return out, err
		},
		get: func(ctx context.Context, c kubernetes.Interface, ns, name string) (*apps.ReplicaSet, error) {
			rc, err := c.CoreV1().ReplicationControllers(ns).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			return fromRC(rc), nil
		},
		update: func(ctx context.Context, c kubernetes.Interface, rs *apps.ReplicaSet) (*apps.ReplicaSet, error) {
			rc, err := c.CoreV1().ReplicationControllers(rs.Namespace).UpdateStatus(ctx, toRC(rs), metav1.UpdateOptions{})
			if err != nil {
				return nil, err
			}
			return fromRC(rc), nil
		},
	}
}

func fromRC(rc *v1.ReplicationController) *apps.ReplicaSet {
	rs := &apps.ReplicaSet{
		ObjectMeta: rc.ObjectMeta,
		Spec: apps.ReplicaSetSpec{
			Replicas:        rc.Spec.Replicas,
			MinReadySeconds: rc.Spec.MinReadySeconds,
			Selector:        &metav1.LabelSelector{MatchLabels: rc.Spec.Selector},
		},
		Status: apps.ReplicaSetStatus{
			Replicas:             rc.Status.Replicas,
			FullyLabeledReplicas: rc.Status.FullyLabeledReplicas,
			ReadyReplicas:        rc.Status.ReadyReplicas,
			AvailableReplicas:    rc.Status.AvailableReplicas,
			ObservedGeneration:   rc.Status.ObservedGeneration,
		},
	}
	if rc.Spec.Template != nil {
		rs.Spec.Template = *rc.Spec.Template
	}
	for _, c := range rc.Status.Conditions {
		rs.Status.Conditions = append(rs.Status.Conditions, apps.ReplicaSetCondition{
			Type: apps.ReplicaSetConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
			Reason: c.Reason, Message: c.Message,
		})
	}
	return rs
}

func toRC(rs *apps.ReplicaSet) *v1.ReplicationController {
	rc := &v1.ReplicationController{
		ObjectMeta: rs.ObjectMeta,
		Spec: v1.ReplicationControllerSpec{
			Replicas:        rs.Spec.Replicas,
			MinReadySeconds: rs.Spec.MinReadySeconds,
			Selector:        rs.Spec.Selector.MatchLabels,
			Template:        &rs.Spec.Template,
		},
		Status: v1.ReplicationControllerStatus{
			Replicas:             rs.Status.Replicas,
			FullyLabeledReplicas: rs.Status.FullyLabeledReplicas,
			ReadyReplicas:        rs.Status.ReadyReplicas,
			AvailableReplicas:    rs.Status.AvailableReplicas,
			ObservedGeneration:   rs.Status.ObservedGeneration,
		},
	}
	for _, c := range rs.Status.Conditions {
		rc.Status.Conditions = append(rc.Status.Conditions, v1.ReplicationControllerCondition{
			Type: v1.ReplicationControllerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
			Reason: c.Reason, Message: c.Message,
		})
	}
	return rc
}
