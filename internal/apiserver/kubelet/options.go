// Package kubelet is the API server's way to the agents of nodes. It may import
// packages apiserver, apiserver/authz, apiserver/certs and version.
package kubelet

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
)

// Options configures the connections to node agents.
type Options struct {
	// CAFile has the authority of the certificates of kubelets; those of Keelson's own
	// agents are of the cluster's. CertFile and KeyFile are what both know this server by.
	CAFile, CertFile, KeyFile string
	// AddressTypes are tried in this order (default InternalIP, Hostname).
	AddressTypes []string
	// Timeout bounds the connection to one; 0 is ten seconds.
	Timeout time.Duration
}

// Validate returns an error for invalid settings.
func (o *Options) Validate() error {
	var errs []error
	if o.Timeout < 0 {
		errs = append(errs, errors.New("--kubelet-timeout can not be a negative value"))
	}
	for _, t := range o.AddressTypes {
		if !slices.Contains([]v1.NodeAddressType{v1.NodeHostName, v1.NodeInternalIP, v1.NodeExternalIP, v1.NodeInternalDNS, v1.NodeExternalDNS}, v1.NodeAddressType(t)) {
			errs = append(errs, fmt.Errorf("--kubelet-preferred-address-types %q: there are Hostname, InternalDNS, InternalIP, ExternalDNS and ExternalIP", t))
		}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		errs = append(errs, errors.New("--kubelet-client-certificate: a certificate and its key must be specified together"))
	}
	return errors.Join(errs...)
}

// AddFlags adds upstream's flags of how the API server reaches node agents.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.CAFile, "kubelet-certificate-authority", "", "certificates of the authority of kubelets' certificates, which are not verified without it; those of Keelson's own agents always are, by the cluster's authority")
	fs.StringVar(&o.CertFile, "kubelet-client-certificate", "", "file with the certificate that nodes know this server by (default: one of the cluster's authority)")
	fs.StringVar(&o.KeyFile, "kubelet-client-key", "", "file with the key of --kubelet-client-certificate")
	fs.StringSliceVar(&o.AddressTypes, "kubelet-preferred-address-types", nil, "types of the nodes' addresses to reach them by, in this order (default: InternalIP,Hostname)")
	fs.DurationVar(&o.Timeout, "kubelet-timeout", 10*time.Second, "how long connecting to a node may take")
}
