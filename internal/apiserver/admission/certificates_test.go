package admission

import (
	"context"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// allowed returns an authorizer that allows one verb for one signer.
func allowed(verb, signer string) authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if a.GetVerb() == verb && a.GetResource() == "signers" && a.GetAPIGroup() == "certificates.k8s.io" && a.GetName() == signer {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "", nil
	})
}

func TestTrustBundleAttest(t *testing.T) {
	gvr := certificatesv1.SchemeGroupVersion.WithResource("clustertrustbundles")
	bundle := func(signer, text string) *certificatesv1.ClusterTrustBundle {
		return &certificatesv1.ClusterTrustBundle{Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: text}}
	}
	p := made(t, &Environment{Authorizer: allowed("attest", "example.com/s")}, "ClusterTrustBundleAttest")
	all := made(t, &Environment{Authorizer: allowed("attest", "example.com/*")}, "ClusterTrustBundleAttest")
	for name, c := range map[string]struct {
		plugin   admission.Interface
		obj, old runtime.Object
		want     string
	}{
		"of nobody":      {p, bundle("", "x"), nil, ""},
		"own":            {p, bundle("example.com/s", "x"), nil, ""},
		"own's domain":   {all, bundle("example.com/t", "x"), nil, ""},
		"another's":      {p, bundle("example.com/t", "x"), nil, `user not permitted to attest for signerName "example.com/t"`},
		"another's text": {p, bundle("example.com/t", "x"), bundle("example.com/t", "y"), `user not permitted to attest for signerName "example.com/t"`},
		"label":          {p, bundle("example.com/t", "x"), bundle("example.com/t", "x"), ""},
	} {
		op := admission.Create
		if c.old != nil {
			op = admission.Update
		}
		if got := text(admit(c.plugin, request(gvr, "", op, c.obj, c.old))); !strings.HasSuffix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// existing is one pod and one account.
type existing struct {
	ServiceAccounts
	pod     *v1.Pod
	account *v1.ServiceAccount
}

func (e existing) Pod(_ context.Context, _, name string) (*v1.Pod, error) {
	if name != e.pod.Name {
		return nil, apierrors.NewNotFound(podResource, name)
	}
	return e.pod, nil
}

func (e existing) ServiceAccount(context.Context, string, string) (*v1.ServiceAccount, error) {
	return e.account, nil
}

func TestNodeAsksForItsPodsCertificates(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "1"}, Spec: v1.PodSpec{NodeName: "n", ServiceAccountName: "sa"}}
	env := environment(t, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "3"}})
	e := existing{pod: pod, account: &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "sa", UID: "2"}}}
	env.Pods, env.Accounts = e, e
	p := newNodeRestriction(env)
	gvr := certificatesv1.SchemeGroupVersion.WithResource("podcertificaterequests")
	for name, c := range map[string]struct {
		change func(*certificatesv1.PodCertificateRequestSpec)
		op     admission.Operation
		sub    string
		want   string
	}{
		"own":             {want: ""},
		"another node's":  {change: func(s *certificatesv1.PodCertificateRequestSpec) { s.NodeName = "m" }, want: `PodCertificateRequest.Spec.NodeName="m", which is not the requesting node "n"`},
		"another pod":     {change: func(s *certificatesv1.PodCertificateRequestSpec) { s.PodUID = "9" }, want: `PodCertificateRequest.Spec.PodUID="9", but the UID of pod "p" is "1"`},
		"no pod":          {change: func(s *certificatesv1.PodCertificateRequestSpec) { s.PodName = "q" }, want: `pods "q" not found`},
		"another account": {change: func(s *certificatesv1.PodCertificateRequestSpec) { s.ServiceAccountName = "x" }, want: `PodCertificateRequest.Spec.ServiceAccountName="x", but pod "p" runs as "sa"`},
		"account's UID":   {change: func(s *certificatesv1.PodCertificateRequestSpec) { s.ServiceAccountUID = "x" }, want: `the UID of service account "sa" is "2"`},
		"node's UID":      {change: func(s *certificatesv1.PodCertificateRequestSpec) { s.NodeUID = "x" }, want: `the UID of node "n" is "3"`},
		"update":          {op: admission.Update, want: "unexpected operation UPDATE"},
		"status":          {sub: "status", want: "unexpected subresource status"},
	} {
		r := &certificatesv1.PodCertificateRequest{Spec: certificatesv1.PodCertificateRequestSpec{PodName: "p", PodUID: "1", ServiceAccountName: "sa", ServiceAccountUID: "2", NodeName: "n", NodeUID: "3"}}
		if c.change != nil {
			c.change(&r.Spec)
		}
		if c.op == "" {
			c.op = admission.Create
		}
		a := admission.NewAttributesRecord(r, nil, certificatesv1.SchemeGroupVersion.WithKind("PodCertificateRequest"), "ns", "", gvr, c.sub, c.op, nil, false,
			&user.DefaultInfo{Name: "system:node:n", Groups: []string{user.NodesGroup}})
		if got := text(admit(p, a)); !strings.HasSuffix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
