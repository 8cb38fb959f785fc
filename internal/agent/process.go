package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/agent/join"
	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/peer"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/network/reserved"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/remote"
	"keelson.dev/keelson/internal/version"
)

// ProcessOptions configures a node's agent that runs in a process of its own,
// against the API server of any Kubernetes cluster, with the rights of its node:
// those of the Node authorizer. It reads the objects that the built-in network needs as
// networkUser, whom PrepareJoin lets nodes impersonate.
type ProcessOptions struct {
	Options
	// Kubeconfig is the path of a kubeconfig of the user system:node:NAME. If it is
	// empty the node's own is used, which it gets by joining the cluster.
	Kubeconfig string
	// Servers are the URLs of the API server, which are tried in turn, Token is a bootstrap
	// token and CAHashes are the hashes of the cluster's authority, with which the machine
	// joins. They are not needed after that.
	Servers  []string
	Token    string
	CAHashes []string
	// QPS and Burst limit the requests a second; 0 is no limit.
	QPS   float32
	Burst int
	// NodeIPs are the addresses that the node is reached by: one, or one of each
	// family. The default is the source address of the machine's default route, and,
	// if pods have addresses of both families, that of the other family; it follows
	// the machine. The unspecified address of a family prefers that one.
	NodeIPs []net.IP
	// ClusterDNS is the address of the cluster's name server; default that of the
	// Service kube-system/kube-dns.
	ClusterDNS netip.Addr
	// ClientCAFile is the file of the authority, in PEM, of the client certificates
	// that the node's server accepts; default the kubeconfig's authority.
	ClientCAFile string
	// TLSCertFile and TLSPrivateKeyFile are the files of the certificate of the
	// node's server and its key.
	TLSCertFile, TLSPrivateKeyFile string
	// RotateServerCertificates makes the cluster sign that certificate, by requests
	// that an administrator has to approve. Without files and this the node signs
	// its own.
	RotateServerCertificates bool
	// Progress, if set, is called after each step of the start.
	Progress func(step string, took time.Duration)
	// Ready, if set, is called when the node is Ready.
	Ready func()
}

// AddFlags adds the flags of the process, except those of Options.
func (o *ProcessOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "kubeconfig of the API server and of the node's user, system:node: and the node's name (default: the node's own, which it has once it has joined)")
	fs.StringSliceVar(&o.Servers, "server", o.Servers, "URL of the API server of the cluster to join, or of the one that this machine has joined, where it has moved; several are tried in turn, comma separated or in several flags, beside those that the agent learns from the cluster")
	fs.StringVar(&o.Token, "token", o.Token, "bootstrap token to join by: keelson token create --print-join-command prints it, with the two other flags")
	fs.StringSliceVar(&o.CAHashes, "ca-hash", o.CAHashes, "hashes of the public keys that the cluster's authority may have, sha256:<hex>")
	fs.Float32Var(&o.QPS, "kube-api-qps", o.QPS, "requests a second to the API server; 0 is no limit")
	fs.IntVar(&o.Burst, "kube-api-burst", o.Burst, "how many requests may exceed --kube-api-qps for a moment")
	fs.IPSliceVar(&o.NodeIPs, "node-ip", o.NodeIPs, "address that the node is reached by, or one of each family, comma separated (default: the machine's towards its default route, which may change; :: prefers the one of IPv6)")
	fs.TextVar(&o.ClusterDNS, "cluster-dns", o.ClusterDNS, "address of the cluster's name server (default: that of the Service kube-system/kube-dns)")
	fs.StringVar(&o.ClientCAFile, "client-ca-file", o.ClientCAFile, "authority in PEM of the certificates of those who call the node (default: the kubeconfig's)")
	fs.StringVar(&o.TLSCertFile, "tls-cert-file", o.TLSCertFile, "certificate in PEM of the node's server (default: the node signs its own)")
	fs.StringVar(&o.TLSPrivateKeyFile, "tls-private-key-file", o.TLSPrivateKeyFile, "its key in PEM")
	fs.BoolVar(&o.RotateServerCertificates, "rotate-server-certificates", o.RotateServerCertificates, "request the certificate of the node's server from the cluster, where the requests have to be approved (kubectl certificate approve)")
}

