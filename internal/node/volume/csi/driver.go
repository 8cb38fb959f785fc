package csi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
)

// driver is one that has registered.
type driver struct {
	name string
	conn *grpc.ClientConn
	node csi.NodeClient
	can  map[csi.NodeServiceCapability_RPC_Type]bool
	// due is when the driver is asked next how many volumes the node can have.
	due time.Time
}

// Register adds a driver: it asks for the driver's capabilities and publishes the
// driver in the node's CSINode. It implements the handler of package
// pluginregistry.
func (p *Plugin) Register(ctx context.Context, name, endpoint string, versions []string) error {
	supported := false
	for _, v := range versions {
		supported = supported || v == "1" || strings.HasPrefix(strings.TrimPrefix(v, "v"), "1.")
	}
	if !supported {
		return fmt.Errorf("none of the CSI versions reported by this driver are supported: %v", versions)
	}
	conn, err := grpc.NewClient("unix://"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(p.observe(name)))
	if err != nil {
		return err
	}
	d := &driver{name: name, conn: conn, node: csi.NewNodeClient(conn)}
	if err := p.introduce(ctx, d); err != nil {
		return errors.Join(fmt.Errorf("driver %s: %w", name, err), conn.Close())
	}
	p.mu.Lock()
	old := p.drivers[name]
	if p.drivers == nil {
		p.drivers = map[string]*driver{}
	}
	p.drivers[name] = d
	p.mu.Unlock()
	if old != nil {
		_ = old.conn.Close() // its calls fail, and are made anew
	}
	klog.FromContext(ctx).Info("CSI driver has registered", "driver", name, "endpoint", endpoint)
	return nil
}

// introduce asks a driver for its capabilities and publishes it in the node's
// CSINode.
func (p *Plugin) introduce(ctx context.Context, d *driver) error {
	capabilities, err := d.node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	d.can = map[csi.NodeServiceCapability_RPC_Type]bool{}
	for _, c := range capabilities.Capabilities {
		d.can[c.GetRpc().GetType()] = true
	}
	info, err := d.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return err
	}
	if info.NodeId == "" {
		return errors.New("error from CSI NodeGetInfo: it has no node ID")
	}
	return p.publishNode(ctx, d.name, info)
}

// Deregister forgets a driver, and removes it from the node's CSINode.
func (p *Plugin) Deregister(name string) {
	p.mu.Lock()
	d := p.drivers[name]
	delete(p.drivers, name)
	p.mu.Unlock()
	if d == nil {
		return
	}
	_ = d.conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := p.withdrawNode(ctx, name); err != nil {
		klog.FromContext(ctx).Error(err, "Taking a CSI driver from the node's CSINode failed", "driver", name)
	}
}

// driver returns a driver that has registered.
func (p *Plugin) driver(name string) (*driver, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.drivers[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", name)
}
