package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate"

	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/version"
)

// ownCertificate sets the certificate of the node's server. The API server's
// version tells whether it is Keelson's, which signs the certificates of nodes by
// itself.
func (h *host) ownCertificate(m *machine.Machine, o *ProcessOptions) error {
	if o.RotateServerCertificates {
		h.version = version.Info.GitVersion
		return h.rotate(m, o)
	}
	if o.TLSCertFile != "" {
		cert, err := tls.LoadX509KeyPair(o.TLSCertFile, o.TLSPrivateKeyFile)
		if err != nil {
			return fmt.Errorf("--tls-cert-file: %w", err)
		}
		h.certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
		return nil
	}
	own := &issued{addresses: h.addresses, issue: func(ips []net.IP) (tls.Certificate, error) {
		pem, key, err := certutil.GenerateSelfSignedCertKey(o.Name, ips, nil)
		if err != nil {
			return tls.Certificate{}, err
		}
		return tls.X509KeyPair(pem, key)
	}}
	h.certificate = own.get
	_, err := own.get(nil)
	return err
}

// issued is a certificate that this process issues for the node's addresses, and anew
// when they change.
type issued struct {
	addresses *addresses
	issue     func([]net.IP) (tls.Certificate, error)
	// given, if set, returns further addresses, which a cloud has given to the Node.
	given func() []net.IP

	mu   sync.Mutex
	of   []netip.Addr
	cert *tls.Certificate
}

func (i *issued) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.addresses.now()
	if i.given != nil {
		for _, ip := range i.given() {
			if a, ok := netip.AddrFromSlice(ip); ok && !slices.Contains(now, a.Unmap()) {
				now = append(now, a.Unmap())
			}
		}
	}
	if i.cert != nil && slices.Equal(now, i.of) {
		return i.cert, nil
	}
	var ips []net.IP
	for _, ip := range now {
		ips = append(ips, net.IP(ip.AsSlice()))
	}
	cert, err := i.issue(ips)
	if err != nil {
		return nil, fmt.Errorf("a certificate of the node's own: %w", err)
	}
	i.of, i.cert = now, &cert
	return i.cert, nil
}

// rotate requests the certificate of the node's server, and another before it ends.
func (h *host) rotate(m *machine.Machine, o *ProcessOptions) error {
	dir := filepath.Join(m.Dir(), "pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files, err := certificate.NewFileStore("kubelet-server", dir, dir, "", "")
	if err != nil {
		return err
	}
	certificates, err := certificate.NewManager(&certificate.Config{
		ClientsetFn: func(*tls.Certificate) (kubernetes.Interface, error) { return h.client, nil },
		SignerName:  certificatesv1.KubeletServingSignerName,
		GetTemplate: func() *x509.CertificateRequest {
			names, ips := []string{o.Name}, h.addresses.ips()
			if o.ExternalCloud {
				if names, ips = h.nodeNames(o.Name); len(ips) == 0 {
					return nil // the cloud has yet to give them
				}
			}
			return &x509.CertificateRequest{Subject: pkix.Name{CommonName: nodeUser + o.Name, Organization: []string{user.NodesGroup}}, DNSNames: names, IPAddresses: ips}
		},
		Usages:           []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
		CertificateStore: files,
		Name:             "kubelet-server",
	})
	if err != nil {
		return fmt.Errorf("the certificate of the node's server: %w", err)
	}
	certificates.Start()
	context.AfterFunc(h.Ctx, certificates.Stop)
	h.certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := certificates.Current(); c != nil {
			return c, nil
		}
		return nil, errors.New("no serving certificate available for the kubelet")
	}
	return nil
}

// nodeNames returns the names and the addresses that the Node has, none where there is
// no Node yet.
func (h *host) nodeNames(node string) (names []string, ips []net.IP) {
	n, err := h.informers.Core().V1().Nodes().Lister().Get(node)
	if err != nil {
		return nil, nil
	}
	for _, a := range n.Status.Addresses {
		if ip := net.ParseIP(a.Address); ip != nil {
			ips = append(ips, ip)
		} else {
			names = append(names, a.Address)
		}
	}
	return names, ips
}

// clientCA returns the authority, in PEM, of the client certificates that the node's
// server accepts.
func (o *ProcessOptions) clientCA(cfg *rest.Config) ([]byte, error) {
	file := cmp.Or(o.ClientCAFile, cfg.CAFile)
	if file == "" {
		if len(cfg.CAData) == 0 {
			return nil, errors.New("the kubeconfig has no authority by which callers of the node could be known: give --client-ca-file")
		}
		return cfg.CAData, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--client-ca-file: %w", err)
	}
	return pem, nil
}