// Validate returns an error for invalid values.
func (o *ProcessOptions) Validate() error {
	switch {
	case (o.TLSCertFile == "") != (o.TLSPrivateKeyFile == ""):
		return errors.New("--tls-cert-file and --tls-private-key-file must be specified together")
	case o.TLSCertFile != "" && o.RotateServerCertificates:
		return errors.New("--rotate-server-certificates: the certificate is that of --tls-cert-file: give one of them")
	}
	if o.Kubeconfig != "" && (len(o.Servers) > 0 || o.Token != "" || len(o.CAHashes) > 0) {
		return errors.New("--kubeconfig has the API server and the node's user, and --server, --token and --ca-hash are to get them: give one or the others")
	}
	for _, h := range o.CAHashes {
		if err := join.ValidateHash(h); err != nil {
			return fmt.Errorf("--ca-hash: %w", err)
		}
	}
	if o.Token != "" {
		if _, err := join.Parse(o.Token); err != nil {
			return fmt.Errorf("--token: %w", err)
		}
	}
	servers := o.Servers
	if o.Token != "" && len(servers) == 0 {
		servers = []string{""}
	}
	for _, s := range servers {
		if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Hostname() == "" {
			return fmt.Errorf("--server %q: give the URL of the API server, like https://192.0.2.1:6443", s)
		}
	}
	return errors.Join(validateNodeIPs(o.nodeIPs()), o.Network.Validate())
}

func (o *ProcessOptions) nodeIPs() (out []netip.Addr) {
	for _, ip := range o.NodeIPs {
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// Run runs a node's agent on the machine until ctx is done. The node's
// containers keep running.
func Run(ctx context.Context, m *machine.Machine, o ProcessOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	o.complete(m)
	step := func(name string, f func() error) error {
		begin := time.Now()
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if o.Progress != nil {
			o.Progress(name, time.Since(begin))
		}
		return nil
	}
	var own *join.Client
	if o.Kubeconfig == "" {
		own = &join.Client{Dir: m.Dir(), Node: o.Name, Servers: o.Servers, Token: o.Token, Hashes: o.CAHashes}
		if err := step("joining", func() error { return own.Obtain(ctx) }); err != nil {
			return err
		}
		o.Kubeconfig = own.Kubeconfig()
		o.RotateServerCertificates = o.TLSCertFile == ""
	}
	cfg, err := (&component.Options{Kubeconfig: o.Kubeconfig, QPS: o.QPS, Burst: o.Burst}).Config("kubelet")
	if err != nil {
		return err
	}
	var servers *join.Servers
	if own != nil {
		if servers, err = own.OpenServers(cfg.Host); err != nil {
			return err
		}
	}
	connections := connrotation.NewDialer(servers.Dial((&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext))
	cfg.Dial = connections.DialContext
	var transport http.RoundTripper
	if own != nil {
		transport, err = own.Transport(cfg)
		transport = servers.Transport(transport)
	} else {
		transport, err = rest.TransportFor(cfg)
	}
	if err != nil {
		return err
	}
	client, network, reduced, err := clients(cfg, transport)
	if err != nil {
		return err
	}
	if err := o.identify(ctx, cfg, client); err != nil {
		return err
	}
	process := component.NewProcess(ctx)
	defer process.Stop()
	ctx = process.Ctx
	h := &host{Process: process, informers: o.informers(client, network), clock: clock.RealClock{}, client: client,
		version: strings.TrimSuffix(version.Info.GitVersion, version.Build)}
	if h.nodes, err = peers(network); err != nil {
		return err
	}
	if servers != nil && (o.Network.Proxy != None || o.Network.DNS != None) { // else the node may not read them
		if err := learn(h.informers.Discovery().V1().EndpointSlices().Informer(), servers.Learn); err != nil {
			return err
		}
	}
	view := false
	if o.Network.Policies != None {
		from, err := podsFrom(ctx, network, reduced)
		if err != nil {
			return err
		}
		h.allPods = cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(allPods(from), from), &v1.Pod{}, 0, cache.Indexers{})
		view = from == reduced
		if err := h.allPods.SetTransform(func(obj any) (any, error) {
			if p, ok := obj.(*v1.Pod); ok {
				return peer.Reduce(p), nil // where the API server has not done it
			}
			return obj, nil
		}); err != nil {
			return err
		}
	}
	steps := remote.New(client.Discovery().RESTClient(), "kubelet", o.Name)
	spans, err := o.spans(process)
	if err != nil {
		return err
	}
	if spans != nil {
		steps.Sent = spans.Take
	}
	process.Go(func() { steps.Run(ctx) })
	h.trace = func(actor string) *trace.Reporter {
		r := steps.Reporter()
		r.Actor = actor
		return r
	}
	h.connections = connections
	h.addresses = h.newAddresses(o.nodeIPs(), m, o.Options)
	h.provided = slices.DeleteFunc(slices.Clone(o.NodeIPs), net.IP.IsUnspecified)
	if h.dns, err = o.nameServer(ctx, client); err != nil {
		return err
	}
	if h.clientCA, err = o.clientCA(cfg); err != nil {
		return err
	}
	if err := o.mayServe(ctx, client, network, view, m.OwnNetwork()); err != nil {
		return err
	}
	h.services = serviceRanges(ctx, network)
	h.followRanges(network)
	if err := h.ownCertificate(m, &o); err != nil {
		return err
	}
	if own != nil {
		if err := own.Rotate(ctx, client, connections.CloseAll); err != nil {
			return err
		}
	}
	if err := m.Start(ctx, step); err != nil {
		return err
	}
	if err := step("node agent", func() error { return h.start(m, o.Options) }); err != nil {
		return err
	}
	process.Go(func() {
		if h.untilReady(o.Name) && o.Ready != nil {
			o.Ready()
		}
	})
	<-ctx.Done()
	return nil
}

// dialTimeout bounds the opening of a connection to an address of the API server: there may
// be another.
const dialTimeout = 10 * time.Second

// learn calls known with the addresses of the API server whenever they have changed.
func learn(slices cache.SharedIndexInformer, known func([]string)) error {
	changed := func(obj any) {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok && reserved.OfServers(s) {
			var all []string
			for _, at := range reserved.Endpoints(s) {
				if !at.Addr().IsLoopback() {
					all = append(all, at.String())
				}
			}
			known(all)
		}
	}
	_, err := slices.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, obj any) { changed(obj) }})
	return err
}

