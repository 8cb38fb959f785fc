package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/util/certificate"
)

// nodeUser begins the name of a node's user.
const nodeUser = "system:node:"

// Client manages the credentials of a node's client in a folder.
type Client struct {
	// Dir is the folder; Node is the node's name.
	Dir, Node string
	// Servers are the URLs of the API server, which are tried in turn, Token and Hashes are
	// the bootstrap token and the hashes of the cluster's authority with which the machine
	// joins. They are not needed after that, except other Servers where the API server has
	// moved.
	Servers []string
	Token   string
	Hashes  []string
}

// clusterName is the name of the cluster in the kubeconfig.
const clusterName = "keelson"

// pair is the prefix of the files of the client's certificate, the kubelet's.
const pair = "kubelet-client"

// Kubeconfig returns the path of the file with the URL and the authority of the API
// server, and the node's certificate.
func (c *Client) Kubeconfig() string { return filepath.Join(c.Dir, "kubeconfig") }

func (c *Client) pki() string { return filepath.Join(c.Dir, "pki") }

// approvalPatience is how long a request for a certificate may wait for its approval.
const approvalPatience = 2 * time.Minute

// Obtain makes sure that there is a kubeconfig with a certificate that has not expired.
// A machine that has joined needs no token; its kubeconfig gets the first of Servers where it has
// none of them; by that the cluster's own authority has to answer as before.
func (c *Client) Obtain(ctx context.Context) error {
	ended, err := c.joined()
	if err != nil {
		return err
	}
	if ended == nil {
		return c.move()
	}
	if c.Token == "" || len(c.Servers) == 0 {
		return fmt.Errorf("%w: give --server, --token and --ca-hash, as keelson token create --print-join-command prints them", ended)
	}
	t, err := Parse(c.Token)
	if err != nil {
		return err
	}
	server, ca, err := c.discover(ctx, t)
	if err != nil {
		return err
	}
	config := &rest.Config{Host: server, BearerToken: t.String(), TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := c.free(ctx, client); err != nil {
		return err
	}
	certificates, err := c.manager(client, func() {})
	if err != nil {
		return err
	}
	certificates.Start()
	defer certificates.Stop()
	wanted, cancel := context.WithTimeout(ctx, approvalPatience)
	defer cancel()
	if err := wait.PollUntilContextCancel(wanted, 50*time.Millisecond, true, func(context.Context) (bool, error) { return certificates.Current() != nil, nil }); err != nil {
		return fmt.Errorf("no certificate for the node's client within %s: see kubectl get certificatesigningrequests, and approve the node's with kubectl certificate approve", approvalPatience)
	}
	return c.write(server, ca)
}

// othersPatience is how long a server may not answer if there is another to be asked.
const othersPatience = 15 * time.Second

// discover returns the first of the servers that is the cluster's, and its authority.
func (c *Client) discover(ctx context.Context, t Token) (server string, ca []byte, err error) {
	var errs []error
	for i, server := range c.Servers {
		asked, cancel := ctx, context.CancelFunc(func() {})
		if i < len(c.Servers)-1 {
			asked, cancel = context.WithTimeout(ctx, othersPatience)
		}
		ca, err := Discover(asked, server, t, c.Hashes)
		cancel()
		if err == nil {
			return server, ca, nil
		}
		errs = append(errs, err)
	}
	return "", nil, errors.Join(errs...)
}

// joined reports in ended why the machine has to join, nil if it has joined; err
// is a failure to read its files.
func (c *Client) joined() (ended, err error) {
	if _, err := os.Stat(c.Kubeconfig()); errors.Is(err, os.ErrNotExist) {
		return errors.New("this machine has joined no cluster yet"), nil
	} else if err != nil {
		return nil, err
	}
	files, err := c.store()
	if err != nil {
		return nil, err
	}
	cert, err := files.Current()
	if err != nil {
		return fmt.Errorf("the node's certificate in %s cannot be read: %w", c.pki(), err), nil //nolint:nilerr // the certificate is requested again
	}
	if cert.Leaf != nil && time.Now().After(cert.Leaf.NotAfter) {
		return fmt.Errorf("the node's certificate in %s has ended on %s", c.pki(), cert.Leaf.NotAfter.Format(time.DateOnly)), nil
	}
	return nil, nil
}

// move writes the first of Servers, if there are any, into the kubeconfig if that has none
// of them: the API server has other addresses than when the machine joined.
func (c *Client) move() error {
	if len(c.Servers) == 0 {
		return nil
	}
	config, err := clientcmd.LoadFromFile(c.Kubeconfig())
	if err != nil {
		return err
	}
	cluster := config.Clusters[clusterName]
	if cluster == nil || slices.Contains(c.Servers, cluster.Server) {
		return nil
	}
	cluster.Server = c.Servers[0]
	text, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return renameio.WriteFile(c.Kubeconfig(), text, 0o600)
}

// free returns an error if another machine is the node of this name: it would share its
// identity.
func (c *Client) free(ctx context.Context, client kubernetes.Interface) error {
	n, err := client.CoreV1().Nodes().Get(ctx, c.Node, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err): // a token of other groups may not read Nodes
		return nil
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server does not take the token: make another with keelson token create: %w", err)
	case err != nil:
		return fmt.Errorf("looking for a Node called %s: %w", c.Node, err)
	}
	for _, x := range n.Status.Conditions {
		if x.Type == v1.NodeReady && x.Status == v1.ConditionTrue {
			return fmt.Errorf("a Node with name %q and status %q already exists in the cluster. You must delete the existing Node or change the name of this new joining Node with --node-name", c.Node, v1.NodeReady)
		}
	}
	return nil
}

