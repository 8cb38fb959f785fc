package report

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// Renewed returns when the API server has last renewed the node's Lease; the zero Time
// before the first.
func (s *Reporter) Renewed() time.Time {
	if ns := s.renewed.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// lease renews the node's Lease (KEP-589) until ctx is done.
func (s *Reporter) lease(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		begin := s.Clock.Now()
		err := s.renew(ctx)
		if failures++; err == nil {
			failures = 0
		}
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Renewing the node's lease failed")
			if failures > 1 && s.Unanswered != nil {
				s.Unanswered()
			}
		}
		select {
		case <-s.Clock.After(renewPeriod - s.Clock.Since(begin)):
		case <-ctx.Done():
		}
	}
}

// renew renews the lease once. A request without an answer does not delay the next
// one, which may use another connection.
func (s *Reporter) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewPeriod)
	defer cancel()
	leases := s.Client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	now := metav1.NewMicroTime(s.Clock.Now())
	l, err := leases.Get(ctx, s.NodeName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		l = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: s.NodeName, Namespace: v1.NamespaceNodeLease},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To(s.NodeName), LeaseDurationSeconds: ptr.To[int32](LeaseSeconds), RenewTime: &now}}
		if n, nerr := s.Client.CoreV1().Nodes().Get(ctx, s.NodeName, metav1.GetOptions{}); nerr == nil {
			l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
		}
		_, err = leases.Create(ctx, l, metav1.CreateOptions{})
	case err == nil:
		l = l.DeepCopy()
		l.Spec.RenewTime = &now
		_, err = leases.Update(ctx, l, metav1.UpdateOptions{})
	}
	if err == nil {
		s.renewed.Store(now.UnixNano())
	}
	return err
}
