package cluster

import (
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/agent/join"
	"keelson.dev/keelson/internal/apiserver/authn"
	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/test/harness"
)

// attacked is a cluster that machines may join, with the nodes n1 and n2, both Ready.
type attacked struct {
	*testing.T
	cluster *Cluster
	bare    *rest.Config
	admin   *kubernetes.Clientset
}

func newAttacked(t *testing.T) *attacked {
	t.Helper()
	// Nobody keeps the nodes Ready.
	c := boot(t, Options{Options: controlplane.Options{Listen: "127.0.0.1:0", NoDrain: true, Authentication: authn.Selection{Bootstrap: true}}, NoScheduler: true,
		Controllers: []string{"*", "-node-lifecycle-controller"}})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	a := &attacked{t, c, rest.AnonymousClientConfig(cfg), kubernetes.NewForConfigOrDie(cfg)}
	ctx := t.Context()
	a.must(join.Prepare(ctx, a.admin, cfg.Host, cfg.CAData))
	a.must(agent.PrepareJoin(ctx, a.admin))
	for _, name := range []string{"n1", "n2"} {
		_, err := a.admin.CoreV1().Nodes().Create(ctx, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		a.must(err)
		_, err = a.admin.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, []byte(`{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}`), metav1.PatchOptions{}, "status")
		a.must(err)
	}
	return a
}

func (a *attacked) must(err error) {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
}

// bearer returns a client that shows a bootstrap token.
func (a *attacked) bearer(token string) *kubernetes.Clientset {
	cfg := rest.CopyConfig(a.bare)
	cfg.BearerToken = token
	return kubernetes.NewForConfigOrDie(cfg)
}

// node returns a client with the certificate of a node.
func (a *attacked) node(name string) *kubernetes.Clientset {
	a.Helper()
	pair, err := a.cluster.Certs.ClientCert("system:node:"+name, []string{"system:nodes"})
	a.must(err)
	cfg := rest.CopyConfig(a.bare)
	cfg.CertData, cfg.KeyData = pair.Cert, pair.Key
	return kubernetes.NewForConfigOrDie(cfg)
}

// refused checks the words of a refusal; without, that there is none.
func (a *attacked) refused(what string, err error, want string) {
	a.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		a.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

var clientUsages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}