func (c *Client) store() (certificate.FileStore, error) {
	if err := os.MkdirAll(c.pki(), 0o700); err != nil {
		return nil, err
	}
	return certificate.NewFileStore(pair, c.pki(), c.pki(), "", "")
}

// watchedStore calls renewed when another certificate has been written.
type watchedStore struct {
	certificate.FileStore
	renewed func()
}

// Update implements certificate.Store.
func (s watchedStore) Update(cert, key []byte) (*tls.Certificate, error) {
	pair, err := s.FileStore.Update(cert, key)
	if err == nil {
		s.renewed()
	}
	return pair, err
}

// manager requests certificates through a client, and calls renewed when it has
// written one.
func (c *Client) manager(client kubernetes.Interface, renewed func()) (certificate.Manager, error) {
	files, err := c.store()
	if err != nil {
		return nil, err
	}
	m, err := certificate.NewManager(&certificate.Config{
		ClientsetFn: func(*tls.Certificate) (kubernetes.Interface, error) { return client, nil },
		Template:    &x509.CertificateRequest{Subject: pkix.Name{CommonName: nodeUser + c.Node, Organization: []string{user.NodesGroup}}},
		SignerName:  certificatesv1.KubeAPIServerClientKubeletSignerName,
		GetUsages:   certificate.DefaultKubeletClientGetUsages, CertificateStore: watchedStore{files, renewed}, Name: pair,
	})
	if err != nil {
		return nil, fmt.Errorf("the certificate of the node's client: %w", err)
	}
	return m, nil
}

// write writes the kubeconfig. It refers to the certificate's file, which clients
// read again when it has been renewed.
func (c *Client) write(server string, ca []byte) error {
	files, err := c.store()
	if err != nil {
		return err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[clusterName] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos["node"] = &clientcmdapi.AuthInfo{ClientCertificate: files.CurrentPath(), ClientKey: files.CurrentPath()}
	config.Contexts["node"] = &clientcmdapi.Context{Cluster: clusterName, AuthInfo: "node"}
	config.CurrentContext = "node"
	text, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return renameio.WriteFile(c.Kubeconfig(), text, 0o600)
}

// Transport returns a transport for cfg, which is that of Kubeconfig, that reads the
// certificate whenever it opens a connection. (That of client-go may use a former one for
// a while.)
func (c *Client) Transport(cfg *rest.Config) (http.RoundTripper, error) {
	files, err := c.store()
	if err != nil {
		return nil, err
	}
	t, err := cfg.TransportConfig()
	if err != nil {
		return nil, err
	}
	t.TLS.CertFile, t.TLS.KeyFile, t.TLS.ReloadTLSFiles = "", "", false
	t.TLS.GetCertHolder = &transport.GetCertHolder{GetCert: files.Current}
	return transport.New(t)
}

// Rotate renews the certificate until ctx is done, when 70 to 90 % of its life have
// passed, through a client of the node. It calls renewed after it has written another:
// connections that use the former have to be closed, since the API server refuses their
// requests when that expires.
func (c *Client) Rotate(ctx context.Context, client kubernetes.Interface, renewed func()) error {
	m, err := c.manager(client, renewed)
	if err != nil {
		return err
	}
	m.Start()
	context.AfterFunc(ctx, m.Stop)
	return nil
}
