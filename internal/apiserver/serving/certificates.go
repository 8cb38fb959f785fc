package serving

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	cliflag "k8s.io/component-base/cli/flag"

	"keelson.dev/keelson/internal/reload"
)

// pair is a certificate of files, which are read again when they change.
type pair struct {
	certFile, keyFile string
	// names are the names of --tls-sni-cert-key that the certificate is for; without
	// any it is for the names that are in it.
	names   []string
	current atomic.Pointer[tls.Certificate]
}

// parsePair reads the form of --tls-sni-cert-key: cert,key or cert,key:name,name.
func parsePair(s string) (*pair, error) {
	var n cliflag.NamedCertKey
	if err := n.Set(s); err != nil {
		return nil, fmt.Errorf("--tls-sni-cert-key %q: %w, as in \"foo.crt,foo.key\" or \"foo.crt,foo.key:*.foo.com,foo.com\"", s, err)
	}
	return &pair{certFile: n.CertFile, keyFile: n.KeyFile, names: n.Names}, nil
}

// load reads both files: one that is replaced before the other does not fit yet.
func (p *pair) load([]byte) error {
	c, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err != nil {
		return err
	}
	p.current.Store(&c)
	return nil
}

func (p *pair) watch(ctx context.Context) error {
	return errors.Join(reload.File(ctx, p.certFile, p.load), reload.File(ctx, p.keyFile, p.load))
}

// covers reports whether the certificate is for name: by a name of the flag, or by one
// that is in it.
func (p *pair) covers(name string) (explicitly, exactly bool, ok bool) {
	names := p.names
	if explicitly = len(names) > 0; !explicitly {
		leaf := p.current.Load().Leaf
		names = append(names, leaf.DNSNames...)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		if leaf.Subject.CommonName != "" {
			names = append(names, leaf.Subject.CommonName)
		}
	}
	_, parent, _ := strings.Cut(name, ".")
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return explicitly, true, true
		}
		if rest, wild := strings.CutPrefix(n, "*."); wild && strings.EqualFold(rest, parent) {
			ok = true
		}
	}
	return explicitly, false, ok
}

// pairs returns the selected certificates, the one of --tls-cert-file apart; nil if
// there is no such.
func (s *Selection) pairs() (first *pair, named []*pair, err error) {
	if (s.CertFile == "") != (s.KeyFile == "") {
		return nil, nil, errors.New("--tls-cert-file and --tls-private-key-file must be specified together")
	}
	if s.CertFile != "" {
		first = &pair{certFile: s.CertFile, keyFile: s.KeyFile}
	}
	for _, spec := range s.SNICertKeys {
		p, err := parsePair(spec)
		if err != nil {
			return nil, nil, err
		}
		named = append(named, p)
	}
	return first, named, nil
}

// Certificates sets what c proves the server with: what own returns, as
// tls.Config.GetCertificate does, where nothing else is selected. Files are read again
// when they change, until ctx is done.
func (s *Selection) Certificates(ctx context.Context, own func(*tls.ClientHelloInfo) (*tls.Certificate, error), c *tls.Config) error {
	first, named, err := s.pairs()
	if err != nil {
		return err
	}
	if first == nil && s.CertDir != "" {
		now, err := own(nil)
		if err != nil {
			return err
		}
		if first, err = inFolder(s.CertDir, now); err != nil {
			return fmt.Errorf("--cert-dir: %w", err)
		}
	}
	if first != nil {
		if err := first.watch(ctx); err != nil {
			return fmt.Errorf("--tls-cert-file and --tls-private-key-file: %w", err)
		}
	}
	for _, p := range named {
		if err := p.watch(ctx); err != nil {
			return fmt.Errorf("--tls-sni-cert-key: %w", err)
		}
	}
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if p := choose(first, named, serverName(hello)); p != nil {
			return p.current.Load(), nil
		}
		return own(hello)
	}
	return nil
}

// inFolder returns the pair of files in dir that is to serve, as upstream names them,
// and makes it of own where there is none.
func inFolder(dir string, own *tls.Certificate) (*pair, error) {
	p := &pair{certFile: filepath.Join(dir, "apiserver.crt"), keyFile: filepath.Join(dir, "apiserver.key")}
	_, noCert := os.Stat(p.certFile)
	_, noKey := os.Stat(p.keyFile)
	if !errors.Is(noCert, fs.ErrNotExist) || !errors.Is(noKey, fs.ErrNotExist) {
		return p, errors.Join(noCert, noKey)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var chain []byte
	for _, der := range own.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: der})...)
	}
	key, err := keyutil.MarshalPrivateKeyToPEM(own.PrivateKey)
	if err != nil {
		return nil, err
	}
	return p, errors.Join(cert.WriteCert(p.certFile, chain), keyutil.WriteKey(p.keyFile, key))
}

// serverName returns the name that the client asks for, else the address that it
// connected to.
func serverName(hello *tls.ClientHelloInfo) string {
	if hello.ServerName != "" {
		return strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	}
	if hello.Conn == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(hello.Conn.LocalAddr().String())
	if err != nil {
		return ""
	}
	return host
}

// choose returns the pair for name, first where no other is for it: names of the flag go
// before those in certificates, whole names before patterns, earlier pairs before later ones.
func choose(first *pair, named []*pair, name string) *pair {
	best, rank := first, 0
	for _, p := range named {
		explicitly, exactly, ok := p.covers(name)
		if !ok {
			continue
		}
		r := 1
		if explicitly {
			r++
		}
		if exactly {
			r += 2
		}
		if r > rank {
			best, rank = p, r
		}
	}
	return best
}
