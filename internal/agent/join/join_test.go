package join

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/cluster-bootstrap/token/jws"
)

// server serves a cluster-info that names an authority and is signed by a token.
func server(t *testing.T, authority []byte, signer Token) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	t.Cleanup(s.Close)
	if authority == nil {
		authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[""] = &clientcmdapi.Cluster{Server: s.URL, CertificateAuthorityData: authority}
	text, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := jws.ComputeDetachedSignature(string(text), signer.ID, signer.Secret)
	if err != nil {
		t.Fatal(err)
	}
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the token was shown to a server that is not known yet")
		}
		if r.URL.Path != "/api/v1/namespaces/kube-public/configmaps/cluster-info" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(&v1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			Data: map[string]string{"kubeconfig": string(text), "jws-kubeconfig-" + signer.ID: signature}})
	})
	return s
}

// authority makes a certificate authority.
func authority(t *testing.T) (*x509.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "other"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestDiscover(t *testing.T) {
	token := Token{ID: "abcdef", Secret: "0123456789abcdef"}
	other, otherPEM := authority(t)
	good := server(t, nil, token)
	hash := Hash(good.Certificate())
	for _, c := range []struct {
		name   string
		server *httptest.Server
		hashes []string
		want   string // part of the error
	}{
		{"the cluster", good, []string{hash}, ""},
		{"one of several hashes", good, []string{Hash(other), hash}, ""},
		{"another authority", good, []string{Hash(other)}, "the API server's authority has the hash " + hash},
		{"without a hash", good, nil, "give --ca-hash"},
		{"no hash", good, []string{"sha256:abc"}, "invalid hash"},
		{"a second authority that is not named", server(t, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.Certificate().Raw}), otherPEM...), token),
			[]string{hash}, "the API server's authority has the hash " + Hash(other)},
		{"signed by somebody else", server(t, nil, Token{ID: token.ID, Secret: "fedcba9876543210"}), []string{hash}, `is not signed by the token "abcdef"`},
		{"in the cluster's place", server(t, otherPEM, token), []string{Hash(other)}, "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			if c.name == "in the cluster's place" {
				// Discover retries a wrong certificate until its time is over.
				old := discoveryPatience
				discoveryPatience = time.Second
				defer func() { discoveryPatience = old }()
			}
			ca, err := Discover(ctx, c.server.URL, token, c.hashes)
			if c.want == "" {
				if got, _ := Hashes(ca); err != nil || !slices.Equal(got, []string{hash}) {
					t.Errorf("%v %v", got, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestTokens(t *testing.T) {
	ctx, admin := t.Context(), fake.NewClientset()
	end := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	made, err := Create(ctx, admin, Token{Description: "for a test", Expires: end, Groups: []string{DefaultGroup}})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Parse(made.String()); err != nil || again.ID != made.ID || again.Secret != made.Secret {
		t.Errorf("%q: %v", made.String(), err)
	}
	if _, err := Create(ctx, admin, Token{ID: made.ID, Secret: made.Secret}); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("a second of the same ID: %v", err)
	}
	for _, bad := range []Token{{Groups: []string{"system:masters"}}, {Usages: []string{"everything"}}} {
		if _, err := Create(ctx, admin, bad); err == nil {
			t.Errorf("%+v was made", bad)
		}
	}
	// The fake API server does not convert stringData to data.
	s, err := admin.CoreV1().Secrets("kube-system").Get(ctx, "bootstrap-token-"+made.ID, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Data = map[string][]byte{}
	for k, v := range s.StringData {
		s.Data[k] = []byte(v)
	}
	if _, err := admin.CoreV1().Secrets("kube-system").Update(ctx, s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	all, err := List(ctx, admin)
	if err != nil || len(all) != 1 || all[0].String() != made.String() || !all[0].Expires.Equal(end) || all[0].Description != "for a test" ||
		!slices.Equal(all[0].Usages, []string{"authentication", "signing"}) || !slices.Equal(all[0].Groups, []string{DefaultGroup}) {
		t.Errorf("%+v %v", all, err)
	}
	for _, bad := range []string{"", "abc", "ABCDEF.0123456789abcdef", "abcdef.0123"} {
		if _, err := Delete(ctx, admin, bad); err == nil || !strings.Contains(err.Error(), "didn't match pattern") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if id, err := Delete(ctx, admin, made.String()); err != nil || id != made.ID {
		t.Errorf("%q %v", id, err)
	}
	if all, err := List(ctx, admin); err != nil || len(all) != 0 {
		t.Errorf("%+v %v", all, err)
	}
}

// TestMove checks that a machine that has joined takes another URL of the API server,
// without a token, and keeps the authority that it trusts.
func TestMove(t *testing.T) {
	s := newSigner(t, time.Hour)
	c := &Client{Dir: t.TempDir(), Node: "n"}
	key, cert := s.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "system:node:n"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, nil)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files, err := c.store()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.Update(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})); err != nil {
		t.Fatal(err)
	}
	if err := c.write("https://192.0.2.1:6443", []byte("the authority")); err != nil {
		t.Fatal(err)
	}
	for _, x := range [][2]string{{"", "https://192.0.2.1:6443"}, {"https://api.test:6443", "https://api.test:6443"}, {"", "https://api.test:6443"}, {"https://192.0.2.2:6443 https://api.test:6443", "https://api.test:6443"}} {
		if err := (&Client{Dir: c.Dir, Node: "n", Servers: strings.Fields(x[0])}).Obtain(t.Context()); err != nil {
			t.Fatal(err)
		}
		config, err := clientcmd.LoadFromFile(c.Kubeconfig())
		if err != nil {
			t.Fatal(err)
		}
		if got := config.Clusters[clusterName]; got.Server != x[1] || string(got.CertificateAuthorityData) != "the authority" || config.AuthInfos["node"].ClientCertificate == "" {
			t.Errorf("with --server %q: %+v %+v", x[0], got, config.AuthInfos)
		}
	}
}
