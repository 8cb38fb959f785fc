package admission

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// signers asks whether a user may do verb for a signer, by its name or for all
// of its domain.
type signers struct {
	*admission.Handler
	authorizer authorizer.Authorizer
}

func (s *signers) may(ctx context.Context, u user.Info, verb, signer string) bool {
	allowed := func(name string) bool {
		d, _, _ := s.authorizer.Authorize(ctx, authorizer.AttributesRecord{
			User: u, Verb: verb, Name: name, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", ResourceRequest: true})
		return d == authorizer.DecisionAllow
	}
	domain, _, _ := strings.Cut(signer, "/")
	return allowed(signer) || allowed(domain+"/*")
}

func (s *signers) check(ctx context.Context, a admission.Attributes, verb, doing, signer string) error {
	if s.may(ctx, a.GetUserInfo(), verb, signer) {
		return nil
	}
	return admission.NewForbidden(a, fmt.Errorf("user not permitted to %s signerName %q", doing, signer))
}

// certificateApproval lets only users with the verb "approve" on a signer
// approve or deny.
type certificateApproval struct{ signers }

func newCertificateApproval(e *Environment) *certificateApproval {
	return &certificateApproval{signers{admission.NewHandler(admission.Update), e.Authorizer}}
}

// Validate implements admission.ValidationInterface.
func (c *certificateApproval) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	csr, ok := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
	if !ok || a.GetSubresource() != "approval" {
		return nil
	}
	return c.check(ctx, a, "approve", "approve requests with", csr.Spec.SignerName)
}

// certificateSigning lets only users with the verb "sign" on a signer set a
// certificate.
type certificateSigning struct{ signers }

func newCertificateSigning(e *Environment) *certificateSigning {
	return &certificateSigning{signers{admission.NewHandler(admission.Update), e.Authorizer}}
}

// Validate implements admission.ValidationInterface.
func (c *certificateSigning) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	csr, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	old, had := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
	if !ok || !had || a.GetSubresource() != "status" {
		return nil
	}
	if bytes.Equal(old.Status.Certificate, csr.Status.Certificate) && equality.Semantic.DeepEqual(old.Status.Conditions, csr.Status.Conditions) {
		return nil
	}
	return c.check(ctx, a, "sign", "sign requests with", old.Spec.SignerName)
}

// trustBundleAttest lets only users with the verb "attest" on a signer publish
// its trust.
type trustBundleAttest struct{ signers }

func newTrustBundleAttest(e *Environment) *trustBundleAttest {
	return &trustBundleAttest{signers{admission.NewHandler(admission.Create, admission.Update), e.Authorizer}}
}

// Validate implements admission.ValidationInterface.
func (c *trustBundleAttest) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	b, ok := a.GetObject().(*certificatesv1.ClusterTrustBundle)
	if !ok || b.Spec.SignerName == "" {
		return nil
	}
	if old, had := a.GetOldObject().(*certificatesv1.ClusterTrustBundle); had && equality.Semantic.DeepEqual(old.Spec, b.Spec) {
		return nil
	}
	return c.check(ctx, a, "attest", "attest for", b.Spec.SignerName)
}

// PodCertificateSigning lets only users with the verb "sign" on a signer answer a
// pod's request for a certificate. Upstream checks it in the requests' storage.
type PodCertificateSigning struct{ signers }

// NewPodCertificateSigning makes the check.
func NewPodCertificateSigning(a authorizer.Authorizer) *PodCertificateSigning {
	return &PodCertificateSigning{signers{admission.NewHandler(admission.Update), a}}
}

// Validate implements admission.ValidationInterface.
func (c *PodCertificateSigning) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	r, ok := a.GetObject().(*certificatesv1.PodCertificateRequest)
	old, had := a.GetOldObject().(*certificatesv1.PodCertificateRequest)
	if !ok || !had || equality.Semantic.DeepEqual(old.Status, r.Status) || c.may(ctx, a.GetUserInfo(), "sign", old.Spec.SignerName) {
		return nil
	}
	return apierrors.NewInvalid(a.GetKind().GroupKind(), old.Name, field.ErrorList{field.Forbidden(field.NewPath("spec", "signerName"),
		fmt.Sprintf("User %q is not permitted to \"sign\" for signer %q", a.GetUserInfo().GetName(), old.Spec.SignerName))})
}

// subjectRestriction refuses requests for a client certificate of
// system:masters, the group that may do everything.
type subjectRestriction struct{ *admission.Handler }

func newSubjectRestriction() *subjectRestriction {
	return &subjectRestriction{admission.NewHandler(admission.Create)}
}

// Validate implements admission.ValidationInterface.
func (*subjectRestriction) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	csr, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok || a.GetSubresource() != "" || csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
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
