package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver"
	kadmission "keelson.dev/keelson/internal/apiserver/admission"
	"keelson.dev/keelson/internal/apiserver/auditing"
	"keelson.dev/keelson/internal/apiserver/authn"
	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/kubernetesservice"
	"keelson.dev/keelson/internal/apiserver/priority"
	"keelson.dev/keelson/internal/apiserver/serviceip"
	"keelson.dev/keelson/internal/apiserver/serving"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/apiserver/usage"
	"keelson.dev/keelson/internal/cluster/inprocess"
	"keelson.dev/keelson/internal/controllers/nodeipam"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/store/encryption"
	"keelson.dev/keelson/internal/store/etcd"
	"keelson.dev/keelson/internal/trace"
)

// Options of a cluster. The zero value is one in memory, without a listener
// and without nodes.
type Options struct {
	// DataDir holds the store and the certificates; empty keeps both in memory.
	DataDir string
	// NoSync has the store not wait for the disk.
	NoSync bool
	// Listen is the address of the API server (host:port; port 0 picks one);
	// empty serves this process only.
	Listen string
	// Advertise is the address that nodes and pods reach the API server by;
	// default is the machine's address towards its default route.
	Advertise netip.Addr
	// ServiceCIDR is the range of cluster addresses (default 10.96.0.0/16).
	ServiceCIDR netip.Prefix
	// NodeIPAM selects the ranges that nodes get theirs of pods' addresses from.
	NodeIPAM nodeipam.Selection
	// NoControllers and NoScheduler leave these out.
	NoControllers, NoScheduler bool
	// Controllers selects the controllers to run, in the form of upstream's
	// --controllers; none is all.
	Controllers []string
	// NoDrain ends connections at once when the cluster stops: for tests, which
	// have no other client to finish.
	NoDrain bool
	// ShutdownDelay is how long Stop still takes requests, while /readyz fails.
	ShutdownDelay time.Duration
	// Etcd, if set, keeps the objects in an etcd cluster, which several servers
	// may share, in place of the embedded store. Servers that do have the same
	// certificates: the folder pki of their data folders is a copy of the first's.
	Etcd *etcd.Options
	// SimNodes is the number of simulated nodes.
	SimNodes int
	// Admission selects and configures the admission plug-ins.
	Admission kadmission.Selection
	// Authentication selects and configures the authenticators.
	Authentication authn.Selection
	// Encryption configures encryption at rest by its File; the cluster fills in
	// its Resource and Server.
	Encryption encryption.Options
	// Fairness configures how many requests are answered at once.
	Fairness priority.Selection
	// Serving selects the TLS that is spoken and the headers of every answer.
	Serving serving.Selection
	// API holds the other settings of the API server, Tokens those for service
	// accounts' tokens.
	API    APIServer
	Tokens token.Selection
	// Audit selects what is logged of requests, and where.
	Audit auditing.Selection
	// Authorization selects and configures the authorizers.
	Authorization authz.Selection
	// Features are the feature gates that were given, Flags the flags of the process,
	// for /flagz.
	Features Features
	Flags    map[string]string
	Clock    clock.WithTicker
	// stallLimit, for tests, is the API server's StallLimit.
	stallLimit time.Duration
	// Progress, if set, is told of each step of the start.
	Progress func(step string, took time.Duration)
	// Waiting, if set, is told now and then of a step that takes long: its name,
	// why where that is known (after a colon), and since when.
	Waiting func(step, why string, since time.Duration)
}

// Cluster is a running control plane.
type Cluster struct {
	Options
	Store     store.Store
	Server    *apiserver.Server
	Catalogue *catalogue.Catalogue
	Informers *inprocess.Informers
	Certs     *certs.Bundle
	Trace     *trace.Recorder
	// Address is where the API server listens; empty if it does not.
	Address string

	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup
	http       *http.Server
	nodes      *nodeTransport
	tokens     *token.Authority
	auditor    *auditing.Auditor // nil if nothing is logged
	encryption *encryption.Codec // nil if nothing is encrypted
	why        atomic.Value      // string: what a step that takes long waits for
	allocator  *serviceip.Allocator
	meter      *usage.Meter
	// services is made by serviceResolver.
	services webhook.ServiceResolver
}

