package certificates

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	v1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// NewServingApprover makes the controller that approves the requests of nodes for the
// certificates of their servers. A request may name what the Node has, its name and
// addresses, unless another Node or the API server has the same: a node reports its
// addresses itself, and could pose as the API server with a certificate for that
// server's address.
func NewServingApprover(c controllers.Context) (reconcile.Run, error) {
	requests := c.Informers.Certificates().V1().CertificateSigningRequests()
	nodes := c.Informers.Core().V1().Nodes()
	a := &servingApprover{client: c.Client(), nodes: nodes.Lister(), services: c.ServiceRanges}
	recorder := c.Recorder()
	queue := c.Queue("csr_serving_approving")
	reconcile.Handle(requests.Informer(), reconcile.Enqueue[*v1.CertificateSigningRequest](queue), nil, reconcile.Ignore)
	// A request may come before the Node has its addresses.
	again := func(n *corev1.Node) {
		all, _ := requests.Lister().List(labels.Everything()) // of a cache: there is no error
		for _, csr := range all {
			if csr.Spec.Username == nodePrefix+n.Name && a.open(csr) {
				queue.Add(csr.Name)
			}
		}
	}
	reconcile.Handle(nodes.Informer(), again, func(old, now *corev1.Node) {
		if !equality.Semantic.DeepEqual(old.Status.Addresses, now.Status.Addresses) {
			again(now)
		}
	}, reconcile.Ignore)
	return reconcile.Loop[*v1.CertificateSigningRequest]{
		Queue: queue, For: requests.Informer(), Reads: []cache.SharedIndexInformer{nodes.Informer()},
		Reconcile: func(ctx context.Context, csr *v1.CertificateSigningRequest) (reconcile.Result, error) {
			if !a.open(csr) {
				return reconcile.Result{}, nil
			}
			refusal, err := a.refusal(ctx, csr)
			if err != nil {
				return reconcile.Result{}, err
			}
			if refusal != nil {
				recorder.Eventf(csr, corev1.EventTypeNormal, "NotApproved", "The request is left to an administrator (kubectl certificate approve %s): %v", csr.Name, refusal)
				return reconcile.Result{}, nil
			}
			next := csr.DeepCopy()
			next.Status.Conditions = append(next.Status.Conditions, v1.CertificateSigningRequestCondition{Type: v1.CertificateApproved, Status: corev1.ConditionTrue,
				Reason: "AutoApproved", Message: "Auto approving kubelet serving certificate: its names and addresses are those of the Node."})
			_, err = a.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, next, metav1.UpdateOptions{})
			return reconcile.Result{}, err
		},
	}.Run, nil
}

type servingApprover struct {
	client   kubernetes.Interface
	nodes    corelisters.NodeLister
	services []netip.Prefix
}

// open reports whether a request waits for an approval that is given here.
func (a *servingApprover) open(csr *v1.CertificateSigningRequest) bool {
	return csr.Spec.SignerName == v1.KubeletServingSignerName && len(csr.Status.Certificate) == 0 && !has(csr, v1.CertificateApproved) && !has(csr, v1.CertificateDenied) && !has(csr, v1.CertificateFailed)
}

// refusal returns why a request is not approved, nil if it is.
func (a *servingApprover) refusal(ctx context.Context, csr *v1.CertificateSigningRequest) (refusal, err error) {
	r, err := parse(csr)
	if err != nil {
		return err, nil //nolint:nilerr // the request is bad, and will not get better
	}
	if err := kubeletServing(r, csr); err != nil {
		return err, nil //nolint:nilerr // as above
	}
	name, is := strings.CutPrefix(csr.Spec.Username, nodePrefix)
	if !is || !slices.Contains(csr.Spec.Groups, nodesGroup) || r.Subject.CommonName != csr.Spec.Username {
		return fmt.Errorf("it is for %q, and was made by %q", r.Subject.CommonName, csr.Spec.Username), nil
	}
	node, err := a.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no Node %q yet", name), nil
	}
	if err != nil {
		return nil, err
	}
	all, err := a.nodes.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	others, err := a.servers(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if o.Name == name {
			continue
		}
		others[strings.ToLower(o.Name)] = "node " + o.Name
		for _, x := range o.Status.Addresses {
			others[canonical(x.Address)] = "node " + o.Name
		}
	}
	return servingNames(r, node, others, a.services), nil
}

// servers returns the names and addresses of the API servers, by which clients that trust
// the cluster's authority reach them.
func (a *servingApprover) servers(ctx context.Context) (map[string]string, error) {
	const server = "the API server"
	out := map[string]string{}
	slices, err := a.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{LabelSelector: discovery.LabelServiceName + "=kubernetes"})
	if err != nil {
		return nil, err
	}
	for i := range slices.Items {
		for _, e := range slices.Items[i].Endpoints {
			for _, x := range e.Addresses {
				out[canonical(x)] = server
			}
		}
	}
	info, err := a.client.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, "cluster-info", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.Load([]byte(info.Data["kubeconfig"]))
	if err != nil {
		return out, nil //nolint:nilerr // then no client reaches the API server at it
	}
	for _, c := range config.Clusters {
		if u, err := url.Parse(c.Server); err == nil {
			out[canonical(u.Hostname())] = server
		}
	}
	return out, nil
}

// canonical returns the form in which names, and addresses, are compared.
func canonical(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().String()
	}
	return strings.TrimSuffix(strings.ToLower(s), ".")
}

// servingNames is why the names of a request are not the Node's, nil if they are.
func servingNames(r *x509.CertificateRequest, node *corev1.Node, others map[string]string, services []netip.Prefix) error {
	own := map[string]bool{canonical(node.Name): true}
	for _, a := range node.Status.Addresses {
		own[canonical(a.Address)] = true
	}
	for _, n := range r.DNSNames {
		n = canonical(n)
		if _, err := netip.ParseAddr(n); err == nil {
			return fmt.Errorf("the address %s is given as a name", n)
		}
		if !own[n] {
			return fmt.Errorf("the Node has no name %s", n)
		}
		if o, ok := others[n]; ok {
			return fmt.Errorf("%s is a name of %s", n, o)
		}
		first, rest, _ := strings.Cut(n, ".")
		if n == "localhost" || first == "kubernetes" || first == "*" || slices.Contains(strings.Split(rest, "."), "svc") || strings.HasSuffix(n, ".cluster.local") {
			return fmt.Errorf("%s is a name of the cluster's Services, or of every machine", n)
		}
	}
	for _, x := range r.IPAddresses {
		ip, ok := netip.AddrFromSlice(x)
		if ip = ip.Unmap(); !ok {
			return errors.New("an address is malformed")
		}
		if !own[ip.String()] {
			return fmt.Errorf("the Node has no address %s", ip)
		}
		if o, ok := others[ip.String()]; ok {
			return fmt.Errorf("%s is an address of %s", ip, o)
		}
		if ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || slices.ContainsFunc(services, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return fmt.Errorf("%s is no machine's own address", ip)
		}
	}
	return nil
}
