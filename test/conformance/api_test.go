package conformance

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

func gvr(group, version, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
}

func statusCondition(u *unstructured.Unstructured) {
	u.Object["status"] = dict{"conditions": []any{dict{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from a test", "lastTransitionTime": time.Now().UTC().Format(time.RFC3339)}}}
}

var _ = It("[sig-api-machinery] API priority and fairness should support FlowSchema API operations", func(t *T) {
	t.operate(operations{gvr: gvr("flowcontrol.apiserver.k8s.io", "v1", "flowschemas"), cluster: true, status: statusCondition,
		one: t.template("{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, spec: {matchingPrecedence: 10000, priorityLevelConfiguration: {name: global-default}, distinguisherMethod: {type: ByUser}, rules: [{subjects: [{kind: User, user: {name: example-e2e-non-existent-user}}], nonResourceRules: [{verbs: [get], nonResourceURLs: ['*']}]}]}}")})
})

var _ = It("[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations", func(t *T) {
	t.operate(operations{gvr: gvr("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations"), cluster: true, status: statusCondition,
		one: t.template("{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, spec: {type: Limited, limited: {nominalConcurrencyShares: 2, limitResponse: {type: Reject}}}}")})
})

var _ = It("[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations", func(t *T) {
	condition := func(kind string) func(*unstructured.Unstructured) {
		return func(u *unstructured.Unstructured) {
			old, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
			t.must(unstructured.SetNestedSlice(u.Object, append(old, dict{"type": kind, "status": "True", "reason": "E2E", "message": "Set from a test"}), "status", "conditions"))
		}
	}
	t.operate(operations{gvr: gvr("certificates.k8s.io", "v1", "certificatesigningrequests"), cluster: true, status: condition("StatusUpdate"),
		others: map[string]func(*unstructured.Unstructured){"approval": condition("Approved")},
		one: func(name string) *unstructured.Unstructured {
			u := t.object("{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {name: %s}, spec: {signerName: example.com/e2e-%s, expirationSeconds: 3600, usages: [digital signature, key encipherment, server auth]}}", name, t.NS)
			t.must(unstructured.SetNestedField(u.Object, t.certificateRequest(), "spec", "request"))
			return u
		}})
	_ = certificatesv1.CertificateApproved
})

var _ = It("[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount", func(t *T) {
	t.operate(operations{gvr: gvr("", "v1", "serviceaccounts"), one: t.template("{apiVersion: v1, kind: ServiceAccount}")})
})

var _ = It("[sig-auth] ServiceAccounts should update a ServiceAccount", func(t *T) {
	accounts := t.Client.CoreV1().ServiceAccounts(t.NS)
	sa := got[*v1.ServiceAccount](t)(accounts.Create(t.Context(), &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a"}, AutomountServiceAccountToken: ptr.To(false)}, create))
	sa.AutomountServiceAccountToken = ptr.To(true)
	got[*v1.ServiceAccount](t)(accounts.Update(t.Context(), sa, update))
	if sa = got[*v1.ServiceAccount](t)(accounts.Get(t.Context(), "a", get)); !ptr.Deref(sa.AutomountServiceAccountToken, false) {
		t.Error("the update is not there")
	}
})

var _ = It("[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace", func(t *T) {
	maps := t.Client.CoreV1().ConfigMaps(t.NS)
	good := func(ctx context.Context) (bool, error) {
		cm, err := maps.Get(ctx, "kube-root-ca.crt", get)
		return err == nil && strings.Contains(cm.Data["ca.crt"], "BEGIN CERTIFICATE"), nil
	}
	t.until("the root CA", good)
	t.must(maps.Delete(t.Context(), "kube-root-ca.crt", remove))
	t.until("the root CA after its deletion", good)
	got[*v1.ConfigMap](t)(maps.Patch(t.Context(), "kube-root-ca.crt", types.MergePatchType, []byte(`{"data":{"ca.crt":"bad"}}`), metav1.PatchOptions{}))
	t.until("the root CA after a change", good)
})

var _ = It("[sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview", func(t *T) {
	got[*v1.ServiceAccount](t)(t.Client.CoreV1().ServiceAccounts(t.NS).Create(t.Context(), &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, create))
	tr := got[*authenticationv1.TokenRequest](t)(t.Client.CoreV1().ServiceAccounts(t.NS).CreateToken(t.Context(), "a", &authenticationv1.TokenRequest{}, create))
	r := got[*authenticationv1.TokenReview](t)(t.Client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: tr.Status.Token}}, create))
	if !r.Status.Authenticated || r.Status.Error != "" || r.Status.User.Username != "system:serviceaccount:"+t.NS+":a" {
		t.Errorf("the review: %+v", r.Status)
	}
})

var _ = It("[sig-auth] ServiceAccounts should allow opting out of API token automount", func(t *T) {
	for _, sa := range []struct {
		name string
		auto *bool
	}{{"mount", ptr.To(true)}, {"nomount", ptr.To(false)}, {"default-mount", nil}} {
		got[*v1.ServiceAccount](t)(t.Client.CoreV1().ServiceAccounts(t.NS).Create(t.Context(), &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: sa.name}, AutomountServiceAccountToken: sa.auto}, create))
		for name, auto := range map[string]*bool{"mount": ptr.To(true), "nomount": ptr.To(false), "default": nil} {
			p := pod(sa.name+"-"+name, nil)
			p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = sa.name, auto
			p = t.makePod(p)
			want := ptr.Deref(auto, ptr.Deref(sa.auto, true))
			has := false
			for _, m := range p.Spec.Containers[0].VolumeMounts {
				has = has || m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount"
			}
			if has != want {
				t.Errorf("pod %s mounts a token: %v, want %v", p.Name, has, want)
			}
		}
	}
})