// builtinTypes are shared by the clusters of a process. The first write needs them,
// and Start has them read while it does other things.
var builtinTypes = sync.OnceValue(func() managedfields.TypeConverter { return apiserver.NewTypes(catalogue.Scheme) })

// historySteps is how many writes the trace remembers.
const historySteps = 20_000

// Start starts a cluster and returns when its API server is ready. It ends
// when ctx does; Stop waits for the end.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.API.RequestTimeout == 0 {
		o.API.RequestTimeout = time.Minute
	}
	if !o.ServiceCIDR.IsValid() {
		o.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")
	}
	if !o.Advertise.IsValid() {
		o.Advertise = advertised()
	}
	o.NodeIPAM.Complete(o.SimNodes)
	hidden, err := o.API.RuntimeConfig.Hidden(catalogue.Builtin())
	if err != nil {
		return nil, err
	}
	c := &Cluster{Options: o, Catalogue: catalogue.NewHiding(catalogue.Builtin(), hidden), Trace: trace.NewRecorder(historySteps)}
	c.ctx, c.cancel = context.WithCancel(ctx)
	go builtinTypes()
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) step(name string, f func() error) error {
	begin := time.Now()
	if c.Waiting != nil {
		done := make(chan struct{})
		defer close(done)
		go func() {
			t := time.NewTicker(waitingPeriod)
			defer t.Stop()
			for {
				select {
				case <-t.C:
					why, _ := c.why.Load().(string)
					c.Waiting(name, why, time.Since(begin))
				case <-done:
					return
				}
			}
		}()
	}
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if c.Progress != nil {
		c.Progress(name, time.Since(begin))
	}
	return nil
}

// waitingPeriod is how often Options.Waiting is told of a step.
const waitingPeriod = 3 * time.Second

func (c *Cluster) start() error {
	var listener net.Listener
	if c.Listen != "" {
		// First, because it is what fails most often.
		err := c.step("listen", func() (err error) {
			listener, err = c.Serving.Listen(c.ctx, c.Listen)
			if err != nil {
				return fmt.Errorf("%w: stop what listens there, or choose another address with --listen", err)
			}
			c.Address = listener.Addr().String()
			return nil
		})
		if err != nil {
			return err
		}
	}
	fail := func(err error) error {
		if listener != nil {
			listener.Close()
		}
		return err
	}
	if err := c.step("store", c.openStore); err != nil {
		return fail(err)
	}
	if err := c.step("certificates", c.ensureCerts); err != nil {
		return fail(err)
	}
	if err := c.step("bootstrap", c.bootstrap); err != nil {
		return fail(err)
	}
	if err := c.step("api server", func() error { return c.startServer(listener) }); err != nil {
		return fail(err)
	}
	if !c.NoControllers {
		err := c.step("controllers", func() error {
			return c.leader().lead("kube-controller-manager", c.Client(controllerManagerUser), c.startControllers)
		})
		if err != nil {
			return err
		}
	}
	if !c.NoScheduler {
		err := c.step("scheduler", func() error {
			client := c.Client(schedulerUser)
			return c.leader().lead("kube-scheduler", client, func(t term) error { return t.startScheduler(client, c.Clock) })
		})
		if err != nil {
			return err
		}
	}
	if c.SimNodes > 0 {
		if err := c.step("simulated nodes", c.startSimNodes); err != nil {
			return err
		}
	}
	c.Informers.StartWithContext(c.ctx)
	return nil
}

// podsByNode is the index of pods by the node that they are bound to.
const podsByNode = "spec.nodeName"

