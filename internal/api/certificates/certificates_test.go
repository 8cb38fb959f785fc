package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"keelson.dev/keelson/internal/api/rowtest"
)

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(t *testing.T, change func(*v1.CertificateSigningRequest)) *v1.CertificateSigningRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "me"}}, key(t))
	if err != nil {
		t.Fatal(err)
	}
	c := &v1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "c"},
		Spec: v1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der}),
			SignerName: "example.com/signer",
			Usages:     []v1.KeyUsage{v1.UsageClientAuth},
		},
	}
	if change != nil {
		change(c)
	}
	return c
}

func certificate(t *testing.T) []byte {
	t.Helper()
	k := key(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der})
}

func condition(t v1.RequestConditionType) v1.CertificateSigningRequestCondition {
	return v1.CertificateSigningRequestCondition{Type: t, Status: corev1.ConditionTrue}
}

func TestValidation(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*v1.CertificateSigningRequest)
		want   []string
	}{
		"good": {nil, nil},
		"usages": {func(c *v1.CertificateSigningRequest) { c.Spec.Usages = nil }, []string{
			`spec.usages: Required value: usages must be provided`}},
		"signer": {func(c *v1.CertificateSigningRequest) { c.Spec.SignerName = "me" }, []string{
			`spec.signerName: Invalid value: "me": must be a fully qualified domain and path of the form 'example.com/signer-name'`}},
		"legacy signer": {func(c *v1.CertificateSigningRequest) { c.Spec.SignerName = legacySigner }, []string{
			`spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version`}},
		"short life": {func(c *v1.CertificateSigningRequest) { c.Spec.ExpirationSeconds = new(int32(5)) }, []string{
			`spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)`}},
	} {
		t.Run(name, func(t *testing.T) {
			rowtest.Expect(t, rowtest.Find(t, Resources(), "certificatesigningrequests").Validate(request(t, c.change)), c.want...)
		})
	}
	bad := request(t, func(c *v1.CertificateSigningRequest) { c.Spec.Request = []byte("x") })
	if errs := rowtest.Find(t, Resources(), "certificatesigningrequests").Validate(bad); len(errs) != 1 || errs[0].Detail != "PEM block type must be CERTIFICATE REQUEST" {
		t.Errorf("errors of a request that is not PEM are %v", errs)
	}
}

func TestRequesterIsSetByTheServer(t *testing.T) {
	r := rowtest.Find(t, Resources(), "certificatesigningrequests")
	c := request(t, func(c *v1.CertificateSigningRequest) {
		c.Spec.Username, c.Spec.Groups = "system:admin", []string{"system:masters"}
	})
	r.PrepareForCreate(c)
	r.PrepareForRequest(rowtest.Request{As: &user.DefaultInfo{Name: "me", UID: "1", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}}, c)
	if c.Spec.Username != "me" || c.Spec.UID != "1" || c.Spec.Extra["k"][0] != "v" || !slices.Equal(c.Spec.Groups, []string{"g"}) {
		t.Errorf("the requester is %+v", c.Spec)
	}
}

func TestUpdates(t *testing.T) {
	r := rowtest.Find(t, Resources(), "certificatesigningrequests")
	old := request(t, nil)
	with := func(cert []byte, types ...v1.RequestConditionType) *v1.CertificateSigningRequest {
		c := old.DeepCopy()
		c.Status.Certificate = cert
		for _, t := range types {
			c.Status.Conditions = append(c.Status.Conditions, condition(t))
		}
		return c
	}
	approved := with(nil, v1.CertificateApproved)
	r.Updates["approval"].PrepareForUpdate(approved, old)
	rowtest.Expect(t, r.Updates["approval"].ValidateUpdate(approved, old))
	if approved.Status.Conditions[0].LastUpdateTime.IsZero() || approved.Status.Conditions[0].LastTransitionTime.IsZero() {
		t.Error("an approval has no times")
	}

	byStatus := with(nil, v1.CertificateApproved)
	r.Status.PrepareForUpdate(byStatus, old)
	rowtest.Expect(t, r.Status.ValidateUpdate(byStatus, old), `status.conditions: Forbidden: updates may not add a condition of type "Approved"`)

	issued := approved.DeepCopy()
	issued.Status.Certificate = certificate(t)
	r.Status.PrepareForUpdate(issued, approved)
	rowtest.Expect(t, r.Status.ValidateUpdate(issued, approved))
	if got := r.Cells(issued, time.Now())[5]; got != "Approved,Issued" {
		t.Errorf("the condition is %q", got)
	}

	again := issued.DeepCopy()
	again.Status.Certificate = certificate(t)
	rowtest.Expect(t, r.Status.ValidateUpdate(again, issued), `status.certificate: Forbidden: updates may not modify existing certificate content`)

	both := approved.DeepCopy()
	both.Status.Conditions = append(both.Status.Conditions, condition(v1.CertificateDenied))
	rowtest.Expect(t, r.Updates["approval"].ValidateUpdate(both, approved), "status.conditions: Invalid value: \"{conditions[{\\\"type\\\": \\\"Approved\\\"}], conditions[{\\\"type\\\": \\\"Denied\\\"}]}\": must specify at most one of: `conditions[{\"type\": \"Approved\"}]`, `conditions[{\"type\": \"Denied\"}]`")

	// What was both or was twice already stays so.
	stays := both.DeepCopy()
	stays.Status.Conditions = append(stays.Status.Conditions, v1.CertificateSigningRequestCondition{Type: "Mine", Status: "True"}, v1.CertificateSigningRequestCondition{Type: "Mine", Status: "Odd"})
	rowtest.Expect(t, r.Updates["approval"].ValidateUpdate(stays, both), `status.conditions[3].type: Duplicate value: "Mine"`, `status.conditions[3].status: Unsupported value: "Odd": supported values: "False", "True", "Unknown"`)
	stays.Status.Conditions[3].Status = "False"
	rowtest.Expect(t, r.Updates["approval"].ValidateUpdate(stays, stays))

	taken := approved.DeepCopy()
	taken.Status.Conditions = nil
	rowtest.Expect(t, r.Updates["approval"].ValidateUpdate(taken, approved), `status.conditions: Forbidden: updates may not remove a condition of type "Approved"`)

	main := old.DeepCopy()
	main.Spec.SignerName = "example.com/other"
	r.PrepareForUpdate(main, old)
	if main.Spec.SignerName != old.Spec.SignerName {
		t.Error("an update changes what was asked for")
	}
}