// TestJoinAttacks joins with tokens that are not to be had, and asks by a good one for
// what it is not for.
func TestJoinAttacks(t *testing.T) {
	a := newAttacked(t)
	ctx := t.Context()
	token := func(x join.Token) string {
		t.Helper()
		made, err := join.Create(ctx, a.admin, x)
		a.must(err)
		return made.String()
	}
	group, hour := []string{join.DefaultGroup}, time.Now().Add(time.Hour)
	good := token(join.Token{Groups: group, Expires: hour})
	revoked := token(join.Token{Groups: group, Expires: hour})
	harness.Succeeds(t, "the token to count", func() error { return asks(t, a.bearer(revoked)) })
	_, err := join.Delete(ctx, a.admin, revoked)
	a.must(err)
	id, _, _ := strings.Cut(good, ".")
	for name, x := range map[string]string{
		"an unknown token":                 "zzzzzz.0123456789abcdef",
		"another secret":                   id + ".0123456789abcdef",
		"an expired token":                 token(join.Token{Groups: group, Expires: time.Now().Add(-time.Minute)}),
		"a token that only signs":          token(join.Token{Groups: group, Expires: hour, Usages: []string{"signing"}}),
		"the token's ID alone":             id,
		"a Secret that is no token's":      "kube-system:bootstrap-token-" + id,
		"a token with another one's words": good + " ",
	} {
		if err := asks(t, a.bearer(strings.TrimSuffix(x, " ")+strings.Repeat("x", strings.Count(x, " ")))); !apierrors.IsUnauthorized(err) || err.Error() != "Unauthorized" {
			t.Errorf("%s: %v", name, err)
		}
	}
	harness.Succeeds(t, "the end of the revoked token", func() error {
		if err := asks(t, a.bearer(revoked)); !apierrors.IsUnauthorized(err) {
			return errors.New("it is taken")
		}
		return nil
	})

	csr := func(name, signer string, subject pkix.Name, dns ...string) *certificatesv1.CertificateSigningRequest {
		r, _ := signingRequest(t, name, signer, subject, dns, clientUsages...)
		return r
	}
	kubelet := certificatesv1.KubeAPIServerClientKubeletSignerName
	node := func(name string) pkix.Name {
		return pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}
	}
	ask := func(client kubernetes.Interface, r *certificatesv1.CertificateSigningRequest) error {
		_, err := client.CertificatesV1().CertificateSigningRequests().Create(ctx, r, metav1.CreateOptions{})
		return err
	}
	groupless := token(join.Token{Expires: hour})
	groupID, _, _ := strings.Cut(groupless, ".")
	a.refused("a token without the group of those who join", ask(a.bearer(groupless), csr("groupless", kubelet, node("n3"))),
		`certificatesigningrequests.certificates.k8s.io is forbidden: User "system:bootstrap:`+groupID+`" cannot create resource "certificatesigningrequests" in API group "certificates.k8s.io" at the cluster scope`)

	bootstrap := a.bearer(good)
	a.refused("the name of a node that is at work", ask(bootstrap, csr("taken", kubelet, node("n2"))),
		`certificatesigningrequests.certificates.k8s.io "taken" is forbidden: a Node with name "n2" and status "Ready" already exists in the cluster. You must delete the existing Node or change the name of this new joining Node`)
	a.refused("a certificate of the administrators", ask(bootstrap, csr("masters", certificatesv1.KubeAPIServerClientSignerName, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}})),
		`certificatesigningrequests.certificates.k8s.io "masters" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed`)
	_, err = bootstrap.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{})
	a.refused("other tokens", err, `secrets is forbidden: User "system:bootstrap:`+id+`" cannot list resource "secrets" in API group "" in the namespace "kube-system"`)

	// What is signed for kubelets only is refused by the signer, even where somebody
	// approves of it.
	for _, x := range []struct {
		r    *certificatesv1.CertificateSigningRequest
		want string
	}{
		{csr("other-group", kubelet, pkix.Name{CommonName: "system:node:n3", Organization: []string{"system:masters"}}), "subject organization is not system:nodes"},
		{csr("more-groups", kubelet, pkix.Name{CommonName: "system:node:n3", Organization: []string{"system:nodes", "system:masters"}}), "subject organization is not system:nodes"},
		{csr("other-user", kubelet, pkix.Name{CommonName: "admin", Organization: []string{"system:nodes"}}), "subject common name does not begin with system:node:"},
		{csr("names", kubelet, node("n3"), "kubernetes.default.svc"), "DNS subjectAltNames are not allowed"},
	} {
		a.must(ask(bootstrap, x.r))
		got := a.answer(x.r.Name, true)
		if c := got.Status.Conditions[len(got.Status.Conditions)-1]; c.Type != certificatesv1.CertificateFailed || c.Message != x.want {
			t.Errorf("%s: %+v, want %q", x.r.Name, got.Status, x.want)
		}
	}

	// A good request is answered. Those before it were not approved of by themselves, and
	// a client certificate of another kind is not, either.
	a.must(ask(bootstrap, csr("jane", certificatesv1.KubeAPIServerClientSignerName, pkix.Name{CommonName: "jane"})))
	a.must(ask(bootstrap, csr("good", kubelet, node("n3"))))
	answered := a.answer("good", false)
	if len(answered.Status.Certificate) == 0 {
		t.Errorf("%+v", answered.Status)
	}
	if jane, err := a.admin.CertificatesV1().CertificateSigningRequests().Get(ctx, "jane", metav1.GetOptions{}); err != nil || len(jane.Status.Conditions) > 0 {
		t.Errorf("%+v %v", jane.Status, err)
	}

	// A request that was answered is of no use to another: it is whose who makes it, and
	// without an answer.
	replay := answered.DeepCopy()
	replay.ObjectMeta = metav1.ObjectMeta{Name: "replay"}
	replay.Spec.Username, replay.Spec.Groups, replay.Spec.UID = "system:node:n3", []string{"system:nodes"}, "1"
	a.must(ask(a.node("n3"), replay.DeepCopy()))
	replay.Name = "replay-by-another"
	a.refused("another node's request again", ask(a.node("n1"), replay),
		`certificatesigningrequests.certificates.k8s.io "replay-by-another" is forbidden: can only create a node CSR with CN=system:node:n1`)
	replay.Name = "replay-by-token"
	made, err := bootstrap.CertificatesV1().CertificateSigningRequests().Create(ctx, replay, metav1.CreateOptions{})
	a.must(err)
	if made.Spec.Username != "system:bootstrap:"+id || len(made.Status.Certificate) > 0 || len(made.Status.Conditions) > 0 {
		t.Errorf("%+v %+v", made.Spec, made.Status)
	}
	replay.Name = "good"
	if err := ask(bootstrap, replay); !apierrors.IsAlreadyExists(err) {
		t.Errorf("the same name again: %v", err)
	}
	made.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: v1.ConditionTrue, Reason: "Mine"}}
	_, err = bootstrap.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, made.Name, made, metav1.UpdateOptions{})
	a.refused("its own approval", err, `certificatesigningrequests.certificates.k8s.io "replay-by-token" is forbidden: User "system:bootstrap:`+id+`" cannot update resource "certificatesigningrequests/approval" in API group "certificates.k8s.io" at the cluster scope`)
}