func (c *Cluster) openStore() error {
	indexers := []store.Indexer{{
		Name: podsByNode, Prefix: "/registry/pods/",
		Value: func(o runtime.Object) (string, bool) {
			p, ok := o.(*v1.Pod)
			if !ok || p.Spec.NodeName == "" {
				return "", false
			}
			return p.Spec.NodeName, true
		},
	}}
	codec := store.NewCodec(catalogue.Scheme)
	if o := c.Encryption; o.File != "" {
		o.Resource, o.Server = c.resourceAt, hostname()
		var err error
		if c.encryption, err = encryption.New(c.ctx, codec, o); err != nil {
			return err
		}
		codec = c.encryption
	}
	if c.Etcd != nil {
		o := *c.Etcd
		o.Codec, o.Clock, o.Indexers = codec, c.Clock, indexers
		s, err := etcd.Open(o)
		if err != nil {
			return err
		}
		c.Store = s
		return nil
	}
	o := embedded.Options{Codec: codec, Clock: c.Clock, Indexers: indexers, NoSync: c.NoSync}
	if c.DataDir != "" {
		o.Dir = filepath.Join(c.DataDir, "store")
	}
	s, err := embedded.Open(o)
	if err != nil {
		return err
	}
	c.Store = s
	c.wg.Go(func() {
		select {
		case <-s.Failed():
			klog.FromContext(c.ctx).Error(s.Err(), "The store has failed; stopping")
			c.cancel()
		case <-c.ctx.Done():
		}
	})
	return nil
}

// resourceAt gives the resource of the object at a key of the store.
func (c *Cluster) resourceAt(key string) schema.GroupResource {
	path, _ := strings.CutPrefix(key, "/registry/")
	first, rest, _ := strings.Cut(path, "/")
	second, _, _ := strings.Cut(rest, "/")
	builtin := storagePrefixes()
	if gr, ok := builtin[first+"/"+second]; ok {
		return gr
	}
	if gr, ok := builtin[first]; ok {
		return gr
	}
	return schema.GroupResource{Group: first, Resource: second} // a custom resource
}

// storagePrefixes are the built-in resources by where they are stored.
var storagePrefixes = sync.OnceValue(func() map[string]schema.GroupResource {
	out := map[string]schema.GroupResource{}
	for _, row := range catalogue.Builtin() {
		if !row.NotStored && row.Hub == nil {
			out[row.StoragePrefix] = row.GroupVersionResource.GroupResource()
		}
	}
	return out
})

func (c *Cluster) ensureCerts() (err error) {
	dir := ""
	if c.DataDir != "" {
		dir = filepath.Join(c.DataDir, "pki")
	}
	first := c.ServiceCIDR.Masked().Addr().Next()
	sans := []string{"localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", first.String()}
	if c.Advertise.IsValid() {
		sans = append(sans, c.Advertise.String())
	}
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && host != "" && host != "0.0.0.0" && host != "::" {
		sans = append(sans, host)
	}
	sans = append(sans, hostname())
	c.Certs, err = certs.Ensure(dir, certs.Options{SANs: sans, Clock: c.Clock})
	return err
}

