package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/rowtest"
)

func stub(t *testing.T, k crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func podRequest(der []byte) *v1.PodCertificateRequest {
	return &v1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "n"}, Spec: v1.PodCertificateRequestSpec{
		SignerName: "example.com/s", PodName: "p", PodUID: "1", ServiceAccountName: "sa", ServiceAccountUID: "2", NodeName: "n", NodeUID: "3",
		MaxExpirationSeconds: ptr.To[int32](7200), StubPKCS10Request: der,
	}}
}

func TestPodRequests(t *testing.T) {
	r := rowtest.Find(t, Resources(), "podcertificaterequests")
	good := stub(t, key(t))
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte{}, good...)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		change func(*v1.PodCertificateRequestSpec)
		want   []string
	}{
		"good": {func(*v1.PodCertificateRequestSpec) {}, nil},
		"annotations": {func(s *v1.PodCertificateRequestSpec) {
			s.UnverifiedUserAnnotations = map[string]string{"example.com/A": "x"}
		}, nil},
		"no domain": {func(s *v1.PodCertificateRequestSpec) { s.UnverifiedUserAnnotations = map[string]string{"a": "x"} }, []string{`spec.unverifiedUserAnnotations: Invalid value: "a": must be a domain-prefixed key (such as "acme.io/foo")`}},
		"large": {func(s *v1.PodCertificateRequestSpec) {
			s.UnverifiedUserAnnotations = map[string]string{"a.b/c": strings.Repeat("x", 256<<10)}
		}, []string{`spec.unverifiedUserAnnotations: Too long: may not be more than 262144 bytes`}},
		"no UID": {func(s *v1.PodCertificateRequestSpec) { s.PodUID = "" }, []string{`spec.podUID: Invalid value: "": must not be empty`}},
		"short":  {func(s *v1.PodCertificateRequestSpec) { *s.MaxExpirationSeconds = 3599 }, []string{`spec.maxExpirationSeconds: Invalid value: 3599: must be in the range [3600, 7862400]`}},
		"of Kubernetes": {func(s *v1.PodCertificateRequestSpec) {
			s.SignerName, *s.MaxExpirationSeconds = "x.kubernetes.io/s", 86401
		}, []string{`spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]`}},
		"nothing":        {func(s *v1.PodCertificateRequestSpec) { s.StubPKCS10Request = nil }, []string{`spec.stubPKCS10Request: Required value`}},
		"no request":     {func(s *v1.PodCertificateRequestSpec) { s.StubPKCS10Request = []byte("x") }, []string{`spec.stubPKCS10Request: Invalid value: must be a valid DER-serialized PKCS#10 certificate signing request`}},
		"curve":          {func(s *v1.PodCertificateRequestSpec) { s.StubPKCS10Request = stub(t, p224) }, []string{`spec.stubPKCS10Request: Invalid value: "curve P-224": elliptic public keys must use curve P256, P384, or P521`}},
		"another's key":  {func(s *v1.PodCertificateRequestSpec) { s.StubPKCS10Request = forged }, []string{`spec.stubPKCS10Request: Invalid value: could not verify proof-of-possession signature`}},
		"default's life": {func(s *v1.PodCertificateRequestSpec) { s.MaxExpirationSeconds = nil }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := podRequest(good)
			c.change(&p.Spec)
			r.Default(p)
			rowtest.Expect(t, r.Validate(p), c.want...)
		})
	}
	old, p := podRequest(good), podRequest(good)
	p.Spec.PodName = "q"
	if errs := r.ValidateUpdate(p, old); len(errs) != 1 || errs[0].Field != "spec" || errs[0].Detail != "field is immutable" {
		t.Errorf("another pod: %v", errs)
	}
}

