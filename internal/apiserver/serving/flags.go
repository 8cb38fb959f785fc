package serving

import (
	"strings"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
)

// AddFlags adds upstream's flags of secure serving.
func (s *Selection) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&s.SharePort, "permit-port-sharing", false, "let other processes listen on the same port (SO_REUSEPORT)")
	fs.BoolVar(&s.ShareAddress, "permit-address-sharing", false, "listen although a connection of a former server lasts (SO_REUSEADDR)")
	fs.StringVar(&s.CertFile, "tls-cert-file", "", "file with the certificate, and those that it needs, to serve with, in place of one of the cluster's authority; it is read again when it changes")
	fs.StringVar(&s.KeyFile, "tls-private-key-file", "", "file with the key of --tls-cert-file")
	fs.StringVar(&s.CertDir, "cert-dir", "", "folder of the certificate to serve with, apiserver.crt and apiserver.key, which are made there unless they exist; not with --tls-cert-file (default: in memory)")
	fs.StringArrayVar(&s.SNICertKeys, "tls-sni-cert-key", nil, "files of a certificate and its key, and the names it is for unless those in it: \"foo.crt,foo.key\" or \"foo.crt,foo.key:*.foo.com,foo.com\"; may be given several times. "+
		"They are read again when they change")
	fs.Int32SliceVar(&s.Curves, "tls-curve-preferences", nil, "IDs of the key exchange mechanisms of TLS, as Go's crypto/tls numbers them (default: Go's)")
	fs.BoolVar(&s.NoHTTP2, "disable-http2-serving", false, "serve HTTP/1.1 only")
	fs.IntVar(&s.MaxStreams, "http2-max-streams-per-connection", 0, "how many requests a client may have at once on a connection of HTTP/2 (default 100)")
	fs.StringSliceVar(&s.CORSOrigins, "cors-allowed-origins", nil, "origins that browsers may come from, as regular expressions that match the start and the end of the host, comma separated; none allows no other origin")
	fs.BoolVar(&s.SendRetryAfter, "shutdown-send-retry-after", false, "listen after a signal to end until the requests in flight are finished, and answer others with 429 and a Retry-After header")
	fs.StringVar(&s.MinTLSVersion, "tls-min-version", "", "least version of TLS: "+strings.Join(cliflag.TLSPossibleVersions(), ", ")+" (default: VersionTLS12)")
	fs.StringSliceVar(&s.CipherSuites, "tls-cipher-suites", nil, "cipher suites of TLS 1.2 and below, comma separated (default: Go's)")
	fs.StringSliceVar(&s.StrictTransport, "strict-transport-security-directives", nil, "directives of the Strict-Transport-Security header, comma separated; none sends no such header")
	fs.Float64Var(&s.GoawayChance, "goaway-chance", 0, "how probably (0 to 0.02) a request over HTTP/2 has its client connect anew, so that clients spread over several servers")
}