func (c *Cluster) startServer(listener net.Listener) error {
	c.Informers = inprocess.NewInformers(c.Store, c.Catalogue)
	rbac, err := authz.NewRBAC(c.Informers.Rbac().V1())
	if err != nil {
		return err
	}
	live := &live{c}
	tokens, err := token.New(c.Certs.TokenKey, c.Tokens, live, c.Clock)
	if err != nil {
		return err
	}
	services, err := c.listServices(c.ctx)
	if err != nil {
		return err
	}
	c.tokens = tokens
	c.wg.Go(func() { tokens.Run(c.ctx) })
	ports := c.API.nodePorts()
	c.allocator = serviceip.New(newServiceObjects(c), int32(ports.Base), int32(ports.Base+ports.Size-1), services)
	var allocation apiserver.Reservation = c.allocator
	if c.Etcd != nil {
		allocation = &sharedAllocation{Allocator: c.allocator, c: c}
	}
	c.nodes = &nodeTransport{kubelet: &c.API.Kubelet, certs: c.Certs, own: c.own, ways: map[verification]http.RoundTripper{}}
	modes, err := authz.New(c.Authorization, authz.NewNode(live), rbac, c.Config(apiServer))
	if err != nil {
		return err
	}
	chain, objects, err := c.admission(rbac, modes, live)
	if err != nil {
		return err
	}
	others, err := c.aggregation()
	if err != nil {
		return err
	}
	authenticator, err := authn.New(c.ctx, authn.Config{
		Selection: c.Authentication, ClientCA: c.Certs.Pool(), ProxyCA: c.Certs.FrontProxy.Pool(), ProxyNames: []string{frontProxyClient},
		Tokens: tokens, Audiences: tokens.Audiences(), Secrets: live, Clock: c.Clock,
	})
	if err != nil {
		return err
	}
	if c.auditor, err = auditing.New(c.Audit); err != nil {
		return err
	}
	if c.auditor != nil {
		if err := c.auditor.Run(c.ctx.Done()); err != nil {
			return err
		}
	}
	paths, err := tokens.Discovery(c.externalURL())
	if err != nil {
		return err
	}
	waiting := priority.Config{Selection: c.Fairness, Informers: c.Informers, Client: c.Client(apiServer).FlowcontrolV1(), Patience: c.API.RequestTimeout / 4, Catalogue: c.Catalogue}
	var fair flowcontrol.Interface
	var exempt func() (schema, level types.UID)
	levels := priority.New(c.ctx, &c.wg, waiting)
	if levels != nil {
		fair, exempt = levels, levels.Exempt
	}
	reads, writes := c.Fairness.InFlight, c.Fairness.MutatingInFlight // without it
	ready := map[string]func() error{"informer-sync": c.synced}
	var form func(string) int64
	if c.encryption != nil {
		form = c.encryption.Form
		ready["kms-providers"] = c.encryption.Check
	}
	c.meter = c.newMeter(live)
	paths["/debug/keelson/trace"] = http.HandlerFunc(c.serveTrace)
	c.addZPages(paths)
	c.Server = apiserver.New(apiserver.Config{
		Aggregation: others, Computed: computed(c.meter),
		Store: c.Store, Catalogue: c.Catalogue, Scheme: catalogue.Scheme, Types: builtinTypes, Clock: c.Clock, Version: Version,
		Authenticator: authenticator, TokenAuthenticator: authenticator, LegacyImpersonation: !c.Features.Enabled(ConstrainedImpersonation),
		NoUnsafeDeletion: !c.Features.Enabled(AllowUnsafeMalformedObjectDeletion),
		Authorizer:       modes, RuleResolver: modes, Admission: chain, Objects: objects, Tokens: tokens, Nodes: c.nodes, Own: c.own,
		Reservations: map[schema.GroupResource]apiserver.Reservation{{Resource: "services"}: allocation},
		Recorded:     c.record,
		Audit:        c.auditor,
		Fairness:     fair,
		Exempt:       exempt,
		Form:         form,
		TTL:          c.API.EventTTL, MinRequestTimeout: c.API.MinRequestTimeout, RequestTimeout: c.API.RequestTimeout,
		MaxReads: reads, MaxWrites: writes, StallLimit: c.stallLimit, SendRetryAfter: c.Serving.SendRetryAfter,
		NoProfiling: c.API.NoProfiling, NoLogs: c.API.NoLogs, HiddenMetrics: c.API.HiddenMetrics,
		Readiness: ready,
		Paths:     paths,
	})
	if levels != nil {
		levels.Keep()
	}
	if err := c.startAggregation(); err != nil {
		return err
	}
	c.yieldMetrics()
	if err := c.startCustomResources(); err != nil {
		return err
	}
	c.Informers.StartWithContext(c.ctx)
	if res := c.Informers.WaitForCacheSyncWithContext(c.ctx); res.Err != nil {
		return res.Err
	}
	if err := c.startServiceAddresses(); err != nil {
		return err
	}
	if c.API.DebugSocket != "" {
		if err := serving.DebugSocket(c.ctx, c.API.DebugSocket); err != nil {
			return err
		}
	}
	if listener == nil {
		return nil
	}
	port, err := portOf(c.Address)
	if err != nil {
		return err
	}
	secure := &tls.Config{
		ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
	}
	if c.Authentication.ClientCAFile == "" {
		// Clients are told whose certificates are taken, where that does not change.
		secure.ClientCAs = c.Certs.Pool()
	}
	if err := c.Serving.Certificates(c.ctx, c.Certs.Serving, secure); err != nil {
		return err
	}
	if c.http, err = c.Serving.NewServer(trace.Handler(c.Server), secure, quiet); err != nil {
		return err
	}
	c.wg.Go(func() {
		if err := c.http.ServeTLS(listener, "", ""); err != nil && !errors.Is(err, http.ErrServerClosed) {
			klog.FromContext(c.ctx).Error(err, "Serving the API failed; stopping")
			c.cancel()
		}
	})
	config := c.Config(Admin)
	config.UserAgent = userAgent(apiServer)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	self := &kubernetesservice.Publisher{Client: client, Address: c.Advertise, Port: port, ClusterIP: c.ServiceCIDR.Masked().Addr().Next(),
		NodePort: c.API.NodePort, Shared: c.Etcd != nil, Store: c.Store, Clock: c.Clock}
	c.wg.Go(func() { self.Run(c.ctx) })
	return nil
}

