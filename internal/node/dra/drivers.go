package dra

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/klog/v2"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	drabeta "k8s.io/kubelet/pkg/apis/dra/v1beta1"
)

const (
	// callTimeout bounds a driver's call, upstream's.
	callTimeout = 45 * time.Second
	// wipeDelay is how long a driver may be away before its devices are taken from the
	// cluster's: the time of an update.
	wipeDelay = 30 * time.Second
)

// driver is one that has registered.
type driver struct {
	conn *grpc.ClientConn
	// prepare and unprepare are its methods; the messages of both versions are the
	// same on the wire.
	prepare, unprepare string
	// health is the method that reports the health of its devices, "" for none.
	health string
	// end ends what watches it.
	end context.CancelFunc
}

// Register implements pluginregistry.Handler.
func (m *Manager) Register(_ context.Context, name, endpoint string, versions []string) error {
	d := &driver{health: healthMethod(versions), prepare: dra.DRAPlugin_NodePrepareResources_FullMethodName, unprepare: dra.DRAPlugin_NodeUnprepareResources_FullMethodName}
	switch {
	case slices.Contains(versions, dra.DRAPluginService):
	case slices.Contains(versions, drabeta.DRAPluginService):
		d.prepare, d.unprepare = drabeta.DRAPlugin_NodePrepareResources_FullMethodName, drabeta.DRAPlugin_NodeUnprepareResources_FullMethodName
	default:
		return fmt.Errorf("the DRA driver %s offers the services %q, of which none is %s or %s", name, versions, dra.DRAPluginService, drabeta.DRAPluginService)
	}
	var err error
	if d.conn, err = grpc.NewClient("unix://"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.drivers[name]; old != nil {
		old.end()
		old.conn.Close()
	}
	if m.drivers == nil {
		m.drivers = map[string]*driver{}
	}
	m.drivers[name] = d
	var watched context.Context
	watched, d.end = context.WithCancel(context.Background()) // until it deregisters
	if d.health != "" {
		go m.watchHealth(watched, name, d)
	}
	return nil
}

// Deregister implements pluginregistry.Handler.
func (m *Manager) Deregister(name string) {
	m.mu.Lock()
	if d := m.drivers[name]; d != nil {
		d.end()
		d.conn.Close()
	}
	delete(m.drivers, name)
	m.mu.Unlock()
	select {
	case m.gone <- struct{}{}:
	default:
	}
}

// Run takes the devices of drivers that stay away out of the cluster, until ctx ends:
// after the start, and after one has gone.
func (m *Manager) Run(ctx context.Context) {
	for {
		select {
		case <-m.Clock.After(wipeDelay):
		case <-ctx.Done():
			return
		}
		if err := m.wipe(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Removing the ResourceSlices of drivers that have gone failed; trying again")
			continue
		}
		select {
		case <-m.gone:
		case <-ctx.Done():
			return
		}
	}
}

// wipe deletes the node's ResourceSlices of drivers that are not there.
func (m *Manager) wipe(ctx context.Context) error {
	slices := m.Client.ResourceV1().ResourceSlices()
	own := func(driver string) metav1.ListOptions {
		f := fields.OneTermEqualSelector(resourcev1.ResourceSliceSelectorNodeName, m.Node)
		if driver != "" {
			f = fields.AndSelectors(f, fields.OneTermEqualSelector(resourcev1.ResourceSliceSelectorDriver, driver))
		}
		return metav1.ListOptions{FieldSelector: f.String()}
	}
	list, err := slices.List(ctx, own(""))
	if err != nil {
		return err
	}
	wiped := map[string]bool{}
	for i := range list.Items {
		name := list.Items[i].Spec.Driver
		if wiped[name] || m.driver(name) != nil {
			continue
		}
		wiped[name] = true
		if err := slices.DeleteCollection(ctx, metav1.DeleteOptions{}, own(name)); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) driver(name string) *driver {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.drivers[name]
}

// call calls a driver for one claim.
func (d *driver) call(ctx context.Context, method string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return d.conn.Invoke(ctx, method, in, out)
}