func TestPodRequestStatus(t *testing.T) {
	r := rowtest.Find(t, Resources(), "podcertificaterequests")
	k := key(t)
	now := time.Now().Truncate(time.Second)
	issue := func(pub crypto.PublicKey, life time.Duration) string {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(life), DNSNames: []string{"a.b"}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, pub, k)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der}))
	}
	old := podRequest(stub(t, k))
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(d)} }
	issued := func(chain string, before, refresh, after *metav1.Time) v1.PodCertificateRequestStatus {
		return v1.PodCertificateRequestStatus{Conditions: []metav1.Condition{{Type: "Issued", Status: "True", Reason: "R"}},
			CertificateChain: chain, NotBefore: before, BeginRefreshAt: refresh, NotAfter: after}
	}
	good := issue(k.Public(), time.Hour)
	denied := v1.PodCertificateRequestStatus{Conditions: []metav1.Condition{{Type: "Denied", Status: "True", Reason: "R"}}}
	for name, c := range map[string]struct {
		old    v1.PodCertificateRequestStatus
		status v1.PodCertificateRequestStatus
		want   string
	}{
		"issued":         {status: issued(good, at(0), at(30*time.Minute), at(time.Hour))},
		"denied":         {status: denied},
		"nothing":        {},
		"other":          {status: v1.PodCertificateRequestStatus{Conditions: []metav1.Condition{{Type: "Odd", Status: "True", Reason: "R"}}}, want: `Unsupported value: "Odd"`},
		"false":          {status: v1.PodCertificateRequestStatus{Conditions: []metav1.Condition{{Type: "Issued", Status: "False", Reason: "R"}}}, want: `supported values: "True"`},
		"chain alone":    {status: v1.PodCertificateRequestStatus{CertificateChain: good}, want: `status is immutable unless transitioning to "Issued", "Denied", or "Failed"`},
		"denied, chain":  {status: v1.PodCertificateRequestStatus{Conditions: denied.Conditions, CertificateChain: good}, want: "non-condition status fields must be empty when denying or failing the PodCertificateRequest"},
		"twice":          {old: denied, status: issued(good, at(0), at(30*time.Minute), at(time.Hour)), want: "immutable after PodCertificateRequest is issued, denied, or failed"},
		"another key":    {status: issued(issue(key(t).Public(), time.Hour), at(0), at(30*time.Minute), at(time.Hour)), want: "leaf certificate was not issued to the requested public key"},
		"no times":       {status: issued(good, nil, nil, nil), want: "status.notBefore: Required value: must be present and consistent with the issued certificate"},
		"other times":    {status: issued(good, at(time.Second), at(30*time.Minute), at(time.Hour)), want: "must be set to the NotBefore time encoded in the leaf certificate"},
		"short":          {status: issued(issue(k.Public(), 59*time.Minute), at(0), at(30*time.Minute), at(59*time.Minute)), want: "leaf certificate lifetime must be >= 1 hour"},
		"long":           {status: issued(issue(k.Public(), 3*time.Hour), at(0), at(30*time.Minute), at(3*time.Hour)), want: "leaf certificate lifetime must be <= spec.maxExpirationSeconds (7200)"},
		"early refresh":  {status: issued(good, at(0), at(9*time.Minute), at(time.Hour)), want: "must be at least 10 minutes after status.notBefore"},
		"late refresh":   {status: issued(good, at(0), at(51*time.Minute), at(time.Hour)), want: "must be at least 10 minutes before status.notAfter"},
		"no certificate": {status: issued("x", at(0), at(30*time.Minute), at(time.Hour)), want: "issued certificate chain must contain at least one certificate"},
		"odd chain":      {status: issued(good+"-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n", at(0), at(30*time.Minute), at(time.Hour)), want: "must consist entirely of CERT"},
	} {
		t.Run(name, func(t *testing.T) {
			was, p := old.DeepCopy(), old.DeepCopy()
			was.Status, p.Status = *c.old.DeepCopy(), *c.status.DeepCopy()
			p.Spec.PodName = "q" // not the status's to change
			r.Status.PrepareForUpdate(p, was)
			errs := r.Status.ValidateUpdate(p, was)
			switch {
			case p.Spec.PodName != "p":
				t.Error("a status update changed the spec")
			case c.want == "" && len(errs) > 0, c.want != "" && !strings.Contains(errs.ToAggregate().Error(), c.want):
				t.Errorf("errors are %v, want %q", errs, c.want)
			}
		})
	}
}

func TestOnlySignersAnswer(t *testing.T) {
	r := rowtest.Find(t, Resources(), "podcertificaterequests")
	of := func(signer, chain string) *v1.PodCertificateRequest {
		return &v1.PodCertificateRequest{Spec: v1.PodCertificateRequestSpec{SignerName: signer}, Status: v1.PodCertificateRequestStatus{CertificateChain: chain}}
	}
	const refused = `spec.signerName: Forbidden: User "u" is not permitted to "sign" for signer "example.com/t"`
	for name, c := range map[string]struct {
		granted  string
		obj, old *v1.PodCertificateRequest
		want     []string
	}{
		"own":         {"example.com/s", of("example.com/s", "x"), of("example.com/s", ""), nil},
		"the domain":  {"example.com/*", of("example.com/t", "x"), of("example.com/t", ""), nil},
		"no change":   {"", of("example.com/t", "x"), of("example.com/t", "x"), nil},
		"another's":   {"example.com/s", of("example.com/t", "x"), of("example.com/t", ""), []string{refused}},
		"by old spec": {"example.com/s", of("example.com/s", "x"), of("example.com/t", ""), []string{refused}},
	} {
		t.Run(name, func(t *testing.T) {
			req := rowtest.Request{As: &user.DefaultInfo{Name: "u"}, May: func(a authorizer.AttributesRecord) bool {
				return a.Verb == "sign" && a.Resource == "signers" && a.APIGroup == v1.GroupName && a.Name == c.granted
			}}
			rowtest.Expect(t, r.Status.ValidateRequest(req, c.obj, c.old), c.want...)
		})
	}
}
