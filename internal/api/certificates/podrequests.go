package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
	"keelson.dev/keelson/internal/api/signername"
)

// Bounds of a pod's request for a certificate: lives in seconds, sizes in bytes.
const (
	defaultLife    = 24 * 60 * 60
	minLife        = 60 * 60
	maxLife        = 91 * 24 * 60 * 60
	kubernetesLife = 24 * 60 * 60 // of the signers of kubernetes.io
	maxStub        = 10 << 10
	maxChain       = 100 << 10
	maxUID         = 128
	refreshMargin  = 10 * time.Minute
	clockSkew      = 5 * time.Minute
)

func podRequests() *api.Resource {
	spec := v1.PodCertificateRequestSpec{}.SwaggerDoc()
	r := api.Resource{
		Namespaced: true,
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("PodName", spec["podName"]),
			row.String("ServiceAccountName", spec["serviceAccountName"]),
			row.String("NodeName", spec["nodeName"]),
			row.String("SignerName", spec["signerName"]),
			row.String("State", "Is the request Pending, Issued, Denied or Failed?"),
		},
	}
	r.RequireResourceVersion = true
	r.FieldLabels = []string{"spec.signerName", "spec.podName", "spec.nodeName"}
	return row.New[v1.PodCertificateRequestList](v1.SchemeGroupVersion, r, row.Kind[*v1.PodCertificateRequest]{
		Spec:   func(p *v1.PodCertificateRequest) any { return &p.Spec },
		Status: func(p *v1.PodCertificateRequest) any { return &p.Status },
		Default: func(p *v1.PodCertificateRequest) {
			if p.Spec.MaxExpirationSeconds == nil {
				p.Spec.MaxExpirationSeconds = ptr.To[int32](defaultLife)
			}
		},
		StatusOnly:            true,
		PrepareStatusUpdate:   preparePodStatus,
		ValidateStatusRequest: validateSigner,
		Validate:              validatePodRequest,
		ValidateUpdate: func(p, old *v1.PodCertificateRequest) field.ErrorList {
			return apivalidation.ValidateImmutableField(p.Spec, old.Spec, field.NewPath("spec"))
		},
		ValidateStatusUpdate: func(p, old *v1.PodCertificateRequest) field.ErrorList {
			return validatePodStatus(p, old, time.Now())
		},
		Fields: func(p *v1.PodCertificateRequest) fields.Set {
			return fields.Set{"spec.signerName": p.Spec.SignerName, "spec.podName": p.Spec.PodName, "spec.nodeName": string(p.Spec.NodeName)}
		},
		Cells: func(p *v1.PodCertificateRequest, _ time.Time) []any {
			state := "Pending"
			if c := verdict(p); c != "" {
				state = c
			}
			return []any{p.Name, p.Spec.PodName, p.Spec.ServiceAccountName, string(p.Spec.NodeName), p.Spec.SignerName, state}
		},
	})
}

var verdicts = []string{v1.PodCertificateRequestConditionTypeIssued, v1.PodCertificateRequestConditionTypeDenied, v1.PodCertificateRequestConditionTypeFailed}

