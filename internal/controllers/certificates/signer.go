package certificates

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// least is how long a certificate holds however short a time is asked for.
	least = 10 * time.Minute
	// backdate lets clocks be a little wrong.
	backdate = 5 * time.Minute
	// short is the life from which on backdating shortens it.
	short = 8 * time.Hour
)

// signers are the names that are signed for, with what their requests must be.
var signers = map[string]func(*x509.CertificateRequest, *v1.CertificateSigningRequest) error{
	v1.KubeAPIServerClientSignerName: func(_ *x509.CertificateRequest, csr *v1.CertificateSigningRequest) error {
		if !usages(csr, []v1.KeyUsage{v1.UsageClientAuth}, v1.UsageDigitalSignature, v1.UsageKeyEncipherment) {
			return errors.New("invalid usages for client certificate: [client auth], with digital signature and key encipherment, are allowed")
		}
		return nil
	},
	v1.KubeAPIServerClientKubeletSignerName: kubeletClient,
	v1.KubeletServingSignerName:             kubeletServing,
	"kubernetes.io/legacy-unknown":          func(*x509.CertificateRequest, *v1.CertificateSigningRequest) error { return nil },
}

// NewSigner makes the signing controller; it is nil where nothing signs.
func NewSigner(c controllers.Context) (reconcile.Run, error) {
	if c.Sign == nil {
		return nil, nil
	}
	client := c.Client().CertificatesV1().CertificateSigningRequests()
	return each(c, "csrsigning", func(ctx context.Context, csr *v1.CertificateSigningRequest) error {
		allowed := signers[csr.Spec.SignerName]
		if allowed == nil || len(csr.Status.Certificate) > 0 || !has(csr, v1.CertificateApproved) || has(csr, v1.CertificateDenied) || has(csr, v1.CertificateFailed) {
			return nil
		}
		next := csr.DeepCopy()
		r, err := parse(csr)
		if err == nil {
			if err = allowed(r, csr); err == nil {
				err = r.CheckSignature()
			}
		}
		if err != nil {
			next.Status.Conditions = append(next.Status.Conditions, v1.CertificateSigningRequestCondition{
				Type: v1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: err.Error()})
		} else if next.Status.Certificate, err = c.Sign(template(r, csr, c.Clock.Now(), c.Tuned().ClusterSigningDuration), r.PublicKey); err != nil {
			return fmt.Errorf("error auto signing csr: %w", err)
		}
		_, err = client.UpdateStatus(ctx, next, metav1.UpdateOptions{})
		return err
	})
}

// template returns the certificate that is asked for, which holds for life at most.
func template(r *x509.CertificateRequest, csr *v1.CertificateSigningRequest, now time.Time, life time.Duration) *x509.Certificate {
	holds := life
	if s := csr.Spec.ExpirationSeconds; s != nil {
		holds = min(life, max(least, time.Duration(*s)*time.Second))
	}
	t := &x509.Certificate{Subject: r.Subject, DNSNames: r.DNSNames, IPAddresses: r.IPAddresses, EmailAddresses: r.EmailAddresses, URIs: r.URIs,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(holds), BasicConstraintsValid: true}
	if holds >= short {
		t.NotAfter = t.NotAfter.Add(-backdate)
	}
	for _, u := range csr.Spec.Usages {
		t.KeyUsage |= keyUsages[u]
		if x, ok := extendedUsages[u]; ok {
			t.ExtKeyUsage = append(t.ExtKeyUsage, x)
		}
	}
	return t
}

var keyUsages = map[v1.KeyUsage]x509.KeyUsage{
	v1.UsageSigning: x509.KeyUsageDigitalSignature, v1.UsageDigitalSignature: x509.KeyUsageDigitalSignature, v1.UsageContentCommitment: x509.KeyUsageContentCommitment,
	v1.UsageKeyEncipherment: x509.KeyUsageKeyEncipherment, v1.UsageKeyAgreement: x509.KeyUsageKeyAgreement, v1.UsageDataEncipherment: x509.KeyUsageDataEncipherment,
	v1.UsageCertSign: x509.KeyUsageCertSign, v1.UsageCRLSign: x509.KeyUsageCRLSign, v1.UsageEncipherOnly: x509.KeyUsageEncipherOnly, v1.UsageDecipherOnly: x509.KeyUsageDecipherOnly,
}

var extendedUsages = map[v1.KeyUsage]x509.ExtKeyUsage{
	v1.UsageAny: x509.ExtKeyUsageAny, v1.UsageServerAuth: x509.ExtKeyUsageServerAuth, v1.UsageClientAuth: x509.ExtKeyUsageClientAuth, v1.UsageCodeSigning: x509.ExtKeyUsageCodeSigning,
	v1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection, v1.UsageSMIME: x509.ExtKeyUsageEmailProtection, v1.UsageIPsecEndSystem: x509.ExtKeyUsageIPSECEndSystem,
	v1.UsageIPsecTunnel: x509.ExtKeyUsageIPSECTunnel, v1.UsageIPsecUser: x509.ExtKeyUsageIPSECUser, v1.UsageTimestamping: x509.ExtKeyUsageTimeStamping,
	v1.UsageOCSPSigning: x509.ExtKeyUsageOCSPSigning, v1.UsageMicrosoftSGC: x509.ExtKeyUsageMicrosoftServerGatedCrypto, v1.UsageNetscapeSGC: x509.ExtKeyUsageNetscapeServerGatedCrypto,
}