// asks makes a request that every user may make.
func asks(t *testing.T, client kubernetes.Interface) error {
	_, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	return err
}

// answer returns a request that has been signed, or refused by the signer, after it
// was approved, here where approve is set.
func (a *attacked) answer(name string, approve bool) *certificatesv1.CertificateSigningRequest {
	a.Helper()
	requests := a.admin.CertificatesV1().CertificateSigningRequests()
	if approve {
		r, err := requests.Get(a.Context(), name, metav1.GetOptions{})
		a.must(err)
		if len(r.Status.Conditions) > 0 {
			a.Errorf("%s was approved by itself: %+v", name, r.Status)
		}
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved, Status: v1.ConditionTrue, Reason: "Test"})
		_, err = requests.UpdateApproval(a.Context(), name, r, metav1.UpdateOptions{})
		a.must(err)
	}
	var got *certificatesv1.CertificateSigningRequest
	harness.Eventually(a, "an answer to "+name, func() bool {
		var err error
		got, err = requests.Get(a.Context(), name, metav1.GetOptions{})
		a.must(err)
		return len(got.Status.Certificate) > 0 || len(got.Status.Conditions) > 1
	})
	return got
}

// TestNodeAttacks has a node reach for what is not its own, and checks upstream's
// answers.
func TestNodeAttacks(t *testing.T) {
	a := newAttacked(t)
	ctx, core := t.Context(), a.admin.CoreV1()
	const ns = metav1.NamespaceDefault
	harness.Succeeds(t, "the namespace's account", func() error {
		_, err := core.ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	for _, name := range []string{"mine", "theirs", "nobodys"} {
		_, err := core.Secrets(ns).Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		a.must(err)
		_, err = core.ConfigMaps(ns).Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		a.must(err)
		_, err = core.ServiceAccounts(ns).Create(ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		a.must(err)
	}
	pods := map[string]*v1.Pod{}
	for name, on := range map[string]string{"mine": "n1", "theirs": "n2"} {
		p, err := core.Pods(ns).Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{NodeName: on, ServiceAccountName: name,
			Containers: []v1.Container{{Name: "c", Image: "i", EnvFrom: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: name}}}}}}}}, metav1.CreateOptions{})
		a.must(err)
		pods[name] = p
	}
	_, err := a.admin.CoordinationV1().Leases(v1.NamespaceNodeLease).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}, metav1.CreateOptions{})
	a.must(err)
	_, err = a.admin.StorageV1().CSINodes().Create(ctx, &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}, metav1.CreateOptions{})
	a.must(err)
	own, err := core.Nodes().Get(ctx, "n1", metav1.GetOptions{})
	a.must(err)
	other, err := core.Nodes().Get(ctx, "n2", metav1.GetOptions{})
	a.must(err)
	serving, _ := signingRequest(t, "serving", certificatesv1.KubeletServingSignerName, pkix.Name{CommonName: "system:node:n2", Organization: []string{"system:nodes"}}, []string{"n2"},
		certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth)

	n1 := a.node("n1")
	k := n1.CoreV1()
	mirror := func(change func(*v1.Pod)) *v1.Pod {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{v1.MirrorPodAnnotationKey: "x"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: own.UID, Controller: ptr.To(true)}}},
			Spec: v1.PodSpec{NodeName: "n1", Containers: []v1.Container{{Name: "c", Image: "i"}}}}
		change(p)
		return p
	}
	pod := func(change func(*v1.Pod)) func() error {
		return func() error {
			_, err := k.Pods(ns).Create(ctx, mirror(change), metav1.CreateOptions{})
			return err
		}
	}
	token := func(account string, to *v1.Pod) func() error {
		return func() error {
			r := &authenticationv1.TokenRequest{}
			if to != nil {
				r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: to.Name, UID: to.UID}
			}
			_, err := k.ServiceAccounts(ns).CreateToken(ctx, account, r, metav1.CreateOptions{})
			return err
		}
	}
	patch := func(node, body string, sub ...string) func() error {
		return func() error {
			_, err := k.Nodes().Patch(ctx, node, types.MergePatchType, []byte(body), metav1.PatchOptions{}, sub...)
			return err
		}
	}
	drop := func(_ any, err error) error { return err }
	cannot := func(object, verb, resource, group, where, why string) string {
		out := object + ` is forbidden: User "system:node:n1" cannot ` + verb + ` resource "` + resource + `" in API group "` + group + `" ` + where
		if why != "" {
			out += ": node: " + why // the authorizer's name
		}
		return out
	}
	const here, everywhere, unrelated = `in the namespace "default"`, "at the cluster scope", "no relationship found between node 'n1' and this object"
	for _, x := range []struct {
		name string
		do   func() error
		want string
	}{
		{"its pod's secret", func() error { return drop(k.Secrets(ns).Get(ctx, "mine", metav1.GetOptions{})) }, ""},
		{"another node's pod's secret", func() error { return drop(k.Secrets(ns).Get(ctx, "theirs", metav1.GetOptions{})) }, cannot(`secrets "theirs"`, "get", "secrets", "", here, unrelated)},
		{"nobody's secret", func() error { return drop(k.Secrets(ns).Get(ctx, "nobodys", metav1.GetOptions{})) }, cannot(`secrets "nobodys"`, "get", "secrets", "", here, unrelated)},
		{"a secret by its name in a list", func() error {
			return drop(k.Secrets(ns).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=theirs"}))
		}, cannot(`secrets "theirs"`, "list", "secrets", "", here, unrelated)},
		{"all secrets of a namespace", func() error { return drop(k.Secrets(ns).List(ctx, metav1.ListOptions{})) }, cannot("secrets", "list", "secrets", "", here, "No Object name found")},
		{"all secrets", func() error { return drop(k.Secrets("").List(ctx, metav1.ListOptions{})) }, cannot("secrets", "list", "secrets", "", everywhere, "can only read namespaced object of this type")},
		{"the end of its pod's secret", func() error { return k.Secrets(ns).Delete(ctx, "mine", metav1.DeleteOptions{}) }, cannot(`secrets "mine"`, "delete", "secrets", "", here, "can only read resources of this type")},
		{"another pod's config map", func() error { return drop(k.ConfigMaps(ns).Get(ctx, "theirs", metav1.GetOptions{})) }, cannot(`configmaps "theirs"`, "get", "configmaps", "", here, unrelated)},

		{"another Node", func() error { return drop(k.Nodes().Get(ctx, "n2", metav1.GetOptions{})) }, cannot(`nodes "n2"`, "get", "nodes", "", everywhere, "node 'n1' cannot read 'n2', only its own Node object")},
		{"all Nodes", func() error { return drop(k.Nodes().List(ctx, metav1.ListOptions{})) }, cannot("nodes", "list", "nodes", "", everywhere, "node 'n1' cannot read all nodes, only its own Node object")},
		{"another Node's status", func() error { return drop(k.Nodes().UpdateStatus(ctx, other.DeepCopy(), metav1.UpdateOptions{})) }, `nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"`},
		{"another Node's status, made from an old version", func() error {
			stale := other.DeepCopy()
			stale.ResourceVersion = "1"
			return drop(k.Nodes().UpdateStatus(ctx, stale, metav1.UpdateOptions{}))
		}, `nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"`},
		{"another Node's status by a patch", patch("n2", `{"status":{"addresses":[]}}`, "status"), `nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"`},
		{"another Node's labels", patch("n2", `{"metadata":{"labels":{"a":"b"}}}`), `nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"`},
		{"a label that is for isolation", patch("n1", `{"metadata":{"labels":{"node-restriction.kubernetes.io/a":"b"}}}`), `nodes "n1" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/a`},
		{"such a label by the status", patch("n1", `{"metadata":{"labels":{"x.node-restriction.kubernetes.io/a":"b"}}}`, "status"), `nodes "n1" is forbidden: is not allowed to modify labels: x.node-restriction.kubernetes.io/a`},
		{"a role", patch("n1", `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`), `nodes "n1" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/control-plane`},
		{"its taints", patch("n1", `{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}`), `nodes "n1" is forbidden: node "n1" is not allowed to modify taints`},
		{"its own end", func() error { return k.Nodes().Delete(ctx, "n1", metav1.DeleteOptions{}) }, cannot(`nodes "n1"`, "delete", "nodes", "", everywhere, "")},
		{"another node's server", func() error { return k.RESTClient().Get().AbsPath("/api/v1/nodes/n2/proxy/pods").Do(ctx).Error() }, cannot(`nodes "n2"`, "get", "nodes/proxy", "", everywhere, "")},

		{"all pods", func() error { return drop(k.Pods("").List(ctx, metav1.ListOptions{})) }, cannot("pods", "list", "pods", "", everywhere, "can only list/watch pods with spec.nodeName field selector")},
		{"another node's pods", func() error { return drop(k.Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n2"})) }, cannot("pods", "list", "pods", "", everywhere, "can only list/watch pods with spec.nodeName field selector")},
		{"its pods", func() error { return drop(k.Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n1"})) }, ""},
		{"another node's pod", func() error { return drop(k.Pods(ns).Get(ctx, "theirs", metav1.GetOptions{})) }, cannot(`pods "theirs"`, "get", "pods", "", here, unrelated)},
		{"another node's pod's status", func() error {
			return drop(k.Pods(ns).UpdateStatus(ctx, pods["theirs"].DeepCopy(), metav1.UpdateOptions{}))
		}, `pods "theirs" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself`},
		{"another node's pod's end", func() error { return k.Pods(ns).Delete(ctx, "theirs", metav1.DeleteOptions{}) }, `pods "theirs" is forbidden: node "n1" can only delete pods with spec.nodeName set to itself`},
		{"another node's pod's eviction", func() error {
			return k.Pods(ns).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "theirs", Namespace: ns}})
		}, `pods "theirs" is forbidden: node n1 can only evict pods with spec.nodeName set to itself`},
		{"a binding", func() error {
			return k.Pods(ns).Bind(ctx, &v1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "theirs", Namespace: ns}, Target: v1.ObjectReference{Kind: "Node", Name: "n1"}}, metav1.CreateOptions{})
		}, cannot(`pods "theirs"`, "create", "pods/binding", "", here, "")},
		{"a command in another node's pod", func() error {
			return k.RESTClient().Post().AbsPath("/api/v1/namespaces/default/pods/theirs/exec").Param("command", "x").Do(ctx).Error()
		}, cannot(`pods "theirs"`, "create", "pods/exec", "", here, "")},

		{"a pod", pod(func(p *v1.Pod) { p.Annotations = nil }), `pods "p" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods`},
		{"a mirror pod on another node", pod(func(p *v1.Pod) { p.Spec.NodeName = "n2" }), `pods "p" is forbidden: node "n1" can only create pods with spec.nodeName set to itself`},
		{"a mirror pod without an owner", pod(func(p *v1.Pod) { p.OwnerReferences = nil }), `pods "p" is forbidden: node "n1" can only create pods with an owner reference set to itself`},
		{"a mirror pod with a secret", pod(func(p *v1.Pod) {
			p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "theirs"}}}}
		}), `pods "p" is forbidden: node "n1" can not create pods that reference secrets`},
		{"a mirror pod with a secret for its image", pod(func(p *v1.Pod) { p.Spec.ImagePullSecrets = []v1.LocalObjectReference{{Name: "theirs"}} }), `pods "p" is forbidden: node "n1" can not create pods that reference secrets`},
		{"a mirror pod with a secret in a projection", pod(func(p *v1.Pod) {
			p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{{Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: "theirs"}}}}}}}}
		}), `pods "p" is forbidden: node "n1" can not create pods that reference secrets`},
		{"a mirror pod with a config map", pod(func(p *v1.Pod) {
			p.Spec.Containers[0].EnvFrom = []v1.EnvFromSource{{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "theirs"}}}}
		}), `pods "p" is forbidden: node "n1" can not create pods that reference configmaps`},
		{"a mirror pod with an account", pod(func(p *v1.Pod) { p.Spec.ServiceAccountName = "theirs" }), `pods "p" is forbidden: node "n1" can not create pods that reference a service account`},
		{"a mirror pod", pod(func(*v1.Pod) {}), ""},

		{"its pod's token", token("mine", pods["mine"]), ""},
		{"a token of an account without a pod here", token("nobodys", pods["mine"]), cannot(`serviceaccounts "nobodys"`, "create", "serviceaccounts/token", "", here, unrelated)},
		{"another node's pod's token", token("theirs", pods["theirs"]), cannot(`serviceaccounts "theirs"`, "create", "serviceaccounts/token", "", here, unrelated)},
		{"a token of no pod", token("mine", nil), `serviceaccounts "mine" is forbidden: node requested token not bound to a pod`},
		{"a token for another node's pod", token("mine", pods["theirs"]), `serviceaccounts "mine" is forbidden: node requested token bound to a pod scheduled on a different node`},

		{"another node's lease", func() error {
			return n1.CoordinationV1().Leases(v1.NamespaceNodeLease).Delete(ctx, "n2", metav1.DeleteOptions{})
		}, cannot(`leases.coordination.k8s.io "n2"`, "delete", "leases", "coordination.k8s.io", `in the namespace "kube-node-lease"`, "can only access node lease with the same name as the requesting node")},
		{"a lease of another name", func() error {
			return drop(n1.CoordinationV1().Leases(v1.NamespaceNodeLease).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n3"}}, metav1.CreateOptions{}))
		}, `leases.coordination.k8s.io "n3" is forbidden: can only access node lease with the same name as the requesting node`},
		{"a controller's lease", func() error {
			return drop(n1.CoordinationV1().Leases("kube-system").Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{}))
		}, cannot("leases.coordination.k8s.io", "create", "leases", "coordination.k8s.io", `in the namespace "kube-system"`, `can only access leases in the "kube-node-lease" system namespace`)},
		{"another CSINode", func() error { return drop(n1.StorageV1().CSINodes().Get(ctx, "n2", metav1.GetOptions{})) },
			cannot(`csinodes.storage.k8s.io "n2"`, "get", "csinodes", "storage.k8s.io", everywhere, "can only access CSINode with the same name as the requesting node")},
		{"a CSINode of another name", func() error {
			return drop(n1.StorageV1().CSINodes().Create(ctx, &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n3"}}, metav1.CreateOptions{}))
		}, `csinodes.storage.k8s.io "n3" is forbidden: can only access CSINode with the same name as the requesting node`},

		{"another node's certificate", func() error {
			return drop(n1.CertificatesV1().CertificateSigningRequests().Create(ctx, serving, metav1.CreateOptions{}))
		}, `certificatesigningrequests.certificates.k8s.io "serving" is forbidden: can only create a node CSR with CN=system:node:n1`},
		{"a role for itself", func() error { return drop(n1.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{})) },
			cannot("clusterroles.rbac.authorization.k8s.io", "list", "clusterroles", "rbac.authorization.k8s.io", everywhere, "")},
		{"policies", func() error { return drop(n1.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})) },
			cannot("networkpolicies.networking.k8s.io", "list", "networkpolicies", "networking.k8s.io", everywhere, "")},
	} {
		a.refused(x.name, x.do(), x.want)
	}

	// As the user that it may act as it reads what the network is made of, and no more.
	as := a.actingAs
	network := as("keelson:node-network")
	a.reduced(ns)
	for what, err := range map[string]error{
		"whole pods as the network's user":     drop(network.CoreV1().Pods("").List(ctx, metav1.ListOptions{})),
		"a whole pod as the network's user":    drop(network.CoreV1().Pods(ns).Get(ctx, "theirs", metav1.GetOptions{})),
		"a watch as the network's user":        drop(network.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{})),
		"a secret as the network's user":       drop(network.CoreV1().Secrets(ns).Get(ctx, "mine", metav1.GetOptions{})),
		"a Node as the network's user":         network.CoreV1().Nodes().Delete(ctx, "n2", metav1.DeleteOptions{}),
		"a pod as the network's user":          network.CoreV1().Pods(ns).Delete(ctx, "theirs", metav1.DeleteOptions{}),
		"another node's place":                 drop(as("system:node:n2").CoreV1().Secrets(ns).Get(ctx, "theirs", metav1.GetOptions{})),
		"an administrator's place":             drop(as("system:admin").CoreV1().Secrets(ns).Get(ctx, "theirs", metav1.GetOptions{})),
		"the network's user, as a stranger":    drop(a.stranger("keelson:node-network").CoreV1().Pods("").List(ctx, metav1.ListOptions{})),
		"the network's user, by a token's way": drop(as("system:serviceaccount:kube-system:default").CoreV1().Pods("").List(ctx, metav1.ListOptions{})),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// actingAs returns a client of the node n1 that acts as another user.
