package serving

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/server/filters"
	cliflag "k8s.io/component-base/cli/flag"
)

// maxGoaway is upstream's bound: more would have clients reconnect all the time.
const maxGoaway = 0.02

// Selection holds the flags for serving, under upstream's names.
type Selection struct {
	MinTLSVersion string   // --tls-min-version
	CipherSuites  []string // --tls-cipher-suites
	Curves        []int32  // --tls-curve-preferences
	// CertFile and KeyFile are --tls-cert-file and --tls-private-key-file;
	// SNICertKeys are --tls-sni-cert-key.
	CertFile, KeyFile string
	CertDir           string // --cert-dir
	SNICertKeys       []string
	NoHTTP2           bool // --disable-http2-serving
	// MaxStreams is --http2-max-streams-per-connection; 0 is upstream's 100.
	MaxStreams int
	// CORSOrigins is --cors-allowed-origins: regular expressions.
	CORSOrigins []string
	// SharePort and ShareAddress are --permit-port-sharing and
	// --permit-address-sharing.
	SharePort, ShareAddress bool
	// StrictTransport is --strict-transport-security-directives.
	StrictTransport []string
	// GoawayChance is --goaway-chance: how probably a request over HTTP/2 asks its
	// client to connect anew, so that clients spread over several servers.
	GoawayChance float64
	// SendRetryAfter is --shutdown-send-retry-after: a server that stops still
	// answers, that it stops, until the requests from before are finished.
	SendRetryAfter bool
}

// Validate returns an error for an invalid selection.
func (s *Selection) Validate() error {
	var errs []error
	if err := s.ConfigureTLS(&tls.Config{MinVersion: tls.VersionTLS12}); err != nil {
		errs = append(errs, err)
	}
	for _, d := range s.StrictTransport {
		if !strings.HasPrefix(d, "max-age=") && d != "includeSubDomains" && d != "preload" {
			errs = append(errs, fmt.Errorf("--strict-transport-security-directives invalid, allowed values: max-age=expireTime, includeSubDomains, preload. "+
				"see https://tools.ietf.org/html/rfc6797#section-6.1 for more information; found %q", d))
		}
	}
	if _, _, err := s.pairs(); err != nil {
		errs = append(errs, err)
	}
	for _, origin := range s.CORSOrigins {
		if err := validateOrigin(origin); err != nil {
			errs = append(errs, err)
		}
	}
	if s.MaxStreams < 0 {
		errs = append(errs, errors.New("--http2-max-streams-per-connection can not be a negative value"))
	}
	// Written so that NaN is refused too.
	if !(s.GoawayChance >= 0 && s.GoawayChance <= maxGoaway) {
		errs = append(errs, errors.New("--goaway-chance can not be less than 0 or greater than 0.02"))
	}
	return errors.Join(errs...)
}

const originHelp = "List of allowed origins for CORS, comma separated. An allowed origin can be a regular expression to support subdomain matching. " +
	`Each must match the start of the host by "^" or "//" and its end by "$" or the ":" before a port: "//example\.com(:|$)"`

// validateOrigin refuses a pattern that a longer host would match too.
func validateOrigin(pattern string) error {
	if pattern == "" {
		return errors.New("empty value in --cors-allowed-origins, help: " + originHelp)
	}
	_, err := regexp.Compile(pattern)
	if err == nil && (!strings.Contains(pattern, "^") && !strings.Contains(pattern, "//") || !strings.ContainsAny(pattern, "$:")) {
		err = errors.New("regular expression does not pin to start/end of host in the origin header")
	}
	if err != nil {
		return fmt.Errorf("--cors-allowed-origins has an invalid regular expression: %w, help: %s", err, originHelp)
	}
	return nil
}

// ConfigureTLS sets what is selected in c, and leaves the rest as it is.
func (s *Selection) ConfigureTLS(c *tls.Config) error {
	if s.MinTLSVersion != "" {
		v, err := cliflag.TLSVersion(s.MinTLSVersion)
		if err != nil {
			return fmt.Errorf("--tls-min-version: %w", err)
		}
		c.MinVersion = v
	}
	if len(s.CipherSuites) > 0 {
		suites, err := cliflag.TLSCipherSuites(s.CipherSuites)
		if err != nil {
			return fmt.Errorf("--tls-cipher-suites: %w", err)
		}
		if !s.NoHTTP2 && c.MinVersion < tls.VersionTLS13 && !slices.ContainsFunc(suites, http2Requires) {
			return fmt.Errorf("--tls-cipher-suites: HTTP/2 needs TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, found only %s: add one, "+
				"or set --tls-min-version=VersionTLS13", strings.Join(s.CipherSuites, ", "))
		}
		c.CipherSuites = suites
	}
	for _, id := range s.Curves {
		c.CurvePreferences = append(c.CurvePreferences, tls.CurveID(id))
	}
	if s.NoHTTP2 {
		c.NextProtos = []string{"http/1.1"}
	}
	return nil
}

// http2Requires reports whether net/http takes suite as the one that HTTP/2 must have;
// it does not serve without.
func http2Requires(suite uint16) bool {
	return suite == tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 || suite == tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
}

// Handler is h behind what is selected; h itself where nothing is.
func (s *Selection) Handler(h http.Handler) http.Handler {
	if s.GoawayChance > 0 {
		h = goaway(h, func() bool { return rand.Float64() < s.GoawayChance })
	}
	h = filters.WithCORS(h, s.CORSOrigins, nil, nil, nil, "true")
	if len(s.StrictTransport) > 0 {
		h = header(h, "Strict-Transport-Security", strings.Join(s.StrictTransport, "; "))
	}
	return h
}

func header(h http.Handler, name, value string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(name, value)
		h.ServeHTTP(w, r)
	})
}

// goaway has net/http send a GOAWAY frame, which it does for this header: the
// requests on the connection end as they would, the next one opens another.
func goaway(h http.Handler, now func() bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && now() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}