// verdict returns the condition in which a request has ended, empty if it has not.
func verdict(p *v1.PodCertificateRequest) string {
	for _, c := range p.Status.Conditions {
		if slices.Contains(verdicts, c.Type) && c.Status == metav1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

// preparePodStatus keeps the conditions that there are, and gives new ones their time.
func preparePodStatus(p, old *v1.PodCertificateRequest) {
	of := func(p *v1.PodCertificateRequest, t string) (at []int) {
		for i := range p.Status.Conditions {
			if p.Status.Conditions[i].Type == t {
				at = append(at, i)
			}
		}
		return at
	}
	for _, t := range verdicts {
		is, was := of(p, t), of(old, t)
		for i := range is {
			if len(is) == len(was) {
				p.Status.Conditions[is[i]] = old.Status.Conditions[was[i]]
			}
		}
	}
	now := metav1.Now()
	for i := range p.Status.Conditions {
		c := &p.Status.Conditions[i]
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, was := range old.Status.Conditions {
			if was.Type == c.Type && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
				c.LastTransitionTime = was.LastTransitionTime
				break
			}
		}
	}
}

func validatePodRequest(p *v1.PodCertificateRequest) field.ErrorList {
	s, spec := &p.Spec, field.NewPath("spec")
	errs := signername.Validate(s.SignerName, spec.Child("signerName"))
	errs = append(errs, validateUserAnnotations(s.UnverifiedUserAnnotations, spec.Child("unverifiedUserAnnotations"))...)
	for _, o := range [...]struct{ field, name, uidField, uid string }{
		{"podName", s.PodName, "podUID", string(s.PodUID)},
		{"serviceAccountName", s.ServiceAccountName, "serviceAccountUID", string(s.ServiceAccountUID)},
		{"nodeName", string(s.NodeName), "nodeUID", string(s.NodeUID)},
	} {
		for _, msg := range validation.IsDNS1123Subdomain(o.name) {
			errs = append(errs, field.Invalid(spec.Child(o.field), o.name, msg))
		}
		if at := spec.Child(o.uidField); o.uid == "" {
			errs = append(errs, field.Invalid(at, o.uid, "must not be empty"))
		} else if len(o.uid) > maxUID {
			errs = append(errs, field.TooLong(at, "", maxUID))
		}
	}
	life := spec.Child("maxExpirationSeconds")
	if s.MaxExpirationSeconds == nil {
		return append(errs, field.Required(life, "must be set"))
	}
	most := int32(maxLife)
	if signername.IsKubernetes(s.SignerName) {
		most = kubernetesLife
	}
	if n := *s.MaxExpirationSeconds; n < minLife || n > most {
		errs = append(errs, field.Invalid(life, n, fmt.Sprintf("must be in the range [%d, %d]", minLife, most)))
	}
	return append(errs, validateStub(s.StubPKCS10Request, spec.Child("stubPKCS10Request"))...)
}

// validateUserAnnotations wants keys with a domain; their values are the signer's to judge.
func validateUserAnnotations(annotations map[string]string, at *field.Path) (errs field.ErrorList) {
	for k := range annotations {
		errs = append(errs, validation.IsDomainPrefixedKey(at, strings.ToLower(k))...)
	}
	if err := apivalidation.ValidateAnnotationsSize(annotations); err != nil {
		errs = append(errs, field.TooLong(at, "", apivalidation.TotalAnnotationSizeLimitB))
	}
	return errs
}

// validateStub wants a PKCS#10 request that is signed with its own key, of a kind that is taken.
func validateStub(der []byte, at *field.Path) field.ErrorList {
	if len(der) == 0 {
		return field.ErrorList{field.Required(at, "")}
	}
	if len(der) > maxStub {
		return field.ErrorList{field.TooLong(at, "", maxStub)}
	}
	invalid := func(value any, detail string) field.ErrorList {
		return field.ErrorList{field.Invalid(at, value, detail)}
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return invalid(field.OmitValueType{}, "must be a valid DER-serialized PKCS#10 certificate signing request")
	}
	switch key := request.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if c := key.Curve; c != elliptic.P256() && c != elliptic.P384() && c != elliptic.P521() {
			return invalid("curve "+c.Params().Name, "elliptic public keys must use curve P256, P384, or P521")
		}
	case *rsa.PublicKey:
		if bits := key.Size() * 8; bits != 3072 && bits != 4096 {
			return invalid(fmt.Sprintf("%d-bit modulus", bits), "RSA keys must have modulus size 3072 or 4096")
		}
	default:
		return invalid(field.OmitValueType{}, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")
	}
	if err := request.CheckSignature(); err != nil {
		return invalid(field.OmitValueType{}, "could not verify proof-of-possession signature")
	}
	return nil
}

// validatePodStatus lets a request end once: issued, with a certificate for its key
// and the times in it, denied or failed.
func validatePodStatus(p, old *v1.PodCertificateRequest, now time.Time) (errs field.ErrorList) {
	status := field.NewPath("status")
	known := 0
	for i, c := range p.Status.Conditions {
		at := status.Child("conditions", fmt.Sprintf("[%d]", i)) // upstream writes the index so
		if !slices.Contains(verdicts, c.Type) {
			errs = append(errs, field.NotSupported(at.Child("type"), c.Type, verdicts))
			continue
		}
		if known++; known > 1 {
			errs = append(errs, field.Invalid(at.Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
		}
		if c.Status != metav1.ConditionTrue {
			errs = append(errs, field.NotSupported(at.Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
		}
	}
	errs = append(errs, metav1validation.ValidateConditions(p.Status.Conditions, status.Child("conditions"))...)
	if len(errs) > 0 {
		return errs
	}
	same := func(a, b v1.PodCertificateRequestStatus, detail string) field.ErrorList {
		if equality.Semantic.DeepEqual(a, b) {
			return nil
		}
		return field.ErrorList{field.Invalid(status, field.OmitValueType{}, detail)}
	}
	if verdict(old) != "" {
		return same(p.Status, old.Status, "immutable after PodCertificateRequest is issued, denied, or failed")
	}
	switch verdict(p) {
	case "":
		return same(p.Status, old.Status, `status is immutable unless transitioning to "Issued", "Denied", or "Failed"`)
	case v1.PodCertificateRequestConditionTypeIssued:
		return validateIssued(p, old, now)
	}
	return same(p.Status, v1.PodCertificateRequestStatus{Conditions: p.Status.Conditions},
		"non-condition status fields must be empty when denying or failing the PodCertificateRequest")
}

func validateIssued(p, old *v1.PodCertificateRequest, now time.Time) (errs field.ErrorList) {
	s, status := &p.Status, field.NewPath("status")
	chain := status.Child("certificateChain")
	one := func(at *field.Path, value any, detail string) field.ErrorList {
		return append(errs, field.Invalid(at, value, detail))
	}
	if len(s.CertificateChain) > maxChain {
		return field.ErrorList{field.TooLong(chain, "", maxChain)}
	}
	block, rest := pem.Decode([]byte(s.CertificateChain))
	switch {
	case block == nil:
		return one(chain, s.CertificateChain, "issued certificate chain must contain at least one certificate")
	case block.Type != certificateBlock:
		return one(chain, s.CertificateChain, "issued certificate chain must consist entirely of CERTIFICATE PEM blocks")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return one(chain, s.CertificateChain, "leaf certificate does not parse as valid X.509")
	}
	for _, name := range leaf.DNSNames {
		if name == "" {
			errs = one(chain, name, "leaf certificate should not contain empty DNSName")
		}
		if strings.Contains(name, "..") {
			errs = one(chain, name, "leaf certificate's DNSName should not contain '..'")
		}
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") {
			errs = one(chain, name, "leaf certificate's DNSName should not start or end with '.'")
		}
	}
	for _, address := range leaf.EmailAddresses {
		if _, err := mail.ParseAddress(address); err != nil {
			errs = one(chain, address, "leaf certificate should not contain invalid EmailAddress")
		}
	}
	request, err := x509.ParseCertificateRequest(old.Spec.StubPKCS10Request)
	if err != nil {
		return one(field.NewPath("spec", "stubPKCS10Request"), field.OmitValueType{}, "must be a valid DER-serialized PKCS#10 certificate signing request")
	}
	if key, ok := request.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(leaf.PublicKey) {
		return one(chain, s.CertificateChain, "leaf certificate was not issued to the requested public key")
	}
	const times = "must be present and consistent with the issued certificate"
	if s.NotBefore == nil {
		errs = append(errs, field.Required(status.Child("notBefore"), times))
	}
	if s.NotAfter == nil {
		errs = append(errs, field.Required(status.Child("notAfter"), times))
	}
	if s.BeginRefreshAt == nil {
		errs = append(errs, field.Required(status.Child("beginRefreshAt"), "must be present and in the range [notbefore+10min, notafter-10min]"))
	}
	if len(errs) > 0 {
		return errs
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	switch {
	case !s.NotBefore.Time.Equal(leaf.NotBefore):
		return one(status.Child("notBefore"), s.NotBefore.Time, "must be set to the NotBefore time encoded in the leaf certificate")
	case !s.NotBefore.After(now.Add(-clockSkew)) || !s.NotBefore.Time.Before(now.Add(clockSkew)):
		return one(status.Child("notBefore"), s.NotBefore.Time, "must be set to within 5 minutes of kube-apiserver's current time")
	case !s.NotAfter.Time.Equal(leaf.NotAfter):
		return one(status.Child("notAfter"), s.NotAfter.Time, "must be set to the NotAfter time encoded in the leaf certificate")
	case life < minLife*time.Second:
		return one(chain, life, "leaf certificate lifetime must be >= 1 hour")
	case life > time.Duration(*p.Spec.MaxExpirationSeconds)*time.Second:
		return one(chain, life, fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%v)", *p.Spec.MaxExpirationSeconds))
	case s.BeginRefreshAt.Time.Before(s.NotBefore.Add(refreshMargin)):
		return one(status.Child("beginRefreshAt"), s.BeginRefreshAt.Time, "must be at least 10 minutes after status.notBefore")
	case s.BeginRefreshAt.After(s.NotAfter.Add(-refreshMargin)):
		return one(status.Child("beginRefreshAt"), s.BeginRefreshAt.Time, "must be at least 10 minutes before status.notAfter")
	}
	for {
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		if block.Type != certificateBlock {
			return one(chain, s.CertificateChain, "issued certificate chain must consist entirely of CERTFICATE PEM blocks") //nolint:misspell // upstream's word
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return one(chain, s.CertificateChain, "intermediate certificate does not parse as valid X.509")
		}
	}
}

// validateSigner lets only users with the verb "sign" on the signer answer a request.
func validateSigner(req api.Request, p, old *v1.PodCertificateRequest) field.ErrorList {
	if equality.Semantic.DeepEqual(old.Status, p.Status) || slices.ContainsFunc(signername.Granted(old.Spec.SignerName), func(name string) bool {
		return req.Allowed(authorizer.AttributesRecord{User: req.User(), Verb: "sign", Name: name, APIGroup: v1.GroupName, APIVersion: "*", Resource: "signers", ResourceRequest: true}) == nil
	}) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec", "signerName"),
		fmt.Sprintf("User %q is not permitted to \"sign\" for signer %q", req.User().GetName(), old.Spec.SignerName))}
}
