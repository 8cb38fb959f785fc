package controlplane

import (
	"net/netip"
	"time"

	"k8s.io/utils/clock"

	kadmission "keelson.dev/keelson/internal/apiserver/admission"
	"keelson.dev/keelson/internal/apiserver/auditing"
	"keelson.dev/keelson/internal/apiserver/authn"
	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/apiserver/features"
	"keelson.dev/keelson/internal/apiserver/priority"
	"keelson.dev/keelson/internal/apiserver/serving"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/store/encryption"
	"keelson.dev/keelson/internal/store/etcd"
	"keelson.dev/keelson/internal/trace/otlp"
)

// Options of an API server and its store. The zero value is one in memory, without a
// listener.
type Options struct {
	// DataDir holds the store and the certificates; empty keeps both in memory.
	DataDir string
	// NoSync makes the store not wait for the disk.
	NoSync bool
	// Past is how much of the history of the store is kept on disk.
	Past embedded.PastOptions
	// TraceMemory is how many bytes the record of what caused what may take (default
	// trace.DefaultLimit); a negative number records no writes.
	TraceMemory int
	// OTLP selects where the trace is sent to.
	OTLP otlp.Options
	// From, if set, is the content that a store in memory begins with.
	From *embedded.Content
	// Listen is the address of the API server (host:port; port 0 picks one);
	// empty serves this process only.
	Listen string
	// Advertise is the address that nodes and pods reach the API server by;
	// default is the machine's address towards its default route.
	Advertise netip.Addr
	// ServiceCIDR is the range of cluster addresses (default 10.96.0.0/16).
	// SecondServiceCIDR, if valid, is one of the other family: Services may have
	// addresses of both.
	ServiceCIDR, SecondServiceCIDR netip.Prefix
	// NoDrain ends connections at once when the server stops: for tests, which
	// have no other client to finish.
	NoDrain bool
	// ShutdownDelay is how long Stop still takes requests, while /readyz fails.
	ShutdownDelay time.Duration
	// Etcd, if set, keeps the objects in an etcd cluster, which several servers
	// may share, in place of the embedded store. Servers that do have the same
	// certificates: the folder pki of their data folders is a copy of the first's.
	Etcd *etcd.Options
	// Admission selects and configures the admission plug-ins.
	Admission kadmission.Selection
	// Authentication selects and configures the authenticators.
	Authentication authn.Selection
	// Encryption configures encryption at rest by its File; Start fills in its
	// Resource and Server.
	Encryption encryption.Options
	// Fairness configures how many requests are answered at once.
	Fairness priority.Selection
	// Serving selects the versions and ciphers of TLS and the headers of every
	// answer.
	Serving serving.Selection
	// API holds the other settings of the API server, Tokens those for service
	// accounts' tokens.
	API    API
	Tokens token.Selection
	// Audit selects what is logged of requests, and where.
	Audit auditing.Selection
	// Authorization selects and configures the authorizers.
	Authorization authz.Selection
	// Features are the feature gates that were given, Flags the flags of the process,
	// for /flagz.
	Features features.Gates
	Flags    map[string]string
	Clock    clock.WithTicker
	// DefaultAccounts reports whether a controller beside this server gives each
	// namespace its account "default", for which pods wait a moment.
	DefaultAccounts bool
	// stallLimit, for tests, is the API server's StallLimit.
	stallLimit time.Duration
	// Progress, if set, is called after each step of the start.
	Progress func(step string, took time.Duration)
	// Waiting, if set, is called from time to time during a step that takes
	// long: its name, why where that is known (after a colon), and since when.
	Waiting func(step, why string, since time.Duration)
}

// ServiceRanges returns the ranges of the default ServiceCIDR.
func (o *Options) ServiceRanges() []netip.Prefix {
	if o.SecondServiceCIDR.IsValid() {
		return []netip.Prefix{o.ServiceCIDR, o.SecondServiceCIDR}
	}
	return []netip.Prefix{o.ServiceCIDR}
}
