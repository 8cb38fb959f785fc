package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/cluster-bootstrap/token/jws"

	"keelson.dev/keelson/internal/apiserver/authn"
	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/test/harness"
)

// signingRequest makes a key and a CertificateSigningRequest for it.
func signingRequest(t *testing.T, name, signer string, subject pkix.Name, dns []string, usages ...certificatesv1.KeyUsage) (*certificatesv1.CertificateSigningRequest, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, DNSNames: dns}, key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: signer, Usages: usages,
		ExpirationSeconds: new(int32(3600)),
	}}, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: k})
}

// me returns the name of the user that the API server takes a client for.
func me(t *testing.T, cfg *rest.Config) (string, error) {
	t.Helper()
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return r.Status.UserInfo.Username + " " + strings.Join(r.Status.UserInfo.Groups, ","), nil
}

func TestJoin(t *testing.T) {
	c := boot(t, Options{Options: controlplane.Options{Listen: "127.0.0.1:0", NoDrain: true, Authentication: authn.Selection{Bootstrap: true}}, NoScheduler: true})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	bare := rest.AnonymousClientConfig(cfg)
	admin, ctx := kubernetes.NewForConfigOrDie(cfg), t.Context()
	created := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	bind := func(role, kind, name string) {
		t.Helper()
		_, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{GenerateName: "b-"},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}, Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}}}, metav1.CreateOptions{})
		created(err)
	}
	certificate := func(name string) *certificatesv1.CertificateSigningRequest {
		t.Helper()
		var got *certificatesv1.CertificateSigningRequest
		harness.Eventually(t, "an answer to "+name, func() bool {
			var err error
			got, err = admin.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
			created(err)
			return len(got.Status.Certificate) > 0 || len(got.Status.Conditions) > 0 && got.Status.Conditions[len(got.Status.Conditions)-1].Type == certificatesv1.CertificateFailed
		})
		return got
	}
	with := func(cert, key []byte) *rest.Config {
		r := rest.CopyConfig(bare)
		r.CertData, r.KeyData = cert, key
		return r
	}
	token := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token", StringData: map[string]string{
		"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true"}}
	_, err = admin.CoreV1().Secrets("kube-system").Create(ctx, token, metav1.CreateOptions{})
	created(err)
	joining := rest.CopyConfig(bare)
	joining.BearerToken = "abcdef.0123456789abcdef"
	kubelet := kubernetes.NewForConfigOrDie(joining)

	t.Run("Kubelet", func(t *testing.T) {
		bind("system:node-bootstrapper", "Group", "system:bootstrappers")
		csr, key := signingRequest(t, "n1", certificatesv1.KubeAPIServerClientKubeletSignerName, pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}, nil,
			certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth)
		_, err := kubelet.CertificatesV1().CertificateSigningRequests().Create(ctx, csr, metav1.CreateOptions{})
		created(err)
		// It may ask, and it may have it only once it is allowed to.
		bind("system:certificates.k8s.io:certificatesigningrequests:nodeclient", "Group", "system:bootstrappers")
		got := certificate("n1")
		if c := got.Status.Conditions[0]; c.Type != certificatesv1.CertificateApproved || c.Reason != "AutoApproved" || got.Spec.Username != "system:bootstrap:abcdef" {
			t.Errorf("%+v", got)
		}
		node := with(got.Status.Certificate, key)
		if name, err := me(t, node); name != "system:node:n1 system:nodes,system:authenticated" {
			t.Errorf("%s %v", name, err)
		}
		block, _ := pem.Decode(got.Status.Certificate)
		cert, err := x509.ParseCertificate(block.Bytes)
		created(err)
		if life := cert.NotAfter.Sub(cert.NotBefore); life < time.Hour || life > time.Hour+10*time.Minute {
			t.Errorf("it holds %s", life)
		}
		// A kubelet renews its own.
		bind("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "Group", "system:nodes")
		csr, _ = signingRequest(t, "n1-again", certificatesv1.KubeAPIServerClientKubeletSignerName, pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}, nil,
			certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth)
		_, err = kubernetes.NewForConfigOrDie(node).CertificatesV1().CertificateSigningRequests().Create(ctx, csr, metav1.CreateOptions{})
		created(err)
		if got := certificate("n1-again"); got.Status.Conditions[0].Message != "Auto approving self kubelet client certificate after SubjectAccessReview." {
			t.Errorf("%+v", got.Status)
		}
	})

	approve := func(csr *certificatesv1.CertificateSigningRequest) *certificatesv1.CertificateSigningRequest {
		t.Helper()
		csr, err := admin.CertificatesV1().CertificateSigningRequests().Create(ctx, csr, metav1.CreateOptions{})
		created(err)
		csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved, Status: v1.ConditionTrue, Reason: "Test"})
		_, err = admin.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
		created(err)
		return certificate(csr.Name)
	}
	t.Run("User", func(t *testing.T) {
		csr, key := signingRequest(t, "jane", certificatesv1.KubeAPIServerClientSignerName, pkix.Name{CommonName: "jane", Organization: []string{"team"}}, nil, certificatesv1.UsageClientAuth)
		if name, err := me(t, with(approve(csr).Status.Certificate, key)); name != "jane team,system:authenticated" {
			t.Errorf("%s %v", name, err)
		}
	})
	t.Run("Serving", func(t *testing.T) {
		node := pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}
		csr, _ := signingRequest(t, "serving", certificatesv1.KubeletServingSignerName, node, []string{"n1"}, certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth)
		if len(approve(csr).Status.Certificate) == 0 {
			t.Error("not signed")
		}
		csr, _ = signingRequest(t, "nameless", certificatesv1.KubeletServingSignerName, node, nil, certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth)
		got := approve(csr)
		if c := got.Status.Conditions[len(got.Status.Conditions)-1]; c.Reason != "SignerValidationFailure" || c.Message != "DNS or IP subjectAltName is required" {
			t.Errorf("%+v", got.Status)
		}
	})

	t.Run("ClusterInfo", func(t *testing.T) {
		_, err := admin.CoreV1().ConfigMaps("kube-public").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cluster-info"}, Data: map[string]string{"kubeconfig": "kind: Config"}}, metav1.CreateOptions{})
		created(err)
		signature := func() string {
			cm, err := admin.CoreV1().ConfigMaps("kube-public").Get(ctx, "cluster-info", metav1.GetOptions{})
			created(err)
			return cm.Data["jws-kubeconfig-abcdef"]
		}
		harness.Eventually(t, "the signature", func() bool {
			return jws.DetachedTokenIsValid(signature(), "kind: Config", "abcdef", "0123456789abcdef")
		})
		_, err = admin.CoreV1().Secrets("kube-system").Patch(ctx, token.Name, "application/merge-patch+json", []byte(`{"stringData":{"expiration":"`+time.Now().Add(time.Second).UTC().Format(time.RFC3339)+`"}}`), metav1.PatchOptions{})
		created(err)
		harness.Eventually(t, "the token's end", func() bool {
			_, err := admin.CoreV1().Secrets("kube-system").Get(ctx, token.Name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
		harness.Eventually(t, "the signature's end", func() bool { return signature() == "" })
	})

	t.Run("AccountTokens", func(t *testing.T) {
		_, err := admin.CoreV1().ServiceAccounts("default").Create(ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{})
		created(err)
		_, err = admin.CoreV1().Secrets("default").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "robot", Annotations: map[string]string{v1.ServiceAccountNameKey: "robot"}},
			Type: v1.SecretTypeServiceAccountToken}, metav1.CreateOptions{})
		created(err)
		var s *v1.Secret
		harness.Eventually(t, "the token", func() bool {
			s, err = admin.CoreV1().Secrets("default").Get(ctx, "robot", metav1.GetOptions{})
			return err == nil && len(s.Data["token"]) > 0
		})
		if string(s.Data["namespace"]) != "default" || string(s.Data["ca.crt"]) != string(c.Certs.CAPEM) || s.Annotations[v1.ServiceAccountUIDKey] == "" {
			t.Errorf("%+v", s)
		}
		robot := rest.CopyConfig(bare)
		robot.BearerToken = string(s.Data["token"])
		if name, err := me(t, robot); name != "system:serviceaccount:default:robot system:serviceaccounts,system:serviceaccounts:default,system:authenticated" {
			t.Errorf("%s %v", name, err)
		}
		created(admin.CoreV1().ServiceAccounts("default").Delete(ctx, "robot", metav1.DeleteOptions{}))
		harness.Eventually(t, "the secret's end", func() bool {
			_, err := admin.CoreV1().Secrets("default").Get(ctx, "robot", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
		review, err := admin.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: robot.BearerToken}}, metav1.CreateOptions{})
		if err != nil || review.Status.Authenticated {
			t.Errorf("the token is still good: %+v %v", review, err)
		}
	})

	t.Run("Aggregation", func(t *testing.T) {
		_, err := admin.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "see-fish", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
			Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{"example.com"}, Resources: []string{"fish"}}}}, metav1.CreateOptions{})
		created(err)
		for _, name := range []string{"view", "edit", "admin"} {
			harness.Eventually(t, "fish in "+name, func() bool {
				r, err := admin.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
				created(err)
				for _, rule := range r.Rules {
					if rule.Resources != nil && rule.Resources[0] == "fish" {
						return true
					}
				}
				return false
			})
		}
	})
}
