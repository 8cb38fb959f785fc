package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api/signername"
)

const (
	legacySigner     = "kubernetes.io/legacy-unknown"
	minExpiration    = 600
	requestBlock     = "CERTIFICATE REQUEST"
	certificateBlock = "CERTIFICATE"
)

var usages = []v1.KeyUsage{
	v1.UsageAny, v1.UsageCertSign, v1.UsageClientAuth, v1.UsageCodeSigning, v1.UsageContentCommitment, v1.UsageCRLSign,
	v1.UsageDataEncipherment, v1.UsageDecipherOnly, v1.UsageDigitalSignature, v1.UsageEmailProtection, v1.UsageEncipherOnly,
	v1.UsageIPsecEndSystem, v1.UsageIPsecTunnel, v1.UsageIPsecUser, v1.UsageKeyAgreement, v1.UsageKeyEncipherment,
	v1.UsageMicrosoftSGC, v1.UsageNetscapeSGC, v1.UsageOCSPSigning, v1.UsageServerAuth, v1.UsageSigning, v1.UsageSMIME,
	v1.UsageTimestamping,
}

// validate checks a request; what old (nil for a new one) had wrong already
// is let be.
func validate(c, old *v1.CertificateSigningRequest) field.ErrorList {
	at := field.NewPath("spec")
	var errs field.ErrorList
	if err := checkRequest(c.Spec.Request); err != nil {
		errs = append(errs, field.Invalid(at.Child("request"), c.Spec.Request, fmt.Sprintf("%v", err)))
	}
	if len(c.Spec.Usages) == 0 {
		errs = append(errs, field.Required(at.Child("usages"), "usages must be provided"))
	}
	errs = append(errs, validateUsages(c, old, at)...)
	if (old == nil || old.Spec.SignerName != legacySigner) && c.Spec.SignerName == legacySigner {
		errs = append(errs, field.Invalid(at.Child("signerName"), c.Spec.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, signername.Validate(c.Spec.SignerName, at.Child("signerName"))...)
	}
	if s := c.Spec.ExpirationSeconds; s != nil && *s < minExpiration {
		errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *s, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	errs = append(errs, validateConditions(c, old, field.NewPath("status", "conditions"))...)
	if len(c.Status.Certificate) > 0 && (old == nil || !bytes.Equal(c.Status.Certificate, old.Status.Certificate)) {
		if err := checkCertificate(c.Status.Certificate); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("status", "certificate"), "<certificate data>", err.Error()))
		}
	}
	return errs
}

// checkRequest checks that text is a PKCS#10 request in PEM, signed with the
// key that it is for.
func checkRequest(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != requestBlock {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	return request.CheckSignature()
}

func validateUsages(c, old *v1.CertificateSigningRequest, fldPath *field.Path) (errs field.ErrorList) {
	var was []v1.KeyUsage
	if old != nil {
		was = old.Spec.Usages
	}
	unknown := func(u v1.KeyUsage) bool { return !slices.Contains(usages, u) }
	mayBeUnknown, mayRepeat := slices.ContainsFunc(was, unknown), repeats(was)
	seen := sets.New[v1.KeyUsage]()
	for i, u := range c.Spec.Usages {
		at := fldPath.Child("usages").Index(i)
		if !mayBeUnknown && unknown(u) {
			errs = append(errs, field.NotSupported(at, u, usages))
		}
		if !mayRepeat && seen.Has(u) {
			errs = append(errs, field.Duplicate(at, u))
		}
		seen.Insert(u)
	}
	return errs
}

// repeats reports whether something is in a list twice.
func repeats[T comparable](list []T) bool { return sets.New(list...).Len() < len(list) }

func types(c *v1.CertificateSigningRequest) (out []v1.RequestConditionType) {
	if c == nil {
		return nil
	}
	for _, n := range c.Status.Conditions {
		out = append(out, n.Type)
	}
	return out
}

func validateConditions(c, old *v1.CertificateSigningRequest, fldPath *field.Path) field.ErrorList {
	was := types(old)
	mayLackType, mayRepeat := slices.Contains(was, ""), repeats(was)
	var errs field.ErrorList
	seen := sets.New[v1.RequestConditionType]()
	for i, n := range c.Status.Conditions {
		at := fldPath.Index(i)
		if n.Type == "" && !mayLackType {
			errs = append(errs, field.Required(at.Child("type"), ""))
		}
		if seen.Has(n.Type) && !mayRepeat {
			errs = append(errs, field.Duplicate(at.Child("type"), n.Type))
		}
		seen.Insert(n.Type)
		allowed := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
		switch n.Type {
		case v1.CertificateApproved, v1.CertificateDenied, v1.CertificateFailed:
			allowed = []corev1.ConditionStatus{corev1.ConditionTrue}
		}
		switch {
		case n.Status == "":
			errs = append(errs, field.Required(at.Child("status"), ""))
		case !slices.Contains(allowed, n.Status):
			errs = append(errs, field.NotSupported(at.Child("status"), n.Status, allowed))
		}
	}
	return errs
}

func checkCertificate(text []byte) error {
	found := false
	for rest := text; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != certificateBlock {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) != 0 {
			return errors.New("no PEM block headers are permitted")
		}
		list, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
		found = true
	}
	if !found {
		return errors.New("must contain one or more CERTIFICATE PEM blocks")
	}
	return nil
}

// rules say what an update of the object or of a subresource may change.
type rules struct {
	setCertificate bool
	approve        bool
	conditions     bool
}

var (
	mainRules     = rules{}
	statusRules   = rules{setCertificate: true, conditions: true}
	approvalRules = rules{approve: true, conditions: true}
)

func validateUpdate(c, old *v1.CertificateSigningRequest, may rules) field.ErrorList {
	errs := validate(c, old)
	conditions := field.NewPath("status", "conditions")
	decisive := []v1.RequestConditionType{v1.CertificateApproved, v1.CertificateDenied, v1.CertificateFailed}
	for _, t := range decisive {
		is, was := conditionsOf(c, t), conditionsOf(old, t)
		switch {
		case len(is) < len(was):
			errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not remove a condition of type %q", t)))
		case len(is) > len(was):
			if t != v1.CertificateFailed && !may.approve || t == v1.CertificateFailed && !may.conditions {
				errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not add a condition of type %q", t)))
			}
		case !may.conditions && !equality.Semantic.DeepEqual(is, was):
			errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not modify a condition of type %q", t)))
		}
	}
	if !bytes.Equal(c.Status.Certificate, old.Status.Certificate) {
		at := field.NewPath("status", "certificate")
		switch {
		case !may.setCertificate:
			errs = append(errs, field.Forbidden(at, "updates may not set certificate content"))
		case len(old.Status.Certificate) > 0:
			errs = append(errs, field.Forbidden(at, "updates may not modify existing certificate content"))
		}
	}
	return errs
}

func conditionsOf(c *v1.CertificateSigningRequest, t v1.RequestConditionType) []v1.CertificateSigningRequestCondition {
	var list []v1.CertificateSigningRequestCondition
	for _, i := range indexes(c, t) {
		list = append(list, c.Status.Conditions[i])
	}
	return list
}
