package cluster

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/store"
)

// Where several servers run, each has its address under masterPrefix, as
// upstream's have, for as long as it renews it; the endpoints of the kubernetes
// Service are the addresses there.
const (
	masterPrefix = "/registry/masterleases/"
	masterTTL    = 15 * time.Second
	masterPeriod = 10 * time.Second
)

// publishSelf makes the kubernetes Service and the endpoints behind it.
func (c *Cluster) publishSelf(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	config := c.Config(Admin)
	config.UserAgent = userAgent(apiServer)
	client := kubernetes.NewForConfigOrDie(config)
	if err := c.publishService(ctx, client, port); err != nil {
		return err
	}
	if c.Advertise.IsLoopback() {
		// A loopback address may not be an endpoint of Endpoints.
		return nil
	}
	if c.Etcd == nil {
		return c.publishEndpoints(ctx, client, port, []string{c.Advertise.String()})
	}
	if err := c.renewMaster(ctx, client, port); err != nil {
		return err
	}
	c.wg.Go(func() { c.keepMaster(client, port) })
	return nil
}

var selfLabels = map[string]string{"component": "apiserver", "provider": "kubernetes"}

func (c *Cluster) publishService(ctx context.Context, client kubernetes.Interface, port int) error {
	services := client.CoreV1().Services(metav1.NamespaceDefault)
	first := c.ServiceCIDR.Masked().Addr().Next().String()
	svc := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: metav1.NamespaceDefault, Labels: selfLabels},
		Spec: v1.ServiceSpec{ClusterIP: first, Ports: []v1.ServicePort{{Name: "https", Port: 443, Protocol: v1.ProtocolTCP}}}}
	svc.Spec.Ports[0].TargetPort.IntVal = int32(port)
	if c.API.NodePort != 0 {
		svc.Spec.Type, svc.Spec.Ports[0].NodePort = v1.ServiceTypeNodePort, c.API.NodePort
	}
	old, err := services.Get(ctx, svc.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		if _, err = services.Create(ctx, svc, metav1.CreateOptions{}); err != nil {
			// Another server may have been faster.
			if _, again := services.Get(ctx, svc.Name, metav1.GetOptions{}); again == nil {
				return nil
			}
		}
	case err == nil && (len(old.Spec.Ports) != 1 || old.Spec.Ports[0].TargetPort.IntVal != int32(port) || old.Spec.Ports[0].NodePort != c.API.NodePort):
		old.Spec.Ports, old.Spec.Type = svc.Spec.Ports, cmp.Or(svc.Spec.Type, v1.ServiceTypeClusterIP)
		_, err = services.Update(ctx, old, metav1.UpdateOptions{})
	}
	return err
}

// publishEndpoints makes addresses the endpoints of the kubernetes Service.
func (c *Cluster) publishEndpoints(ctx context.Context, client kubernetes.Interface, port int, addresses []string) error {
	eps := &v1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
		Subsets: []v1.EndpointSubset{{Ports: []v1.EndpointPort{{Name: "https", Port: int32(port), Protocol: v1.ProtocolTCP}}}}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(port)), Protocol: ptr.To(v1.ProtocolTCP)}}}
	for _, a := range addresses {
		eps.Subsets[0].Addresses = append(eps.Subsets[0].Addresses, v1.EndpointAddress{IP: a})
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
	}
	endpoints, slices := client.CoreV1().Endpoints(metav1.NamespaceDefault), client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	if old, err := endpoints.Get(ctx, eps.Name, metav1.GetOptions{}); err != nil || !equality.Semantic.DeepEqual(old.Subsets, eps.Subsets) {
		// An update makes it where there is none.
		if _, err := endpoints.Update(ctx, eps, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	old, err := slices.Get(ctx, slice.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = slices.Create(ctx, slice, metav1.CreateOptions{})
	case err == nil && (!equality.Semantic.DeepEqual(old.Endpoints, slice.Endpoints) || !equality.Semantic.DeepEqual(old.Ports, slice.Ports)):
		_, err = slices.Update(ctx, slice, metav1.UpdateOptions{})
	}
	return err
}

// keepMaster renews this server's address until the server ends, and takes it
// away then.
func (c *Cluster) keepMaster(client kubernetes.Interface, port int) {
	log := klog.FromContext(c.ctx)
	for {
		t := c.Clock.NewTimer(masterPeriod)
		select {
		case <-t.C():
		case <-c.ctx.Done():
			t.Stop()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), 2*time.Second)
			defer cancel()
			if err := c.removeMaster(ctx, client, port); err != nil {
				log.Error(err, "Taking this server's address from the endpoints of the kubernetes Service")
			}
			return
		}
		ctx, cancel := context.WithTimeout(c.ctx, masterPeriod)
		if err := c.renewMaster(ctx, client, port); err != nil && c.ctx.Err() == nil {
			log.Error(err, "Renewing this server's address behind the kubernetes Service")
		}
		cancel()
	}
}

func (c *Cluster) masterKey() string { return masterPrefix + c.Advertise.String() }

func (c *Cluster) renewMaster(ctx context.Context, client kubernetes.Interface, port int) error {
	own := &v1.Endpoints{Subsets: []v1.EndpointSubset{{Addresses: []v1.EndpointAddress{{IP: c.Advertise.String()}}}}}
	old, err := c.Store.Get(ctx, c.masterKey())
	if err != nil {
		return err
	}
	if old == nil {
		_, err = c.Store.Create(ctx, c.masterKey(), own, masterTTL)
	} else {
		_, err = c.Store.Update(ctx, old.Key, old.ModRevision, own, masterTTL)
	}
	if err != nil && !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict) {
		return err
	}
	return c.publishMasters(ctx, client, port)
}

// publishMasters makes the endpoints what the addresses are.
func (c *Cluster) publishMasters(ctx context.Context, client kubernetes.Interface, port int) error {
	all, err := c.Store.List(ctx, masterPrefix, store.ListOptions{})
	if err != nil || len(all.Entries) == 0 {
		return err
	}
	var addresses []string
	for _, e := range all.Entries {
		addresses = append(addresses, strings.TrimPrefix(e.Key, masterPrefix))
	}
	slices.Sort(addresses)
	return c.publishEndpoints(ctx, client, port, addresses)
}

func (c *Cluster) removeMaster(ctx context.Context, client kubernetes.Interface, port int) error {
	e, err := c.Store.Get(ctx, c.masterKey())
	if err != nil || e == nil {
		return err
	}
	if _, err := c.Store.Delete(ctx, e.Key, e.ModRevision); err != nil {
		return err
	}
	return c.publishMasters(ctx, client, port)
}
