package legacytoken

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

const (
	// period is how often the Secrets are checked.
	period = 24 * time.Hour
)

type cleaner struct {
	client   kubernetes.Interface
	clock    clock.PassiveClock
	accounts corelisters.ServiceAccountLister
	secrets  corelisters.SecretLister
	pods     corelisters.PodLister
	// unused is how long a token may go without use before it becomes invalid, and then
	// again before it is deleted.
	unused time.Duration
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	core := c.Informers.Core().V1()
	l := &cleaner{c.Client(), c.Clock, core.ServiceAccounts().Lister(), core.Secrets().Lister(), core.Pods().Lister(), c.Tuned().LegacyTokenCleanUpPeriod}
	return reconcile.Every(c.Clock, period, l.clean, core.ServiceAccounts().Informer(), core.Secrets().Informer(), core.Pods().Informer()), nil
}

func (l *cleaner) clean(ctx context.Context) {
	now := l.clock.Now().UTC()
	since, err := l.trackedSince(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Getting the date since which the use of tokens is tracked")
		return
	}
	if now.Before(since.Add(l.unused)) {
		return
	}
	all, err := l.secrets.List(labels.Everything())
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listing Secrets")
		return
	}
	for _, s := range all {
		if s.Type != v1.SecretTypeServiceAccountToken || s.DeletionTimestamp != nil {
			continue
		}
		if err := l.judge(trace.WithCause(ctx, s), s, now); err != nil {
			klog.FromContext(ctx).Error(err, "Cleaning up an auto-generated service account token", "secret", klog.KObj(s))
		}
	}
}

// trackedSince returns the first day on which all uses of tokens were recorded.
func (l *cleaner) trackedSince(ctx context.Context) (time.Time, error) {
	c, err := l.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, token.TrackingConfigMap, metav1.GetOptions{})
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.DateOnly, c.Data["since"])
	if err != nil {
		return time.Time{}, fmt.Errorf("ConfigMap %s/%s: want a date under the key since: %w", c.Namespace, c.Name, err)
	}
	return t.AddDate(0, 0, 1), nil
}

// judge marks or deletes the Secret of a token that was not used for long enough.
func (l *cleaner) judge(ctx context.Context, s *v1.Secret, now time.Time) error {
	keep := now.Add(-l.unused)
	if !s.CreationTimestamp.Time.Before(keep) {
		return nil
	}
	if used, ok := s.Labels[token.LastUsedLabel]; ok {
		if _, err := time.Parse(time.DateOnly, used); err != nil {
			return fmt.Errorf("label %s: %w", token.LastUsedLabel, err)
		}
		if used >= keep.Format(time.DateOnly) {
			return nil
		}
	}
	generated, err := l.generated(s)
	if err != nil || !generated {
		return err
	}
	if mounted, err := l.mounted(s); err != nil || mounted {
		return err
	}
	client := l.client.CoreV1().Secrets(s.Namespace)
	invalid := s.Labels[token.InvalidSinceLabel]
	if _, err := time.Parse(time.DateOnly, invalid); err != nil {
		patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"labels":{%q:%q}}}`, s.UID, token.InvalidSinceLabel, now.Format(time.DateOnly))
		_, err := client.Patch(ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		return ignoreGone(err)
	}
	if invalid >= keep.Format(time.DateOnly) {
		return nil
	}
	return ignoreGone(client.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}}))
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// generated reports whether an earlier control plane made the Secret for its
// account: the account lists it.
func (l *cleaner) generated(s *v1.Secret) (bool, error) {
	name := s.Annotations[v1.ServiceAccountNameKey]
	if name == "" {
		return false, nil
	}
	a, err := l.accounts.ServiceAccounts(s.Namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if uid := s.Annotations[v1.ServiceAccountUIDKey]; uid != "" && uid != string(a.UID) {
		return false, nil
	}
	return slices.ContainsFunc(a.Secrets, func(r v1.ObjectReference) bool { return r.Name == s.Name }), nil
}

// mounted reports whether a pod refers to a Secret.
func (l *cleaner) mounted(s *v1.Secret) (bool, error) {
	pods, err := l.pods.Pods(s.Namespace).List(labels.Everything())
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(pods, func(p *v1.Pod) bool { return slices.Contains(podspec.References(p).Secrets, s.Name) }), nil
}
