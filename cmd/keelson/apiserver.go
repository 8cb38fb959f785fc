package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"keelson.dev/keelson/internal/cluster"
)

// apiServerFlags are those of upstream's kube-apiserver that are not of
// authentication, authorization, admission, audit or etcd.
type apiServerFlags struct {
	cluster.APIServer
	bind                      string
	port                      int
	serviceRange              string
	nodePorts                 string
	minRequestSeconds         int
	profiling, contention     bool
	logs                      bool
	extend                    bool
	notReady, unreachable     int64
	kubernetesServiceNodePort int
	gates                     featureGates
}

func (f *serverFlags) addAPIServer(c *cobra.Command) {
	a, t, s, flags := &f.api, &f.tokens, &f.serving, c.Flags()
	flags.StringVar(&a.bind, "bind-address", "0.0.0.0", "IP address to listen on, with --secure-port; in place of --listen")
	flags.IntVar(&a.port, "secure-port", 6443, "port to listen on, with --bind-address; in place of --listen")
	flags.BoolVar(&s.SharePort, "permit-port-sharing", false, "let other processes listen on the same port (SO_REUSEPORT)")
	flags.BoolVar(&s.ShareAddress, "permit-address-sharing", false, "listen although a connection of a former server lasts (SO_REUSEADDR)")
	flags.StringVar(&a.ExternalHostname, "external-hostname", "", "host name (or host:port) for the URLs of this server that others get, as OpenID discovery's (default: --advertise-address)")

	flags.StringVar(&s.CertFile, "tls-cert-file", "", "file with the certificate, and those that it needs, to serve with, in place of one of the cluster's authority; it is read again when it changes")
	flags.StringVar(&s.KeyFile, "tls-private-key-file", "", "file with the key of --tls-cert-file")
	flags.StringVar(&s.CertDir, "cert-dir", "", "folder of the certificate to serve with, apiserver.crt and apiserver.key, which are made there unless they exist; not with --tls-cert-file (default: in memory)")
	flags.StringArrayVar(&s.SNICertKeys, "tls-sni-cert-key", nil, "files of a certificate and its key, and the names it is for unless those in it: \"foo.crt,foo.key\" or \"foo.crt,foo.key:*.foo.com,foo.com\"; may be given several times. "+
		"They are read again when they change")
	flags.Int32SliceVar(&s.Curves, "tls-curve-preferences", nil, "IDs of the key exchange mechanisms of TLS, as Go's crypto/tls numbers them (default: Go's)")
	flags.BoolVar(&s.NoHTTP2, "disable-http2-serving", false, "serve HTTP/1.1 only")
	flags.IntVar(&s.MaxStreams, "http2-max-streams-per-connection", 0, "how many requests a client may have at once on a connection of HTTP/2 (default 100)")
	flags.StringSliceVar(&s.CORSOrigins, "cors-allowed-origins", nil, "origins that browsers may come from, as regular expressions that match the start and the end of the host, comma separated; none allows no other origin")

	flags.StringVar(&f.authentication.ClientCAFile, "client-ca-file", "", "certificates of authorities whose client certificates are taken besides the cluster's own; the file is read again when it changes")
	flags.StringArrayVar(&t.Issuers, "service-account-issuer", nil, "issuer of service accounts' tokens; of several the first issues and all are accepted (default: https://kubernetes.default.svc.cluster.local)")
	flags.StringSliceVar(&t.Audiences, "api-audiences", nil, "audiences of which a token has to be for one (default: the issuer)")
	flags.StringVar(&t.JWKSURI, "service-account-jwks-uri", "", "URL of the keys in the discovery document of the issuer (default: this server's)")
	flags.StringVar(&t.SigningKeyFile, "service-account-signing-key-file", "", "file with the private key that tokens are signed with (default: the one in --data-dir)")
	flags.StringArrayVar(&t.KeyFiles, "service-account-key-file", nil, "file with public or private keys that tokens may be signed with, besides that; may be given several times")
	flags.StringVar(&t.SigningEndpoint, "service-account-signing-endpoint", "", "Unix socket of an external signer of service accounts' tokens (KEP-740), in place of --service-account-signing-key-file and --service-account-key-file")
	flags.DurationVar(&t.MaxExpiration, "service-account-max-token-expiration", 0, "greatest life of a token that is asked for; 0 is 2^32 seconds")
	flags.BoolVar(&a.extend, "service-account-extend-token-expiration", true, "let the tokens that pods are given live for a year, and warn of the use of one that should have been replaced")

	flags.StringToStringVar((*map[string]string)(&a.RuntimeConfig), "runtime-config", nil, "which versions of the API are served: api/all, api/ga, api/beta, api/alpha, group/version or group/version/resource, each =true or =false, comma separated")
	flags.Var(&a.gates, "feature-gates", "feature gates, name=bool, comma separated: "+strings.Join(cluster.Switchable(), ", ")+" can be switched, all others are taken at their default only")
	flags.Int64Var(&a.notReady, "default-not-ready-toleration-seconds", 300, "how long pods stay on a node that is not ready, where they do not say it")
	flags.Int64Var(&a.unreachable, "default-unreachable-toleration-seconds", 300, "how long pods stay on a node that is not reachable, where they do not say it")
	flags.DurationVar(&a.EventTTL, "event-ttl", time.Hour, "how long Events are kept")
	flags.IntVar(&a.minRequestSeconds, "min-request-timeout", 1800, "seconds that a watch lasts at least that asks for no other time; up to twice as long, at random; 0 ends none")
	flags.DurationVar(&a.RequestTimeout, "request-timeout", time.Minute, "how long a request may take that is no watch or stream; its timeout parameter can only shorten it")
	flags.BoolVar(&s.SendRetryAfter, "shutdown-send-retry-after", false, "listen after a signal to end until the requests in flight are finished, and answer others with 429 and a Retry-After header")
	flags.StringVar(&a.serviceRange, "service-cluster-ip-range", "", "range of the services' addresses; upstream's name of --service-cidr")
	flags.StringVar(&a.nodePorts, "service-node-port-range", "30000-32767", "ports of services of type NodePort")
	flags.IntVar(&a.kubernetesServiceNodePort, "kubernetes-service-node-port", 0, "node port of the service kubernetes, which has none by default")

	flags.StringVar(&a.Kubelet.CAFile, "kubelet-certificate-authority", "", "certificates of the authority of kubelets' certificates, which are not verified without it; those of Keelson's own agents always are, by the cluster's authority")
	flags.StringVar(&a.Kubelet.CertFile, "kubelet-client-certificate", "", "file with the certificate that nodes know this server by (default: one of the cluster's authority)")
	flags.StringVar(&a.Kubelet.KeyFile, "kubelet-client-key", "", "file with the key of --kubelet-client-certificate")
	flags.StringSliceVar(&a.Kubelet.AddressTypes, "kubelet-preferred-address-types", nil, "types of the nodes' addresses to reach them by, in this order (default: InternalIP,Hostname)")
	flags.DurationVar(&a.Kubelet.Timeout, "kubelet-timeout", 10*time.Second, "how long connecting to a node may take")
	flags.StringVar(&a.ProxyClientCertFile, "proxy-client-cert-file", "", "file with the certificate that aggregated API servers know this one by (default: one of the cluster's front proxy authority)")
	flags.StringVar(&a.ProxyClientKeyFile, "proxy-client-key-file", "", "file with the key of --proxy-client-cert-file")

	flags.BoolVar(&a.profiling, "profiling", true, "serve Go's profiles at /debug/pprof/, and the log level at /debug/flags/v")
	flags.BoolVar(&a.contention, "contention-profiling", false, "with --profiling: also how long goroutines wait for locks")
	flags.StringVar(&a.DebugSocket, "debug-socket-path", "", "Unix socket that serves /debug/pprof/ and /debug/flags/v without authentication")
	flags.BoolVar(&a.logs, "enable-logs-handler", true, "serve the machine's /var/log at /logs")
	flags.StringSliceVar(&a.HiddenMetrics, "disabled-metrics", nil, "names of metrics to leave out of /metrics, comma separated")
	addTold(flags)
}