func portOf(address string) (int, error) {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(p)
}

func (c *Cluster) synced() error {
	if r := c.Informers.WaitForCacheSyncWithContext(c.ctx); r.Err != nil {
		return r.Err
	}
	return nil
}

// Done is closed when the cluster ends by itself or is stopped.
func (c *Cluster) Done() <-chan struct{} { return c.ctx.Done() }

// Stop ends the cluster: /readyz fails, watches and streams are ended, requests
// finished, the store closed.
func (c *Cluster) Stop() error {
	if c.Server != nil {
		c.Server.Drain()
		if c.http != nil && c.ShutdownDelay > 0 {
			select {
			case <-time.After(c.ShutdownDelay):
			case <-c.ctx.Done():
			}
		}
		if c.http != nil && !c.NoDrain && c.Serving.SendRetryAfter {
			// The watches end first: their clients are told to go elsewhere.
			c.Server.Refuse()
			c.Server.Shutdown()
			ctx, cancel := context.WithTimeout(context.Background(), c.API.RequestTimeout)
			c.Server.Finish(ctx)
			cancel()
		}
		c.Server.Shutdown()
	}
	var errs []error
	if c.http != nil && c.NoDrain {
		errs = append(errs, c.http.Close())
	} else if c.http != nil {
		ctx, cancel := context.WithTimeout(context.Background(), c.API.RequestTimeout)
		if err := c.http.Shutdown(ctx); err != nil {
			errs = append(errs, c.http.Close())
		}
		cancel()
	}
	c.cancel()
	if c.auditor != nil {
		c.auditor.Shutdown()
	}
	if c.Informers != nil {
		c.Informers.Shutdown()
	}
	c.wg.Wait()
	if c.Store != nil {
		var failed error
		if s, ok := c.Store.(*embedded.Store); ok {
			failed = s.Err()
		}
		errs = append(errs, c.Store.Close(), failed)
	}
	return errors.Join(errs...)
}

// Config is a client configuration for u, without a network between.
func (c *Cluster) Config(u user.Info) *rest.Config {
	// The server may be yet to be made from what has the client.
	return inprocess.Config(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { c.Server.ServeHTTP(w, req) }), u, userAgent(u))
}

// Admin is the user that may do everything.
var Admin = &user.DefaultInfo{Name: "kubernetes-admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// Client is an in-process client of u.
func (c *Cluster) Client(u user.Info) kubernetes.Interface {
	return kubernetes.NewForConfigOrDie(c.Config(u))
}

// controller is the identity of a controller.
func controller(name string) user.Info {
	if name == "tokens-controller" {
		return controllerManagerUser // service accounts' tokens cannot depend on one
	}
	return &user.DefaultInfo{Name: "system:serviceaccount:kube-system:" + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", user.AllAuthenticated}}
}

// Server's URL as local clients reach it.
func (c *Cluster) url() string {
	host, port, _ := net.SplitHostPort(c.Address)
	if ip, err := netip.ParseAddr(host); err != nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, port)
}

// Kubeconfig gives an administrator's configuration called name.
func (c *Cluster) Kubeconfig(name string) (*clientcmdapi.Config, error) {
	pair, err := c.Certs.ClientCert(Admin.Name, []string{user.SystemPrivilegedGroup})
	if err != nil {
		return nil, err
	}
	return certs.Kubeconfig(name, c.url(), c.Certs.CAPEM, pair), nil
}

// RESTConfig is an administrator's configuration over TLS.
func (c *Cluster) RESTConfig() (*rest.Config, error) {
	if c.Address == "" {
		return nil, errors.New("the cluster does not listen")
	}
	pair, err := c.Certs.ClientCert(Admin.Name, []string{user.SystemPrivilegedGroup})
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: c.url(), TLSClientConfig: rest.TLSClientConfig{CAData: c.Certs.CAPEM, CertData: pair.Cert, KeyData: pair.Key}}, nil
}
