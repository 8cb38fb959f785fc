package controllers

import (
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/network/lb"
	"keelson.dev/keelson/internal/nodegroup"
	"keelson.dev/keelson/internal/reconcile"
)

// Row is a controller in the table of controllers.
type Row struct {
	// Name is upstream's name of the controller, for example
	// "deployment-controller"; Aliases are the other names that --controllers
	// takes for it.
	Name    string
	Aliases []string
	// Identity is the service account of kube-system that the controller acts
	// as; its role is in internal/apiserver/authz.
	Identity string
	// Events is the component that its events name as their source and as their
	// reporting controller; Identity where it is empty.
	Events string
	// Off keeps the controller from running unless --controllers names it.
	Off bool
	// Watches are the built-in resources that the constructor asks c.Informers
	// for. The garbage collector shares these informers.
	Watches []schema.GroupVersionResource
	// New makes the controller: it registers handlers with informers, and starts
	// nothing. A nil reconcile.Run means that the context lacks what the controller needs.
	New func(c Context) (reconcile.Run, error)
}

// Component returns the source of the controller's events.
func (r *Row) Component() string {
	if r.Events != "" {
		return r.Events
	}
	return r.Identity
}

// Context holds the dependencies of controllers: its fields are shared, its
// methods give clients of a controller's own identity.
type Context struct {
	// Clients, Metadatas and Configs give clients of the service account
	// system:serviceaccount:kube-system:<identity>: of built-in resources, of
	// the metadata of all resources, and for a client of any other kind.
	// Metadatas and Configs may be nil.
	Clients   func(identity string) kubernetes.Interface
	Metadatas func(identity string) metadata.Interface
	Configs   func(identity string) *rest.Config
	// Broadcaster is the one event broadcaster of all controllers.
	Broadcaster record.EventBroadcaster
	Informers   informers.SharedInformerFactory
	// Discovery names the cluster's resources, which come and go with CRDs. It
	// may be nil.
	Discovery discovery.DiscoveryInterface
	// RESTMapper finds an owner reference's resource. It is reset, where it can
	// be, when the resources change. It is nil where Discovery is.
	RESTMapper meta.RESTMapper
	Clock      clock.WithTicker
	// NodeGroups makes and deletes nodes for the cluster autoscaler, which there is not
	// where it is nil; Autoscaling configures it.
	NodeGroups  nodegroup.Provider
	Autoscaling nodegroup.Options
	// Metrics takes the controllers' own metrics; it may be nil.
	Metrics prometheus.Registerer
	// Shared are the resources that some controller has an informer for.
	Shared []schema.GroupVersionResource
	// RootCA is the PEM bundle that clients verify the API server with. Where it
	// is empty it is not published.
	RootCA []byte
	// Sign issues a certificate, in PEM, with the cluster's authority. Where it
	// is nil no certificates are signed.
	Sign func(template *x509.Certificate, public any) ([]byte, error)
	// LegacyToken returns the token that is in secret, of an account. Where it is
	// nil secrets are not filled with tokens.
	LegacyToken func(account *v1.ServiceAccount, secret *v1.Secret) (string, error)

	// PodRanges are the ranges that nodes get theirs of pods' addresses from, none or
	// one of a family; ServiceRanges are those of the Services, which are not given.
	PodRanges     []PodRange
	ServiceRanges []netip.Prefix

	// LoadBalancer configures the load balancers of Services. Where it is nil they
	// are left to others.
	LoadBalancer *lb.Options

	// Tuning configures the controllers; nil is DefaultTuning.
	Tuning *Tuning

	identity, component, name string
}

// PodRange is a range of which each node gets a part.
type PodRange struct {
	Cluster netip.Prefix
	// NodeBits is the length of the mask of a node's part.
	NodeBits int
}

// For returns the context that row's controller is made with.
func (c Context) For(row *Row) Context {
	c.identity, c.component, c.name = row.Identity, row.Component(), row.Name
	return c
}

// Client returns the controller's client.
func (c Context) Client() kubernetes.Interface { return c.Clients(c.identity) }

// Metadata returns the controller's client of the metadata of all resources, or
// nil.
func (c Context) Metadata() metadata.Interface {
	if c.Metadatas == nil {
		return nil
	}
	return c.Metadatas(c.identity)
}

// Config returns the configuration of the controller's clients.
func (c Context) Config() *rest.Config { return c.Configs(c.identity) }

// Recorder returns the controller's event recorder. All recorders share the
// context's broadcaster, hence its goroutines.
func (c Context) Recorder() record.EventRecorder {
	return c.Broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: c.component})
}

// Queue makes a queue of the controller's; name is the one in metrics.
func (c Context) Queue(name string) reconcile.Queue { return reconcile.NewQueue(name, c.Clock) }

// QueueUpTo makes a queue in which the longest backoff is most.
func (c Context) QueueUpTo(name string, most time.Duration) reconcile.Queue {
	return reconcile.NewQueueUpTo(name, c.Clock, most)
}

// Tuned returns how the controllers are configured.
func (c Context) Tuned() Tuning {
	if c.Tuning == nil {
		return DefaultTuning()
	}
	return *c.Tuning
}

// Workers returns how many objects the controller reconciles at once, usual where it is
// not configured.
func (c Context) Workers(usual int) int {
	if n := c.Tuned().Workers[c.name]; n > 0 {
		return n
	}
	return usual
}
