package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	cliflag "k8s.io/component-base/cli/flag"
)

// providerName is the cloud's name, with which its provider IDs begin.
const providerName = "harbour"

func init() {
	cloudprovider.RegisterCloudProvider(providerName, func(config io.Reader) (cloudprovider.Interface, error) {
		if config == nil {
			return nil, errors.New("--cloud-config is needed: a file with the path of the cloud's socket")
		}
		socket, err := io.ReadAll(config)
		if err != nil {
			return nil, err
		}
		client, err := rpc.Dial("unix", strings.TrimSpace(string(socket)))
		if err != nil {
			return nil, fmt.Errorf("the cloud: %w", err)
		}
		return &provider{client}, nil
	})
}

// controllerManager is the main function of a cloud controller manager.
func controllerManager(args []string) error {
	o, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		return err
	}
	cloud := func(c *config.CompletedConfig) cloudprovider.Interface {
		settings := c.ComponentConfig.KubeCloudShared.CloudProvider
		p, err := cloudprovider.InitCloudProvider(settings.Name, settings.CloudConfigFile)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return p
	}
	cmd := app.NewCloudControllerManagerCommand(o, cloud, app.DefaultInitFuncConstructors, names.CCMControllerAliases(), cliflag.NamedFlagSets{}, wait.NeverStop)
	cmd.SetArgs(args)
	return cmd.Execute()
}

// provider is the cloud as k8s.io/cloud-provider asks it.
type provider struct{ cloud *rpc.Client }

func (*provider) Initialize(cloudprovider.ControllerClientBuilder, <-chan struct{}) {}
func (p *provider) LoadBalancer() (cloudprovider.LoadBalancer, bool)                { return p, true }
func (p *provider) InstancesV2() (cloudprovider.InstancesV2, bool)                  { return p, true }
func (p *provider) Routes() (cloudprovider.Routes, bool)                            { return p, true }
func (*provider) Instances() (cloudprovider.Instances, bool)                        { return nil, false }
func (*provider) Zones() (cloudprovider.Zones, bool)                                { return nil, false }
func (*provider) Clusters() (cloudprovider.Clusters, bool)                          { return nil, false }
func (*provider) ProviderName() string                                              { return providerName }
func (*provider) HasClusterID() bool                                                { return true }

func (p *provider) instance(n *v1.Node) (out Instance, err error) {
	err = p.cloud.Call("Cloud.Instance", [2]string{n.Name, n.Spec.ProviderID}, &out)
	return out, err
}

// InstanceExists implements cloudprovider.InstancesV2.
func (p *provider) InstanceExists(_ context.Context, n *v1.Node) (bool, error) {
	i, err := p.instance(n)
	return i.ProviderID != "", err
}

// InstanceShutdown implements cloudprovider.InstancesV2.
func (p *provider) InstanceShutdown(_ context.Context, n *v1.Node) (bool, error) {
	i, err := p.instance(n)
	return i.Stopped, err
}

// InstanceMetadata implements cloudprovider.InstancesV2.
func (p *provider) InstanceMetadata(_ context.Context, n *v1.Node) (*cloudprovider.InstanceMetadata, error) {
	i, err := p.instance(n)
	if err == nil && i.ProviderID == "" {
		err = cloudprovider.InstanceNotFound
	}
	return &i.InstanceMetadata, err
}

// ListRoutes implements cloudprovider.Routes.
func (p *provider) ListRoutes(context.Context, string) ([]*cloudprovider.Route, error) {
	var all []cloudprovider.Route
	err := p.cloud.Call("Cloud.Routes", None{}, &all)
	out := make([]*cloudprovider.Route, len(all))
	for i := range all {
		out[i] = &all[i]
	}
	return out, err
}

// CreateRoute implements cloudprovider.Routes.
func (p *provider) CreateRoute(_ context.Context, _, _ string, r *cloudprovider.Route) error {
	return p.cloud.Call("Cloud.CreateRoute", *r, &None{})
}

// DeleteRoute implements cloudprovider.Routes.
func (p *provider) DeleteRoute(_ context.Context, _ string, r *cloudprovider.Route) error {
	return p.cloud.Call("Cloud.DeleteRoute", r.Name, &None{})
}

// GetLoadBalancerName implements cloudprovider.LoadBalancer.
func (*provider) GetLoadBalancerName(_ context.Context, _ string, s *v1.Service) string {
	return cloudprovider.DefaultLoadBalancerName(s)
}

// GetLoadBalancer implements cloudprovider.LoadBalancer.
func (p *provider) GetLoadBalancer(_ context.Context, _ string, s *v1.Service) (*v1.LoadBalancerStatus, bool, error) {
	var b Balancer
	err := p.cloud.Call("Cloud.Balancer", cloudprovider.DefaultLoadBalancerName(s), &b)
	return status(b), b.Address != "", err
}

// EnsureLoadBalancer implements cloudprovider.LoadBalancer.
func (p *provider) EnsureLoadBalancer(_ context.Context, _ string, s *v1.Service, nodes []*v1.Node) (*v1.LoadBalancerStatus, error) {
	b := Named{Name: cloudprovider.DefaultLoadBalancerName(s), Balancer: Balancer{Service: s.Namespace + "/" + s.Name, Ranges: s.Spec.LoadBalancerSourceRanges}}
	for _, port := range s.Spec.Ports {
		b.Ports = append(b.Ports, port.Port)
	}
	for _, n := range nodes {
		b.Hosts = append(b.Hosts, n.Spec.ProviderID)
	}
	var out Balancer
	if err := p.cloud.Call("Cloud.EnsureBalancer", b, &out); err != nil {
		return nil, err
	}
	return status(out), nil
}

// UpdateLoadBalancer implements cloudprovider.LoadBalancer.
func (p *provider) UpdateLoadBalancer(ctx context.Context, cluster string, s *v1.Service, nodes []*v1.Node) error {
	_, err := p.EnsureLoadBalancer(ctx, cluster, s, nodes)
	return err
}

// EnsureLoadBalancerDeleted implements cloudprovider.LoadBalancer.
func (p *provider) EnsureLoadBalancerDeleted(_ context.Context, _ string, s *v1.Service) error {
	return p.cloud.Call("Cloud.DeleteBalancer", cloudprovider.DefaultLoadBalancerName(s), &None{})
}

func status(b Balancer) *v1.LoadBalancerStatus {
	vip := v1.LoadBalancerIPModeVIP
	return &v1.LoadBalancerStatus{Ingress: []v1.LoadBalancerIngress{{IP: b.Address, IPMode: &vip}}}
}
