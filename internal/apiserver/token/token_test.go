package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

type objects struct {
	sa  *v1.ServiceAccount
	pod *v1.Pod
}

func (o *objects) ServiceAccount(context.Context, string, string) (*v1.ServiceAccount, error) {
	if o.sa == nil {
		return nil, apierrors.NewNotFound(v1.Resource("serviceaccounts"), "sa")
	}
	return o.sa, nil
}
func (o *objects) Pod(context.Context, string, string) (*v1.Pod, error) {
	if o.pod == nil {
		return nil, apierrors.NewNotFound(v1.Resource("pods"), "p")
	}
	return o.pod, nil
}
func (o *objects) Secret(context.Context, string, string) (*v1.Secret, error) {
	return nil, apierrors.NewNotFound(v1.Resource("secrets"), "s")
}
func (o *objects) Node(context.Context, string) (*v1.Node, error) {
	return nil, apierrors.NewNotFound(v1.Resource("nodes"), "n")
}

func TestTokens(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &objects{sa: &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sa", UID: "1"}},
		pod: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "2"}, Spec: v1.PodSpec{ServiceAccountName: "sa"}}}
	clk := testingclock.NewFakeClock(time.Unix(1_800_000_000, 0))
	a, err := New(key, Selection{}, o, clk)
	if err != nil {
		t.Fatal(err)
	}
	request := func() *authenticationv1.TokenRequest {
		return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: a.Audiences(), ExpirationSeconds: ptr.To[int64](3600)}}
	}
	tr := request()
	tr.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "p"}
	if err := a.Request(t.Context(), o.sa, tr); err != nil {
		t.Fatal(err)
	}
	u, _, ok, err := a.Review(t.Context(), tr.Status.Token, nil)
	if err != nil || !ok || u.GetName() != "system:serviceaccount:ns:sa" || u.GetExtra()["authentication.kubernetes.io/pod-name"][0] != "p" {
		t.Errorf("%v, %v, %v", u, ok, err)
	}
	if _, _, ok, err := a.Review(t.Context(), tr.Status.Token, []string{"other"}); ok || err == nil || !strings.Contains(err.Error(), "is invalid for the target audiences") {
		t.Errorf("for another audience: %v, %v", ok, err)
	}
	parts := strings.Split(tr.Status.Token, ".")
	if _, _, ok, err := a.Review(t.Context(), parts[0]+"."+parts[1]+"."+strings.Repeat("A", len(parts[2])), nil); ok || err == nil {
		t.Errorf("with another signature: %v, %v", ok, err)
	}
	for name, break_ := range map[string]func() func(){
		"the pod is another one":     func() func() { p := o.pod; o.pod = p.DeepCopy(); o.pod.UID = "3"; return func() { o.pod = p } },
		"the pod is gone":            func() func() { p := o.pod; o.pod = nil; return func() { o.pod = p } },
		"the account is another one": func() func() { s := o.sa; o.sa = s.DeepCopy(); o.sa.UID = "9"; return func() { o.sa = s } },
	} {
		repair := break_()
		if _, _, ok, err := a.Review(t.Context(), tr.Status.Token, nil); ok || err == nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
		repair()
	}
	clk.Step(2 * time.Hour)
	if _, _, ok, err := a.Review(t.Context(), tr.Status.Token, nil); ok || err == nil || err.Error() != "service account token has expired" {
		t.Errorf("after its end: %v, %v", ok, err)
	}
	webhook := request()
	webhook.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "ValidatingWebhookConfiguration", APIVersion: "admissionregistration.k8s.io/v1", Name: "w"}
	if err := a.Request(t.Context(), o.sa, webhook); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "(feature gate APIServerWebhookAuthenticationToken is disabled)") {
		t.Errorf("one for a webhook: %v", err)
	}
}