// identify returns an error if the kubeconfig is that of another node.
func (o *ProcessOptions) identify(ctx context.Context, cfg *rest.Config, client kubernetes.Interface) error {
	me, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("asking the API server at %s who this is: %w", cfg.Host, err)
	}
	if name, ok := strings.CutPrefix(me.Status.UserInfo.Username, nodeUser); ok && name != o.Name {
		return fmt.Errorf("the kubeconfig %s is that of the node %q, and this is to be the node %q: give --node-name %[2]s, or another --kubeconfig", o.Kubeconfig, name, o.Name)
	}
	return nil
}

// clients returns a client of the node, and two of networkUser, over the same
// connections: reduced reads objects as the view peer.View has them.
func clients(cfg *rest.Config, transport http.RoundTripper) (node, network, reduced kubernetes.Interface, err error) {
	server, _, err := rest.DefaultServerUrlFor(cfg) // has a scheme, which cfg.Host may lack
	if err != nil {
		return nil, nil, nil, err
	}
	shared := &rest.Config{Host: server.String(), APIPath: cfg.APIPath, ContentConfig: cfg.ContentConfig, QPS: cfg.QPS, Burst: cfg.Burst, UserAgent: cfg.UserAgent, Timeout: cfg.Timeout, Transport: transport}
	if node, err = kubernetes.NewForConfig(shared); err != nil {
		return nil, nil, nil, err
	}
	other := rest.CopyConfig(shared)
	other.Impersonate = rest.ImpersonationConfig{UserName: networkUser}
	if network, err = kubernetes.NewForConfig(other); err != nil {
		return nil, nil, nil, err
	}
	other = rest.CopyConfig(other)
	other.Host = strings.TrimSuffix(other.Host, "/") + apiserver.ViewPrefix + peer.View
	reduced, err = kubernetes.NewForConfig(other)
	return node, network, reduced, err
}

