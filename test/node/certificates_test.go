package node_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

// certificates checks that a pod has a certificate of a signer, and the signer's
// trust bundle, which is kept up to date.
func (e *env) certificates(t *testing.T) {
	const signer = "example.com/test"
	ctx := t.Context()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	issue := func(c *x509.Certificate, key any) string {
		der, err := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{SerialNumber: big.NewInt(1)}, key, private)
		if err != nil {
			t.Error(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	root := func(serial int64) string {
		return issue(&x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: now, NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}, public)
	}
	bundles := e.client.CertificatesV1().ClusterTrustBundles()
	bundle, err := bundles.Create(ctx, &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "example.com:test:1"},
		Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: root(1)}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := bundles.Delete(context.WithoutCancel(ctx), bundle.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}()
	_, err = e.client.CoreV1().Pods("default").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "certified"}, Spec: v1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](0),
		Containers:                    []v1.Container{{Name: "c", Image: image, VolumeMounts: []v1.VolumeMount{{Name: "v", MountPath: "/v"}}}},
		Volumes: []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
			{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{SignerName: ptr.To(signer), LabelSelector: &metav1.LabelSelector{}, Path: "ca.pem"}},
			{PodCertificate: &v1.PodCertificateProjection{SignerName: signer, KeyType: "ED25519", CredentialBundlePath: "bundle.pem"}},
		}}}}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	requests := e.client.CertificatesV1().PodCertificateRequests("default")
	harness.Eventually(t, "a request for a certificate", func() bool {
		list, err := requests.List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			r := &list.Items[i]
			if r.Spec.PodName != "certified" {
				continue
			}
			stub, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
			if err != nil {
				t.Fatal(err)
			}
			at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(d).Truncate(time.Second)} }
			r.Status = certificatesv1.PodCertificateRequestStatus{NotBefore: at(0), BeginRefreshAt: at(time.Hour), NotAfter: at(2 * time.Hour),
				Conditions:       []metav1.Condition{{Type: "Issued", Status: metav1.ConditionTrue, Reason: "Test", LastTransitionTime: metav1.Now()}},
				CertificateChain: issue(&x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: at(0).Time, NotAfter: at(2 * time.Hour).Time}, stub.PublicKey)}
			if _, err := requests.UpdateStatus(ctx, r, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			return true
		}
		return false
	})
	e.pod("certified", ready)
	if got := e.exec("certified", "c", "", "/bin/demo", "cat", "/v/bundle.pem"); !strings.HasPrefix(got, "-----BEGIN PRIVATE KEY-----") || strings.Count(got, "-----BEGIN CERTIFICATE-----") != 1 {
		t.Errorf("the pod's certificate: %s", got)
	}
	if got := e.exec("certified", "c", "", "/bin/demo", "cat", "/v/ca.pem"); got != bundle.Spec.TrustBundle {
		t.Errorf("the bundle: %s", got)
	}
	bundle.Spec.TrustBundle = root(2)
	if bundle, err = bundles.Update(ctx, bundle, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the bundle's change", func() bool {
		return e.exec("certified", "c", "", "/bin/demo", "cat", "/v/ca.pem") == bundle.Spec.TrustBundle
	})
	if err := e.client.CoreV1().Pods("default").Delete(ctx, "certified", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}
