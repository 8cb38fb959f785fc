package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/inprocess"
)

// TestNodeIdentity checks that a node reads and changes its own objects and
// those of its pods, and nothing else.
func TestNodeIdentity(t *testing.T) {
	c, err := Start(t.Context(), Options{NoScheduler: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	ctx := t.Context()
	admin := c.Client(inprocess.Admin)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	create := metav1.CreateOptions{}
	for _, name := range []string{"used", "other"} {
		_, err := admin.CoreV1().Secrets("default").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, create)
		must(err)
		_, err = admin.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, create)
		must(err)
		_, err = admin.CoreV1().Nodes().Create(ctx, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-" + name}}, create)
		must(err)
		_, err = admin.CoreV1().ServiceAccounts("default").Create(ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, create)
		must(err)
	}
	pods := map[string]*v1.Pod{}
	for _, name := range []string{"used", "other"} {
		p, err := admin.CoreV1().Pods("default").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{
			NodeName: "node-" + name, ServiceAccountName: name,
			Containers: []v1.Container{{Name: "c", Image: "i", EnvFrom: []v1.EnvFromSource{{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: name}}}}}},
			Volumes:    []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: name}}}},
		}}, create)
		must(err)
		pods[name] = p
	}
	node := c.Client(&user.DefaultInfo{Name: "system:node:node-used", Groups: []string{user.NodesGroup, user.AllAuthenticated}})
	get := metav1.GetOptions{}
	token := func(pod *v1.Pod, audiences ...string) error {
		_, err := node.CoreV1().ServiceAccounts("default").CreateToken(ctx, pod.Spec.ServiceAccountName, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences: audiences, BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}}}, create)
		return err
	}
	lease := func(name string) error {
		_, err := node.CoordinationV1().Leases(v1.NamespaceNodeLease).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, create)
		return err
	}
	// label is a patch of one label: controllers write to the Node as well.
	label := func(key string) error {
		_, err := node.CoreV1().Nodes().Patch(ctx, "node-used", types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{%q:"x"}}}`, key), metav1.PatchOptions{})
		return err
	}
	status := func(pod *v1.Pod) error {
		p := pod.DeepCopy()
		p.Status.Message, p.ResourceVersion = "hello", ""
		_, err := node.CoreV1().Pods("default").UpdateStatus(ctx, p, metav1.UpdateOptions{})
		return err
	}
	request := func(name string) error {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: []string{user.NodesGroup}}}, key)
		must(err)
		_, err = node.CertificatesV1().CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-"},
			Spec: certificatesv1.CertificateSigningRequestSpec{Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
				SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}}}, create)
		return err
	}
	err1 := func(_ any, err error) error { return err }
	for _, s := range []struct {
		what string
		err  error
		want string
	}{
		{"its pod's secret", err1(node.CoreV1().Secrets("default").Get(ctx, "used", get)), ""},
		{"another's secret", err1(node.CoreV1().Secrets("default").Get(ctx, "other", get)), "no relationship found between node 'node-used' and this object"},
		{"a list of secrets", err1(node.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{})), "No Object name found"},
		{"a list of one", err1(node.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=used"})), ""},
		{"a new secret", err1(node.CoreV1().Secrets("default").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, create)), "can only read resources of this type"},
		{"its pod's configmap", err1(node.CoreV1().ConfigMaps("default").Get(ctx, "used", get)), ""},
		{"another's configmap", err1(node.CoreV1().ConfigMaps("default").Get(ctx, "other", get)), "no relationship found"},
		{"its pod", err1(node.CoreV1().Pods("default").Get(ctx, "used", get)), ""},
		{"another's pod", err1(node.CoreV1().Pods("default").Get(ctx, "other", get)), "no relationship found"},
		{"all pods", err1(node.CoreV1().Pods("").List(ctx, metav1.ListOptions{})), "can only list/watch pods with spec.nodeName field selector"},
		{"its pods", err1(node.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=node-used"})), ""},
		{"another node", err1(node.CoreV1().Nodes().Get(ctx, "node-other", get)), "node 'node-used' cannot read 'node-other', only its own Node object"},
		{"its pod's token", token(pods["used"]), ""},
		{"its pod's token for another audience", token(pods["used"], "vault"), `audience "vault" not found in pod spec volume`},
		{"another's token", token(pods["other"]), "no relationship found"},
		{"its lease", lease("node-used"), ""},
		{"another's lease", lease("node-other"), "can only access node lease with the same name as the requesting node"},
		{"a label", label("example.com/x"), ""},
		{"a label of the kubelet's", label("node.kubernetes.io/x"), ""},
		{"a restricted label", label("node-restriction.kubernetes.io/x"), "is not allowed to modify labels: node-restriction.kubernetes.io/x"},
		{"a label of Kubernetes'", label("topology.k8s.io/x"), "is not allowed to modify labels: topology.k8s.io/x"},
		{"its pod's status", status(pods["used"]), ""},
		{"another's status", status(pods["other"]), `node "node-used" can only update pod status for pods with spec.nodeName set to itself`},
		{"a pod", err1(node.CoreV1().Pods("default").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}, create)),
			`pod does not have "kubernetes.io/config.mirror" annotation, node "node-used" can only create mirror pods`},
		{"the end of another's pod", node.CoreV1().Pods("default").Delete(ctx, "other", metav1.DeleteOptions{}), `node "node-used" can only delete pods with spec.nodeName set to itself`},
		{"the end of its pod", node.CoreV1().Pods("default").Delete(ctx, "used", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}), ""},
		{"the secret of a pod that has gone", err1(node.CoreV1().Secrets("default").Get(ctx, "used", get)), "no relationship found"},
		{"a certificate", request("system:node:node-used"), ""},
		{"another's certificate", request("system:node:node-other"), "can only create a node CSR with CN=system:node:node-used"},
		{"a deployment", err1(node.AppsV1().Deployments("default").List(ctx, metav1.ListOptions{})), `cannot list resource "deployments"`},
	} {
		switch {
		case s.want == "" && s.err != nil:
			t.Errorf("%s: %v", s.what, s.err)
		case s.want != "" && (s.err == nil || !strings.Contains(s.err.Error(), s.want)):
			t.Errorf("%s: %v, want %s", s.what, s.err, s.want)
		}
	}
	review := func(selector string) bool {
		t.Helper()
		r, err := admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:node:node-other", Groups: []string{user.NodesGroup}, ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Resource: "pods",
				FieldSelector: &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{{Key: "spec.nodeName", Operator: metav1.FieldSelectorOpIn, Values: []string{selector}}}}}}}, create)
		must(err)
		return r.Status.Allowed
	}
	if !review("node-other") || review("node-used") {
		t.Errorf("a review of the list of its pods: %v, of another's: %v", review("node-other"), review("node-used"))
	}
	// Users that are not nodes are not restricted, and a name alone makes no
	// node.
	r, err := admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:node:node-other", ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: "secrets", Namespace: "default", Name: "other"}}}, create)
	if err != nil || r.Status.Allowed {
		t.Errorf("a node by name only: %+v, %v", r.Status, err)
	}
}