// podsFrom returns the client that reads the pods of all nodes: reduced, or network where the
// API server has no such view, or the node may not read it.
func podsFrom(ctx context.Context, network, reduced kubernetes.Interface) (kubernetes.Interface, error) {
	_, err := reduced.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{Limit: 1})
	switch {
	case err == nil:
		return reduced, nil
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		return network, nil //nolint:nilerr // whole pods are read then
	}
	return nil, fmt.Errorf("reading pods' addresses: %w", err)
}

// mayServe asks the API server whether networkUser, and the node for storage, may read
// the objects that the node's part of these needs, which the Node authorizer does not
// allow.
//
// With view the pods' part has been read already.
func (o *ProcessOptions) mayServe(ctx context.Context, node, network kubernetes.Interface, view, podNetwork bool) error {
	var needed []authorizationv1.ResourceAttributes
	if o.Network.Proxy != None || o.Network.DNS != None {
		needed = append(needed, authorizationv1.ResourceAttributes{Verb: "watch", Group: "discovery.k8s.io", Resource: "endpointslices"})
	}
	if o.Network.Policies != None {
		needed = append(needed, authorizationv1.ResourceAttributes{Verb: "watch", Group: "networking.k8s.io", Resource: "networkpolicies"})
		if !view {
			needed = append(needed, authorizationv1.ResourceAttributes{Verb: "watch", Resource: "pods"})
		}
	}
	if o.Network.DNS != None || o.Network.Policies != None {
		needed = append(needed, authorizationv1.ResourceAttributes{Verb: "watch", Resource: "namespaces"})
	}
	if podNetwork {
		needed = append(needed, authorizationv1.ResourceAttributes{Verb: "watch", Resource: "nodes"})
	}
	const claims = "persistentvolumeclaims"
	if o.Storage != None {
		needed = append(needed, authorizationv1.ResourceAttributes{Verb: "watch", Resource: claims})
	}
	for _, a := range needed {
		client := network
		if a.Resource == claims {
			client = node
		}
		r, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &a}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsForbidden(err) { // it may not act as networkUser
			return fmt.Errorf("asking what the node may do: %w", err)
		}
		if err != nil || !r.Status.Allowed {
			return fmt.Errorf("nodes may not watch %s, which the built-in network of pods, service proxy, name server, network policies and local volumes are made of: run keelson agent prepare once, which allows it, or give --pod-network none, --proxy none, --dns none, --network-policy none and --storage none", a.Resource)
		}
	}
	return nil
}

// untilReady waits for the node to be Ready, and reports whether it is.
func (h *host) untilReady(name string) bool {
	err := wait.PollUntilContextCancel(h.Ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		n, err := h.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			klog.FromContext(ctx).V(2).Info("The node is not there yet", "node", name, "err", err)
			return false, nil
		}
		for _, c := range n.Status.Conditions {
			if c.Type == v1.NodeReady {
				return c.Status == v1.ConditionTrue, nil
			}
		}
		return false, nil
	})
	return err == nil
}

// followRanges has the ranges of the Services' addresses followed, where the cluster lets
// nodes read them: one that an older version prepared does not.
func (h *host) followRanges(network kubernetes.Interface) {
	if _, err := network.NetworkingV1().ServiceCIDRs().List(h.Ctx, metav1.ListOptions{Limit: 1}); err != nil {
		klog.FromContext(h.Ctx).V(2).Info("Ranges of the Services' addresses that are added are not known", "err", err)
		return
	}
	h.cidrs = networkinginformers.NewServiceCIDRInformer(network, 0, cache.Indexers{})
	h.Go(func() { h.cidrs.RunWithContext(h.Ctx) })
}

// serviceRanges returns the ranges of the Services' addresses; none where a cluster that an
// older version prepared does not show them.
func serviceRanges(ctx context.Context, network kubernetes.Interface) (out []netip.Prefix) {
	cidr, err := network.NetworkingV1().ServiceCIDRs().Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		klog.FromContext(ctx).V(2).Info("The ranges of the Services' addresses are not known, and not compared with the machine's networks", "err", err)
		return nil
	}
	for _, c := range cidr.Spec.CIDRs {
		if p, err := netip.ParsePrefix(c); err == nil {
			out = append(out, p)
		}
	}
	return out
}
