package admission

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/internal/api/signername"
)

// signers asks whether a user may do verb for a signer, by its name or for all
// of its domain.
type signers struct{ authorizer authorizer.Authorizer }

func (s signers) may(ctx context.Context, u user.Info, verb, signer string) bool {
	return slices.ContainsFunc(signername.Granted(signer), func(name string) bool {
		d, _, _ := s.authorizer.Authorize(ctx, authorizer.AttributesRecord{
			User: u, Verb: verb, Name: name, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", ResourceRequest: true})
		return d == authorizer.DecisionAllow
	})
}

func (s signers) check(ctx context.Context, a admission.Attributes, verb, doing, signer string) error {
	if s.may(ctx, a.GetUserInfo(), verb, signer) {
		return nil
	}
	return admission.NewForbidden(a, fmt.Errorf("user not permitted to %s signerName %q", doing, signer))
}

// approve lets only users with the verb "approve" on a signer approve or deny.
func (s signers) approve(ctx context.Context, a admission.Attributes, _ *certificatesv1.CertificateSigningRequest) error {
	csr, ok := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return nil
	}
	return s.check(ctx, a, "approve", "approve requests with", csr.Spec.SignerName)
}

// sign lets only users with the verb "sign" on a signer set a certificate.
func (s signers) sign(ctx context.Context, a admission.Attributes, csr *certificatesv1.CertificateSigningRequest) error {
	old, had := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
	if !had {
		return nil
	}
	if bytes.Equal(old.Status.Certificate, csr.Status.Certificate) && equality.Semantic.DeepEqual(old.Status.Conditions, csr.Status.Conditions) {
		return nil
	}
	return s.check(ctx, a, "sign", "sign requests with", old.Spec.SignerName)
}

// attest lets only users with the verb "attest" on a signer publish its trust.
func (s signers) attest(ctx context.Context, a admission.Attributes, b *certificatesv1.ClusterTrustBundle) error {
	if b.Spec.SignerName == "" {
		return nil
	}
	if old, had := a.GetOldObject().(*certificatesv1.ClusterTrustBundle); had && equality.Semantic.DeepEqual(old.Spec, b.Spec) {
		return nil
	}
	return s.check(ctx, a, "attest", "attest for", b.Spec.SignerName)
}

// restrictSubject refuses requests for a client certificate of system:masters, the
// group that may do everything.
func restrictSubject(_ context.Context, a admission.Attributes, csr *certificatesv1.CertificateSigningRequest) error {
	if csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return admission.NewForbidden(a, errors.New("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"))
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("failed to parse CSR: %w", err))
	}
	if slices.Contains(req.Subject.Organization, user.SystemPrivilegedGroup) {
		return admission.NewForbidden(a, fmt.Errorf("use of %s signer with %s group is not allowed", certificatesv1.KubeAPIServerClientSignerName, user.SystemPrivilegedGroup))
	}
	return nil
}
