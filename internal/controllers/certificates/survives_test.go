package certificates

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
	"time"

	v1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that each request of a node's is approved once and signed in the
// end, one that no signer takes told so, old ones gone, and the authorities published.
func TestSurvives(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request := func(name string, dns ...string) *v1.CertificateSigningRequest {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: nodePrefix + name, Organization: []string{nodesGroup}}, DNSNames: dns}, key)
		if err != nil {
			t.Fatal(err)
		}
		return &v1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.CertificateSigningRequestSpec{
			Username: nodePrefix + name, SignerName: v1.KubeAPIServerClientKubeletSignerName, Usages: []v1.KeyUsage{v1.UsageDigitalSignature, v1.UsageClientAuth},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}}
	}
	denied := request("denied")
	denied.Status.Conditions = []v1.CertificateSigningRequestCondition{{Type: v1.CertificateDenied, LastUpdateTime: metav1.NewTime(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))}}
	wrong := request("wrong", "example.com")
	wrong.Status.Conditions = []v1.CertificateSigningRequestCondition{{Type: v1.CertificateApproved}}
	bundle := func(name, text string) *v1.ClusterTrustBundle {
		return &v1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ClusterTrustBundleSpec{SignerName: servingSigner, TrustBundle: text}}
	}
	controllertest.Trial{
		Seeds: 150, Controllers: []controllertest.Constructor{NewApprover, NewServingApprover, NewSigner, NewCleaner, NewPodRequestCleaner, NewTrustPublisher},
		Context: func(c *controllers.Context) {
			c.RootCA = []byte("pem")
			c.Sign = func(t *x509.Certificate, _ any) ([]byte, error) { return []byte(t.Subject.CommonName), nil }
		},
		Rest:  2 * time.Hour,
		World: []controllertest.Object{request("a"), denied, bundle("old", "old"), &v1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r"}}},
		Actions: []controllertest.Action{
			controllertest.Creates(request("b"), wrong),
			controllertest.Then(controllertest.Removes[*v1.CertificateSigningRequest]("", "a"), controllertest.Creates(request("a"))),
			controllertest.Edits("", bundleName([]byte("pem")), func(b *v1.ClusterTrustBundle) { b.Spec.TrustBundle = "forged" }),
		},
		End: controllertest.Facts(
			controllertest.Are("", func(r *v1.CertificateSigningRequest) string {
				var conditions []string
				for _, c := range r.Status.Conditions {
					conditions = append(conditions, string(c.Type))
				}
				return fmt.Sprintf("%s %s %s", r.Name, strings.Join(conditions, " "), r.Status.Certificate)
			}, "a Approved system:node:a", "b Approved system:node:b", "wrong Approved Failed "),
			controllertest.Are("ns", controllertest.Name[*v1.PodCertificateRequest]),
			controllertest.Are("", func(b *v1.ClusterTrustBundle) string { return b.Name + " " + b.Spec.TrustBundle }, bundleName([]byte("pem"))+" pem"),
		),
	}.Survives(t)
}
