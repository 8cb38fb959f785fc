package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"k8s.io/utils/clock"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
)

// Options of a Bundle.
type Options struct {
	// SANs are the names and addresses that the API server is reached by.
	SANs  []string
	Clock clock.PassiveClock
}

// Bundle holds the certificates and keys of a cluster's parts.
type Bundle struct {
	authority                    // of clients and of this cluster's servers
	FrontProxy authority         // of those who may say which user a request is of
	TokenKey   *ecdsa.PrivateKey // signs service accounts' tokens
	Serving    *Serving
}

// authority issues certificates.
type authority struct {
	CAPEM []byte // its own certificate
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
	clock clock.PassiveClock
}

// Pair is a certificate and its key in PEM.
type Pair struct{ Cert, Key []byte }

// TLS returns the pair in Go's form.
func (p Pair) TLS() (tls.Certificate, error) { return tls.X509KeyPair(p.Cert, p.Key) }

// Ensure reads the bundle in dir, and makes what is absent there or ends soon.
// An empty dir keeps everything in memory. A damaged file is an error that
// names it: it is never replaced in silence.
func Ensure(dir string, opts Options) (*Bundle, error) {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	b := &Bundle{}
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	for name, a := range map[string]*authority{"ca": &b.authority, "front-proxy-ca": &b.FrontProxy} {
		a.clock = opts.Clock
		if a.caKey, err = key(dir, name+".key"); err != nil {
			return nil, err
		}
		if err := a.ensure(dir, name); err != nil {
			return nil, err
		}
	}
	if b.TokenKey, err = key(dir, "service-account.key"); err != nil {
		return nil, err
	}
	b.Serving, err = newServing(&b.authority, opts.SANs)
	return b, err
}

// ensure reads or makes the certificate of the authority called name.
func (b *authority) ensure(dir, name string) error {
	path := filepath.Join(dir, name+".crt")
	if dir != "" {
		data, err := os.ReadFile(path)
		switch {
		case err == nil:
			block, _ := pem.Decode(data)
			if block == nil {
				return fmt.Errorf("%s is damaged: no PEM block in it: restore it, or erase the cluster with keelson reset", path)
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return fmt.Errorf("%s is damaged: %w: restore it, or erase the cluster with keelson reset", path, err)
			}
			if pub, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(b.caKey.Public()) {
				return fmt.Errorf("%s does not belong to %s.key beside it: restore both from the same backup", path, name)
			}
			b.ca, b.CAPEM = c, data
			return nil
		case !errors.Is(err, os.ErrNotExist):
			return err
		}
	}
	now := b.clock.Now()
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "keelson-" + name},
		NotBefore: now.Add(-5 * time.Minute), NotAfter: now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true, IsCA: true, DNSNames: []string{"keelson-" + name},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, b.caKey.Public(), b.caKey)
	if err != nil {
		return err
	}
	if b.ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	b.CAPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if dir == "" {
		return nil
	}
	return renameio.WriteFile(path, b.CAPEM, 0o644)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err)
	}
	return n
}

// key reads or makes a private key.
func key(dir, name string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, name)
	if dir != "" {
		data, err := os.ReadFile(path)
		switch {
		case err == nil:
			block, _ := pem.Decode(data)
			if block == nil {
				return nil, fmt.Errorf("%s is damaged: no PEM block in it: restore it, or erase the cluster with keelson reset", path)
			}
			k, err := x509.ParseECPrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s is damaged: %w: restore it, or erase the cluster with keelson reset", path, err)
			}
			return k, nil
		case !errors.Is(err, os.ErrNotExist):
			return nil, err
		}
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil || dir == "" {
		return k, err
	}
	data, err := keyPEM(k)
	if err != nil {
		return nil, err
	}
	return k, renameio.WriteFile(path, data, 0o600)
}

func keyPEM(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// Pool returns the authority as a pool.
func (b *authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(b.ca)
	return p
}

// ClientCert issues a certificate for the user cn in the groups orgs.
func (b *authority) ClientCert(cn string, orgs []string) (Pair, error) {
	return b.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: cn, Organization: orgs},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// ServingCert issues a certificate for a server that is reached by sans, each
// an address or a name.
func (b *authority) ServingCert(cn string, sans []string) (Pair, error) {
	t := &x509.Certificate{Subject: pkix.Name{CommonName: cn}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, s := range sans {
		if ip := net.ParseIP(s); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if s != "" {
			t.DNSNames = append(t.DNSNames, s)
		}
	}
	return b.issue(t)
}

// Sign issues the certificate that t describes, in PEM, for the key public. It
// ends with the authority's own at the latest.
func (b *authority) Sign(t *x509.Certificate, public any) ([]byte, error) {
	return sign(t, public, b.ca, b.caKey)
}

func sign(t *x509.Certificate, public any, ca *x509.Certificate, caKey crypto.Signer) ([]byte, error) {
	c := *t
	c.SerialNumber = serial()
	if c.NotAfter.After(ca.NotAfter) {
		c.NotAfter = ca.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, ca, public, caKey)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// Signer returns what signs as the authority whose certificate and key, of any
// kind that crypto/x509 signs with, are in two files in PEM.
func Signer(certFile, keyFile string) (func(t *x509.Certificate, public any) ([]byte, error), error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s is not the certificate of an authority", certFile)
	}
	return func(t *x509.Certificate, public any) ([]byte, error) { return sign(t, public, pair.Leaf, key) }, nil
}

func (b *authority) issue(t *x509.Certificate) (Pair, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	now := b.clock.Now()
	t.NotBefore, t.NotAfter = now.Add(-5*time.Minute), now.Add(leafLife)
	t.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	t.BasicConstraintsValid = true
	cert, err := b.Sign(t, crypto.PublicKey(k.Public()))
	if err != nil {
		return Pair{}, err
	}
	kp, err := keyPEM(k)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Cert: cert, Key: kp}, nil
}

// ReadPair reads a certificate and its key, both in PEM.
func ReadPair(certFile, keyFile string) (p Pair, err error) {
	if p.Cert, err = os.ReadFile(certFile); err != nil {
		return p, err
	}
	p.Key, err = os.ReadFile(keyFile)
	return p, err
}
