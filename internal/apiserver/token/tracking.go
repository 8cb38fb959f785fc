package token

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/warning"
	client "k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// The names that the use of tokens in Secrets is tracked under (KEP-2799): of the
// ConfigMap of kube-system that says since when, and of the labels of a Secret with
// the dates on which its token was last used and became invalid.
const (
	TrackingConfigMap = "kube-apiserver-legacy-service-account-token-tracking"
	LastUsedLabel     = "kubernetes.io/legacy-token-last-used"
	InvalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"
)

// tracker writes when tokens in Secrets were used.
type tracker struct {
	ctx    context.Context // the server's
	client client.Interface
}

// Track records from now on when the tokens in Secrets are used, by c in a label of
// the Secret, and notes the day on which this began in the ConfigMap. It retries the
// latter until it succeeds or ctx is done.
func (a *Authority) Track(ctx context.Context, c client.Interface) {
	a.tracker.Store(&tracker{ctx, c})
	since := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: TrackingConfigMap},
		Data: map[string]string{"since": a.clock.Now().UTC().Format(time.DateOnly)}}
	_ = wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		_, err := c.CoreV1().ConfigMaps(since.Namespace).Create(ctx, since, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			klog.FromContext(ctx).Error(err, "Noting since when the use of tokens is tracked failed; trying again", "configMap", klog.KObj(since))
			return false, nil
		}
		return true, nil
	})
}

// track notes that the token in s, of account, is used. A token that has been marked
// invalid is refused.
func (a *Authority) track(ctx context.Context, s *v1.Secret, account *v1.ServiceAccount) error {
	audit.AddAuditAnnotation(ctx, "authentication.k8s.io/legacy-token", account.Namespace+"/"+account.Name)
	if slices.ContainsFunc(account.Secrets, func(r v1.ObjectReference) bool { return r.Name == s.Name }) {
		warning.AddWarning(ctx, "", "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.")
	}
	t := a.tracker.Load()
	if t == nil {
		return nil
	}
	t.use(s, a.clock.Now().UTC())
	if _, err := time.Parse(time.DateOnly, s.Labels[InvalidSinceLabel]); err != nil {
		return nil //nolint:nilerr // it is not marked
	}
	audit.AddAuditAnnotation(ctx, "authentication.k8s.io/legacy-token-invalidated", s.Name+"/"+s.Namespace)
	return fmt.Errorf("the token in secret %s/%s for service account %s/%s has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '%s' label from the secret to temporarily allow use of this token",
		s.Namespace, s.Name, account.Namespace, account.Name, InvalidSinceLabel)
}

// use writes the day of the last use where it is not today's.
func (t *tracker) use(s *v1.Secret, now time.Time) {
	today := now.Format(time.DateOnly)
	if s.Labels[LastUsedLabel] == today {
		return
	}
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"labels":{%q:%q}}}`, s.UID, LastUsedLabel, today)
	// The write is made as the server, not as the user of the request.
	if _, err := t.client.CoreV1().Secrets(s.Namespace).Patch(t.ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		klog.FromContext(t.ctx).Error(err, "Failed to label legacy service account token secret with last-used", "secret", klog.KObj(s))
	}
}
