package certificates

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/api/rowtest"
)

// authority makes a certificate of an authority, in PEM.
func authority(t *testing.T) string {
	t.Helper()
	k := key(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der}))
}

func TestTrustBundles(t *testing.T) {
	r := rowtest.Find(t, Resources(), "clustertrustbundles")
	ca := authority(t)
	bundle := func(name, signer, text string) *v1.ClusterTrustBundle {
		return &v1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: text}}
	}
	const anchor = `spec.trustBundle: Invalid value: "<value omitted>": `
	for name, c := range map[string]struct {
		bundle *v1.ClusterTrustBundle
		want   []string
	}{
		"of nobody":        {bundle("b", "", ca), nil},
		"of a signer":      {bundle("example.com:s:b", "example.com/s", ca+authority(t)), nil},
		"colon of nobody":  {bundle("a:b", "", ca), []string{`metadata.name: Invalid value: "a:b": ClusterTrustBundle without signer name must not have ":" in its name`}},
		"without signer's": {bundle("b", "example.com/s", ca), []string{`metadata.name: Invalid value: "b": ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:`}},
		"signer":           {bundle("s:b", "s", ca), []string{`spec.signerName: Invalid value: "s": must be a fully qualified domain and path of the form 'example.com/signer-name'`}},
		"nothing":          {bundle("b", "", "text"), []string{anchor + "at least one trust anchor must be provided"}},
		"twice":            {bundle("b", "", ca+authority(t)+ca), []string{anchor + "duplicate trust anchor (indices [0 2])"}},
		"no authority":     {bundle("b", "", string(certificate(t))), []string{anchor + "entry 0 does not have the CA bit set"}},
		"a key":            {bundle("b", "", ca+"-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n"), []string{anchor + "entry 1 has bad block type: KEY"}},
		"headers":          {bundle("b", "", "-----BEGIN CERTIFICATE-----\na: b\n\nAAAA\n-----END CERTIFICATE-----\n"), []string{anchor + "entry 0 has PEM block headers"}},
		"no certificate":   {bundle("b", "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []string{anchor + "entry 0 does not parse as X.509"}},
		"too large":        {bundle("b", "", strings.Repeat("x", maxBundle+1)), []string{`spec.trustBundle: Too long: may not be more than 1048576 bytes`}},
	} {
		t.Run(name, func(t *testing.T) { rowtest.Expect(t, r.Validate(c.bundle), c.want...) })
	}
	old := bundle("b", "", "no bundle today")
	labelled := old.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	rowtest.Expect(t, r.ValidateUpdate(labelled, old))
	other := bundle("example.com:s:b", "example.com/s", ca)
	changed := other.DeepCopy()
	changed.Spec.SignerName = "example.com/t"
	rowtest.Expect(t, r.ValidateUpdate(changed, other),
		`metadata.name: Invalid value: "example.com:s:b": ClusterTrustBundle for signerName example.com/t must be named with prefix example.com:t:`,
		`spec.signerName: Invalid value: "example.com/t": field is immutable`)
	if got := r.Cells(old, time.Now()); got[1] != "<none>" {
		t.Errorf("cells are %v", got)
	}
}
