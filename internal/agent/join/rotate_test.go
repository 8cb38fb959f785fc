package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/connrotation"
)

// signer is an API server that signs what it is asked for at once.
type signer struct {
	*fake.Clientset
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	life time.Duration

	mu     sync.Mutex
	issued []*x509.Certificate
}

func newSigner(t *testing.T, life time.Duration) *signer {
	t.Helper()
	s := &signer{Clientset: fake.NewClientset(), t: t, life: life}
	s.key, s.cert = s.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour)}, nil)
	s.PrependReactor("create", "certificatesigningrequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r := a.(clienttesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest).DeepCopy()
		block, _ := pem.Decode(r.Spec.Request)
		asked, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return true, nil, err
		}
		_, made := s.issue(&x509.Certificate{Subject: asked.Subject, NotBefore: time.Now(), NotAfter: time.Now().Add(s.life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, asked.PublicKey)
		s.mu.Lock()
		s.issued = append(s.issued, made)
		s.mu.Unlock()
		r.Name, r.UID = "csr", types.UID(made.SerialNumber.String())
		r.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Raw})
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: v1.ConditionTrue}}
		gvr := certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests")
		if err := s.Tracker().Delete(gvr, "", r.Name); err != nil && !apierrors.IsNotFound(err) {
			return true, nil, err
		}
		return true, r, s.Tracker().Add(r)
	})
	return s
}

// issue makes a certificate for a public key, or for a new one of its own.
func (s *signer) issue(template *x509.Certificate, public any) (*ecdsa.PrivateKey, *x509.Certificate) {
	s.t.Helper()
	var key *ecdsa.PrivateKey
	parent, by := s.cert, s.key
	fail := func(err error) {
		if err != nil {
			s.t.Error(err)
		}
	}
	var err error
	if public == nil {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		fail(err)
		public = key.Public()
	}
	if parent == nil {
		parent, by = template, key
	}
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<60))
	fail(err)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	fail(err)
	c, err := x509.ParseCertificate(der)
	fail(err)
	return key, c
}

func (s *signer) all() []*x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*x509.Certificate(nil), s.issued...)
}

// TestRotate renews a certificate near its end, several times, and takes the one that
// there is after a restart.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, 24*time.Hour)
		c := &Client{Dir: dir, Node: "n"}
		var mu sync.Mutex
		renewed := 0
		rotate := func() (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			if err := c.Rotate(ctx, s, func() { mu.Lock(); renewed++; mu.Unlock() }); err != nil {
				t.Fatal(err)
			}
			return func() { cancel(); synctest.Wait() }
		}
		stop := rotate()
		for want := 1; want <= 4; want++ {
			for range 100 {
				if len(s.all()) == want {
					break
				}
				time.Sleep(time.Hour)
			}
			time.Sleep(time.Minute) // it is fetched and written
			all := s.all()
			mu.Lock()
			if len(all) != want || renewed != want {
				t.Fatalf("%d certificates were issued and %d renewed, want %d", len(all), renewed, want)
			}
			mu.Unlock()
			if want == 1 {
				continue
			}
			if age := all[want-1].NotBefore.Sub(all[want-2].NotBefore); age < s.life*69/100 || age > s.life*91/100 {
				t.Errorf("renewed after %s of %s", age, s.life)
			}
			if want == 3 { // the agent is started again
				stop()
				stop = rotate()
				time.Sleep(time.Minute)
				if n := len(s.all()); n != want {
					t.Errorf("after a restart there are %d certificates, want %d", n, want)
				}
			}
		}
		stop()
		// A manager that waits for a certificate's end ends only then, and the error that it
		// logs waits for a time of the world outside, some decades from the bubble's.
		time.Sleep(100 * 365 * 24 * time.Hour)
		files, err := c.store()
		if err != nil {
			t.Fatal(err)
		}
		all := s.all()
		if is, err := files.Current(); err != nil || is.Leaf.SerialNumber.Cmp(all[len(all)-1].SerialNumber) != 0 {
			t.Errorf("the file has another certificate than the last: %v", err)
		}
	})
}

// TestRenewedConnections checks that a client which reads the certificate's file uses
// another one as soon as it is there, and no longer the connections of the former.
func TestRenewedConnections(t *testing.T) {
	s := newSigner(t, time.Hour)
	c := &Client{Dir: t.TempDir(), Node: "n"}
	connections := connrotation.NewDialer((&net.Dialer{}).DialContext)
	written := make(chan struct{})
	m, err := c.manager(s, func() { close(written) })
	if err != nil {
		t.Fatal(err)
	}
	m.Start()
	<-written
	m.Stop()
	files, err := c.store()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	shown := map[string]string{} // serial numbers by the clients' addresses
	closed := make(chan string, 2)
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		shown[r.RemoteAddr] = r.TLS.PeerCertificates[0].SerialNumber.String()
	}))
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- c.RemoteAddr().String()
		}
	}
	h.EnableHTTP2, h.TLS = true, &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	h.StartTLS()
	defer h.Close()
	authority := filepath.Join(c.Dir, "ca.crt")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := &rest.Config{Host: h.URL, Dial: connections.DialContext, TLSClientConfig: rest.TLSClientConfig{CAFile: authority, CertFile: files.CurrentPath(), KeyFile: files.CurrentPath()}}
	transport, err := c.Transport(cfg)
	if err != nil {
		t.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(&rest.Config{Host: h.URL, Transport: transport})
	ask := func() {
		t.Helper()
		if err := client.RESTClient().Get().AbsPath("/").Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	ask()
	mu.Lock()
	if len(shown) != 1 {
		t.Errorf("two requests over %d connections", len(shown))
	}
	old := ""
	for old = range shown {
	}
	mu.Unlock()
	// The next one comes.
	key, next := s.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "system:node:n"}, NotAfter: time.Now().Add(time.Hour)}, nil)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	watched := watchedStore{files, connections.CloseAll}
	if _, err := watched.Update(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: next.Raw}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})); err != nil {
		t.Fatal(err)
	}
	ask()
	if at := <-closed; at != old {
		t.Errorf("the connection %s was closed, want %s", at, old)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(shown) != 2 {
		t.Errorf("connections %v", shown)
	}
	for at, serial := range shown {
		if at != old && serial != next.SerialNumber.String() {
			t.Errorf("after the renewal the certificate %s was shown, want %s", serial, next.SerialNumber)
		}
	}
}