// apiOptions fills in what the flags of the API server say, of which changed tells
// which were given.
func (f *serverFlags) apiOptions(o *cluster.Options, changed func(string) bool) error {
	a := &f.api
	var errs []error
	if changed("bind-address") || changed("secure-port") {
		if changed("listen") {
			errs = append(errs, errors.New("--listen and --bind-address with --secure-port say the same: give one of both"))
		}
		if net.ParseIP(a.bind) == nil && a.bind != "" {
			errs = append(errs, fmt.Errorf("--bind-address %q: give an IP address", a.bind))
		}
		if a.port < 1 || a.port > 65535 {
			errs = append(errs, fmt.Errorf("--secure-port %d must be between 1 and 65535, inclusive. It cannot be turned off with 0", a.port))
		}
		o.Listen = net.JoinHostPort(a.bind, strconv.Itoa(a.port))
	}
	if a.serviceRange != "" {
		if changed("service-cidr") {
			errs = append(errs, errors.New("--service-cidr and --service-cluster-ip-range say the same: give one of both"))
		}
		if strings.Contains(a.serviceRange, ",") {
			errs = append(errs, errors.New("--service-cluster-ip-range: give one range: services have addresses of one family"))
		}
		f.serviceCIDR = a.serviceRange
	}
	if ports, err := utilnet.ParsePortRange(a.nodePorts); err != nil {
		errs = append(errs, fmt.Errorf("--service-node-port-range %q: %w: give a range like 30000-32767", a.nodePorts, err))
	} else {
		a.NodePorts = *ports
	}
	for flag, n := range map[string]int64{"default-not-ready-toleration-seconds": a.notReady, "default-unreachable-toleration-seconds": a.unreachable, "min-request-timeout": int64(a.minRequestSeconds)} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("--%s can not be a negative value", flag))
		}
	}
	a.MinRequestTimeout = time.Duration(a.minRequestSeconds) * time.Second
	a.NodePort = int32(a.kubernetesServiceNodePort)
	a.NoProfiling, a.NoLogs = !a.profiling, !a.logs
	f.tokens.NoExtension = !a.extend
	o.Admission.NotReadySeconds, o.Admission.UnreachableSeconds = &a.notReady, &a.unreachable
	o.API, o.Tokens, o.Features = a.APIServer, f.tokens, a.gates.given
	errs = append(errs, o.API.Validate(), o.Tokens.Validate())
	if a.minRequestSeconds == 0 {
		o.API.MinRequestTimeout = -1
	}
	return errors.Join(errs...)
}

// profileContention has the process note how long its goroutines wait for locks.
func (a *apiServerFlags) profileContention() {
	if a.profiling && a.contention {
		runtime.SetBlockProfileRate(1)
	}
}
