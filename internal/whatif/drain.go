package whatif

import (
	"context"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/util/retry"
)

func (f *Fork) cordon(ctx context.Context, name string) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n, err := f.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil || n.Spec.Unschedulable {
			return err
		}
		n = n.DeepCopy()
		n.Spec.Unschedulable = true
		_, err = f.Client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{})
		return err
	})
}

// podsOn returns the pods of a node that a drain evicts.
func (f *Fork) podsOn(ctx context.Context, node string) (out []v1.Pod, err error) {
	l, err := f.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()})
	if err != nil {
		return nil, err
	}
	for i := range l.Items {
		if !leftByDrain(&l.Items[i]) {
			out = append(out, l.Items[i])
		}
	}
	return out, nil
}

// evict evicts a pod; refused is why a budget does not allow it.
func (f *Fork) evict(ctx context.Context, p *v1.Pod) (refused string, err error) {
	err = f.Client.CoreV1().Pods(p.Namespace).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}})
	switch {
	case apierrors.IsTooManyRequests(err):
		var s apierrors.APIStatus = err.(*apierrors.StatusError) //nolint:errorlint // it is that very type
		refused = s.Status().Message
		if d := s.Status().Details; d != nil {
			for _, c := range d.Causes {
				refused += " " + c.Message
			}
		}
		return refused, nil
	case apierrors.IsNotFound(err):
		return "", nil
	}
	return "", err
}