func (a *attacked) actingAs(u string) *kubernetes.Clientset {
	a.Helper()
	pair, err := a.cluster.Certs.ClientCert("system:node:n1", []string{"system:nodes"})
	a.must(err)
	cfg := rest.CopyConfig(a.bare)
	cfg.CertData, cfg.KeyData, cfg.Impersonate.UserName = pair.Cert, pair.Key, u
	return kubernetes.NewForConfigOrDie(cfg)
}

// reduced checks that a node reads of another node's pod what its network needs and
// nothing that is secret, in each form and in each way.
func (a *attacked) reduced(ns string) {
	ctx := a.Context()
	const secret = "hunter2"
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "spied", Labels: map[string]string{"app": "spied"}, Annotations: map[string]string{"note": secret}},
		Spec: v1.PodSpec{NodeName: "n2", Containers: []v1.Container{{Name: "c", Image: "i", Args: []string{secret}, Env: []v1.EnvVar{{Name: "PASSWORD", Value: secret}}, Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 80}}}}}}
	made, err := a.admin.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{})
	a.must(err)
	client := a.actingAs("keelson:node-network").CoreV1().RESTClient()
	const list = "/views/network/api/v1/pods"
	get := func(path, accept string) (string, error) {
		b, err := client.Get().RequestURI(path).SetHeader("Accept", accept).Do(ctx).Raw()
		return string(b), err
	}
	bookmarks := list + "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
	for _, path := range []string{list, "/views/network/api/v1/namespaces/" + ns + "/pods", list + "?limit=1000", list + "?fieldSelector=metadata.name%3Dspied", list + "?watch=1&timeoutSeconds=1", bookmarks,
		list + "?resourceVersion=" + made.ResourceVersion + "&resourceVersionMatch=Exact"} {
		for _, accept := range []string{"application/json", "application/vnd.kubernetes.protobuf", "application/yaml", "application/cbor",
			"application/json;as=Table;g=meta.k8s.io;v=v1", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"} {
			if strings.Contains(path, "watch") && accept == "application/yaml" {
				continue // not of watches
			}
			got, err := get(path, accept)
			if err != nil || !strings.Contains(got, "spied") || strings.Contains(got, secret) {
				a.Errorf("%s as %s: %v: %q", path, accept, err, got)
			}
		}
	}
	// Events of changes, of a deletion too.
	watched := make(chan string, 1)
	go func() {
		got, err := get(list+"?watch=1&timeoutSeconds=3&resourceVersion="+made.ResourceVersion, "application/json")
		if err != nil {
			got = err.Error()
		}
		watched <- got
	}()
	_, err = a.admin.CoreV1().Pods(ns).Patch(ctx, "spied", types.StrategicMergePatchType, []byte(`{"metadata": {"labels": {"app": "changed"}}}`), metav1.PatchOptions{})
	a.must(err)
	a.must(a.admin.CoreV1().Pods(ns).Delete(ctx, "spied", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	if got := <-watched; !strings.Contains(got, `"MODIFIED"`) || !strings.Contains(got, `"DELETED"`) || !strings.Contains(got, `"app":"changed"`) || strings.Contains(got, secret) {
		a.Errorf("the watch: %q", got)
	}
	for _, path := range []string{"/views/network/api/v1/namespaces/" + ns + "/pods/theirs", "/views/network/api/v1/namespaces/" + ns + "/pods/theirs/log", "/views/network/api/v1/secrets", "/views/network/api/v1/nodes",
		"/views/status/api/v1/pods", "/views/none/api/v1/pods", "/views/network/metrics", "/views/network/views/network/api/v1/pods", "/at/1h/views/network/api/v1/pods", "/views/network/at/1h/api/v1/pods",
		"/api/v1/namespaces/" + ns + "/pods/theirs/network", "/api/v1/namespaces/" + ns + "/pods/network", "/at/oldest/api/v1/pods", "/views/network/api/v1/watch/secrets"} {
		if got, err := get(path, "application/json"); err == nil {
			a.Errorf("%s: %q", path, got)
		}
	}
	for _, path := range []string{list, "/views/network/api/v1/namespaces/" + ns + "/pods", "/views/network/api/v1/namespaces/" + ns + "/pods/theirs"} {
		if err := client.Delete().RequestURI(path).Do(ctx).Error(); err == nil {
			a.Errorf("%s is deleted", path)
		}
	}
	// Nor does an administrator write by a view.
	if err := a.admin.CoreV1().RESTClient().Delete().RequestURI("/views/network/api/v1/namespaces/" + ns + "/pods").Do(ctx).Error(); err == nil {
		a.Error("pods are deleted by a view")
	}
}

// stranger returns a client of a user without rights that acts as another.
func (a *attacked) stranger(as string) *kubernetes.Clientset {
	a.Helper()
	pair, err := a.cluster.Certs.ClientCert("joe", nil)
	a.must(err)
	cfg := rest.CopyConfig(a.bare)
	cfg.CertData, cfg.KeyData, cfg.Impersonate.UserName = pair.Cert, pair.Key, as
	return kubernetes.NewForConfigOrDie(cfg)
}