var _ = It("[sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer", func(t *T) {
	b, _, code := t.raw("/.well-known/openid-configuration", "")
	var doc struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if code != 200 || json.Unmarshal(b, &doc) != nil || doc.Issuer == "" || !strings.Contains(doc.Keys, "/openid/v1/jwks") {
		t.Fatalf("%d %s", code, b)
	}
	b, _, code = t.raw("/openid/v1/jwks", "")
	var keys struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	if code != 200 || json.Unmarshal(b, &keys) != nil || len(keys.Keys) == 0 {
		t.Fatalf("%d %s", code, b)
	}
	t.until("the default service account", func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().ServiceAccounts(t.NS).Get(ctx, "default", get)
		return err == nil, nil
	})
	tr := got[*authenticationv1.TokenRequest](t)(t.Client.CoreV1().ServiceAccounts(t.NS).CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, create))
	header, claims := t.jwt(tr.Status.Token)
	if claims["iss"] != doc.Issuer || header["kid"] != keys.Keys[0].ID {
		t.Errorf("a token of %v with key %v; discovery has %s, %s", claims["iss"], header["kid"], doc.Issuer, keys.Keys[0].ID)
	}
	// A service account may read both.
	cfg := rest.AnonymousClientConfig(t.Config)
	cfg.BearerToken = tr.Status.Token
	sa := kubernetes.NewForConfigOrDie(cfg)
	for _, path := range []string{"/.well-known/openid-configuration", "/openid/v1/jwks"} {
		got[[]byte](t)(sa.Discovery().RESTClient().Get().AbsPath(path).DoRaw(t.Context()))
	}
})

var _ = It("[sig-auth] SubjectReview should support SubjectReview API operations", func(t *T) {
	got[*v1.ServiceAccount](t)(t.Client.CoreV1().ServiceAccounts(t.NS).Create(t.Context(), &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, create))
	name := "system:serviceaccount:" + t.NS + ":a"
	cfg := rest.CopyConfig(t.Config)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: name}
	sa := kubernetes.NewForConfigOrDie(cfg)
	attributes := &authorizationv1.ResourceAttributes{Namespace: t.NS, Verb: "list", Resource: "configmaps", Version: "v1"}
	check := func(want bool) {
		t.Helper()
		r := got[*authorizationv1.SubjectAccessReview](t)(t.Client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: attributes, User: name}}, create))
		l := got[*authorizationv1.LocalSubjectAccessReview](t)(t.Client.AuthorizationV1().LocalSubjectAccessReviews(t.NS).Create(t.Context(), &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: t.NS}, Spec: authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: attributes, User: name}}, create))
		s := got[*authorizationv1.SelfSubjectAccessReview](t)(sa.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes}}, create))
		_, err := sa.CoreV1().ConfigMaps(t.NS).List(t.Context(), all)
		if r.Status.Allowed != want || l.Status.Allowed != want || s.Status.Allowed != want || (err == nil) != want {
			t.Errorf("allowed: %v %v %v, list: %v, want %v", r.Status, l.Status, s.Status, err, want)
		}
	}
	check(false)
	got[*rbacv1.RoleBinding](t)(t.Client.RbacV1().RoleBindings(t.NS).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "view"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: t.NS, Name: "a"}}}, create))
	// The authorizer sees a new binding a moment later.
	t.until("the binding's effect", func(ctx context.Context) (bool, error) {
		r, err := t.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: attributes, User: name}}, create)
		return err == nil && r.Status.Allowed, err
	})
	check(true)
})

var _ = It("[sig-architecture] Conformance Tests should have at least two untainted nodes", func(t *T) {
	n := 0
	for _, node := range got[*v1.NodeList](t)(t.Client.CoreV1().Nodes().List(t.Context(), all)).Items {
		if !node.Spec.Unschedulable && len(node.Spec.Taints) == 0 {
			n++
		}
	}
	if n < 2 {
		t.Errorf("%d nodes", n)
	}
})

func (t *T) coreEvent(name string) *v1.Event {
	return &v1.Event{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"testevent-set": "true"}}, Message: "This is " + name, Reason: "Test", Type: "Normal", Count: 1,
		InvolvedObject: v1.ObjectReference{Namespace: t.NS}}
}

var _ = It("[sig-instrumentation] Events should delete a collection of events", func(t *T) {
	events := t.Client.CoreV1().Events(t.NS)
	for _, n := range []string{"a", "b", "c"} {
		got[*v1.Event](t)(events.Create(t.Context(), t.coreEvent(n), create))
	}
	mine := metav1.ListOptions{LabelSelector: "testevent-set=true"}
	if l := got[*v1.EventList](t)(events.List(t.Context(), mine)); len(l.Items) != 3 {
		t.Errorf("%d events", len(l.Items))
	}
	t.must(events.DeleteCollection(t.Context(), remove, mine))
	t.until("the end of the events", func(ctx context.Context) (bool, error) {
		l, err := events.List(ctx, mine)
		return err == nil && len(l.Items) == 0, err
	})
})

var _ = It("[sig-instrumentation] Events should manage the lifecycle of an event", func(t *T) {
	t.operate(operations{gvr: gvr("", "v1", "events"), one: func(name string) *unstructured.Unstructured {
		return t.object("{apiVersion: v1, kind: Event, metadata: {name: %s}, reason: Test, type: Normal, message: This is a test event, count: 1, involvedObject: {namespace: %s}}", name, t.NS)
	}})
	e := got[*v1.Event](t)(t.Client.CoreV1().Events(t.NS).Create(t.Context(), t.coreEvent("series"), create))
	e.Series = &v1.EventSeries{Count: 100, LastObservedTime: metav1.NewMicroTime(time.Unix(1505828956, 0))}
	got[*v1.Event](t)(t.Client.CoreV1().Events(t.NS).Update(t.Context(), e, update))
	if e = got[*v1.Event](t)(t.Client.CoreV1().Events(t.NS).Get(t.Context(), "series", get)); e.Series == nil || e.Series.Count != 100 {
		t.Errorf("series: %+v", e.Series)
	}
	l := got[*v1.EventList](t)(t.Client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=Test,metadata.namespace=" + t.NS}))
	if len(l.Items) != 1 {
		t.Errorf("%d events by field", len(l.Items))
	}
})

func (t *T) newEvent(name string) *eventsv1.Event {
	return &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"testevent-set": "true"}}, EventTime: metav1.NowMicro(), ReportingController: "test-controller", ReportingInstance: "test-node",
		Action: "Do", Reason: "Test", Type: "Normal", Regarding: v1.ObjectReference{Namespace: t.NS}, Note: "This is " + name}
}

var _ = It("[sig-instrumentation] Events API should delete a collection of events", func(t *T) {
	events := t.Client.EventsV1().Events(t.NS)
	for _, n := range []string{"a", "b", "c"} {
		got[*eventsv1.Event](t)(events.Create(t.Context(), t.newEvent(n), create))
	}
	mine := metav1.ListOptions{LabelSelector: "testevent-set=true"}
	t.must(events.DeleteCollection(t.Context(), remove, mine))
	t.until("the end of the events", func(ctx context.Context) (bool, error) {
		l, err := events.List(ctx, mine)
		return err == nil && len(l.Items) == 0, err
	})
})

var _ = It("[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed", func(t *T) {
	t.operate(operations{gvr: gvr("events.k8s.io", "v1", "events"), one: func(name string) *unstructured.Unstructured {
		return t.object("{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: %s}, eventTime: '2026-01-01T00:00:00.000000Z', reportingController: test-controller, reportingInstance: test-node, action: Do, reason: Test, type: Normal, regarding: {namespace: %s}}", name, t.NS)
	}})
	e := got[*eventsv1.Event](t)(t.Client.EventsV1().Events(t.NS).Create(t.Context(), t.newEvent("x"), create))
	got[*eventsv1.Event](t)(t.Client.EventsV1().Events(t.NS).Patch(t.Context(), "x", types.StrategicMergePatchType, patchOf(dict{"series": dict{"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}), metav1.PatchOptions{}))
	if e = got[*eventsv1.Event](t)(t.Client.EventsV1().Events(t.NS).Get(t.Context(), e.Name, get)); e.Series == nil || e.Series.Count != 2 {
		t.Errorf("series: %+v", e.Series)
	}
	if old := got[*v1.Event](t)(t.Client.CoreV1().Events(t.NS).Get(t.Context(), "x", get)); old.Message != "This is x" {
		t.Errorf("as an event of the core group: %+v", old)
	}
})
