package externalgrpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/nodegroup"
)

// config is the file of --cloud-config, as upstream's.
type config struct {
	Address string `json:"address"`
	// Key, Cert and CACert are files in PEM; without a key the connection is plain.
	Key     string `json:"key"`
	Cert    string `json:"cert"`
	CACert  string `json:"cacert"`
	Timeout string `json:"grpc_timeout"`
}

// defaultTimeout bounds a call.
const defaultTimeout = 5 * time.Second

// Provider is another process.
type Provider struct {
	conn    *grpc.ClientConn
	timeout time.Duration

	mu     sync.Mutex
	groups []nodegroup.Group // nil if they are to be asked for
	of     map[string]string // by the node's name, since the last Refresh
}

var _ nodegroup.Provider = (*Provider)(nil)

// New makes the provider that a configuration file names. It connects when it is first
// asked; Close ends the connection.
func New(file string) (*Provider, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var c config
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if c.Address == "" {
		return nil, fmt.Errorf("%s: address is missing: give the host and port of the provider", file)
	}
	p := &Provider{timeout: defaultTimeout, of: map[string]string{}}
	if c.Timeout != "" {
		if p.timeout, err = time.ParseDuration(c.Timeout); err != nil || p.timeout <= 0 {
			return nil, fmt.Errorf("%s: grpc_timeout %q: give a duration like 5s", file, c.Timeout)
		}
	}
	secure, err := c.credentials()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	p.conn, err = grpc.NewClient(c.Address, grpc.WithTransportCredentials(secure))
	return p, err
}

func (c *config) credentials() (credentials.TransportCredentials, error) {
	if c.Key == "" && c.Cert == "" && c.CACert == "" {
		return insecure.NewCredentials(), nil
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(c.CACert)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("cacert %s has no certificate in PEM", c.CACert)
	}
	return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}), nil
}

// Close ends the connection.
func (p *Provider) Close() error { return p.conn.Close() }

func (p *Provider) call(ctx context.Context, method string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	err := p.conn.Invoke(ctx, "/"+service+"/"+method, in, out)
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("%s: %w", method, nodegroup.ErrNotImplemented)
	}
	return err
}

// Name implements nodegroup.Provider.
func (*Provider) Name() string { return "externalgrpc" }

// Refresh implements nodegroup.Provider.
func (p *Provider) Refresh(ctx context.Context) error {
	p.mu.Lock()
	p.groups, p.of = nil, map[string]string{}
	p.mu.Unlock()
	return p.call(ctx, "Refresh", &Empty{}, &Empty{})
}

// Groups implements nodegroup.Provider.
func (p *Provider) Groups(ctx context.Context) ([]nodegroup.Group, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.groups != nil {
		return p.groups, nil
	}
	var out NodeGroupsResponse
	if err := p.call(ctx, "NodeGroups", &Empty{}, &out); err != nil {
		return nil, err
	}
	p.groups = []nodegroup.Group{}
	for _, g := range out.NodeGroups {
		p.groups = append(p.groups, &group{p, g})
	}
	return p.groups, nil
}

// GroupOf implements nodegroup.Provider.
func (p *Provider) GroupOf(ctx context.Context, node *v1.Node) (string, error) {
	p.mu.Lock()
	id, ok := p.of[node.Name]
	p.mu.Unlock()
	if ok {
		return id, nil
	}
	var out NodeGroupForNodeResponse
	if err := p.call(ctx, "NodeGroupForNode", &NodeGroupForNodeRequest{Node: wire(node)}, &out); err != nil {
		return "", err
	}
	if out.NodeGroup != nil {
		id = out.NodeGroup.ID
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of[node.Name] = id
	return id, nil
}

func wire(n *v1.Node) *Node {
	return &Node{ProviderID: n.Spec.ProviderID, Name: n.Name, Labels: n.Labels, Annotations: n.Annotations}
}

type group struct {
	p *Provider
	g *NodeGroup
}

// ID implements nodegroup.Group.
func (g *group) ID() string { return g.g.ID }

// Least implements nodegroup.Group.
func (g *group) Least() int { return int(g.g.MinSize) }

// Most implements nodegroup.Group.
func (g *group) Most() int { return int(g.g.MaxSize) }

// Target implements nodegroup.Group.
func (g *group) Target(ctx context.Context) (int, error) {
	var out TargetSizeResponse
	err := g.p.call(ctx, "NodeGroupTargetSize", &GroupRequest{ID: g.g.ID}, &out)
	return int(out.TargetSize), err
}

// Increase implements nodegroup.Group.
func (g *group) Increase(ctx context.Context, n int) error {
	return g.p.call(ctx, "NodeGroupIncreaseSize", &DeltaRequest{ID: g.g.ID, Delta: int32(n)}, &Empty{}) //nolint:gosec // below the greatest size
}

// Decrease implements nodegroup.Group.
func (g *group) Decrease(ctx context.Context, n int) error {
	return g.p.call(ctx, "NodeGroupDecreaseTargetSize", &DeltaRequest{ID: g.g.ID, Delta: -int32(n)}, &Empty{}) //nolint:gosec // below the greatest size
}

// Delete implements nodegroup.Group.
func (g *group) Delete(ctx context.Context, nodes []*v1.Node) error {
	in := &DeleteNodesRequest{ID: g.g.ID}
	for _, n := range nodes {
		in.Nodes = append(in.Nodes, wire(n))
	}
	return g.p.call(ctx, "NodeGroupDeleteNodes", in, &Empty{})
}

// Instances implements nodegroup.Group.
func (g *group) Instances(ctx context.Context) ([]nodegroup.Instance, error) {
	var out NodesResponse
	if err := g.p.call(ctx, "NodeGroupNodes", &GroupRequest{ID: g.g.ID}, &out); err != nil {
		return nil, err
	}
	instances := make([]nodegroup.Instance, 0, len(out.Instances))
	for _, i := range out.Instances {
		one := nodegroup.Instance{ID: i.ID}
		if s := i.Status; s != nil && s.State != int32(nodegroup.Unknown) {
			one.State = nodegroup.State(s.State)
			if e := s.Error; e != nil && e.Code != "" {
				one.Failure = &nodegroup.Failure{Class: nodegroup.Class(e.Class), Code: e.Code, Message: e.Message}
			}
		}
		instances = append(instances, one)
	}
	return instances, nil
}

// Template implements nodegroup.Group.
func (g *group) Template(ctx context.Context) (*v1.Node, error) {
	var out TemplateResponse
	if err := g.p.call(ctx, "NodeGroupTemplateNodeInfo", &GroupRequest{ID: g.g.ID}, &out); err != nil {
		return nil, err
	}
	if len(out.NodeBytes) == 0 {
		return nil, fmt.Errorf("node group %s: the provider's template has no node", g.g.ID)
	}
	node := &v1.Node{}
	if err := node.Unmarshal(out.NodeBytes); err != nil {
		return nil, fmt.Errorf("node group %s: reading the provider's template: %w", g.g.ID, err)
	}
	return node, nil
}

// Options implements nodegroup.Group.
func (g *group) Options(ctx context.Context, d nodegroup.GroupOptions) (nodegroup.GroupOptions, error) {
	in := &OptionsRequest{ID: g.g.ID, Defaults: &AutoscalingOptions{ScaleDownUtilizationThreshold: d.Utilization,
		ScaleDownUnneededDuration: duration(d.UnneededTime), ScaleDownUnreadyDuration: duration(d.UnreadyTime),
		MaxNodeProvisionDuration: duration(d.ProvisionTime), MaxNodeStartupDuration: duration(d.StartupTime)}}
	var out OptionsResponse
	if err := g.p.call(ctx, "NodeGroupGetOptions", in, &out); err != nil {
		return d, err
	}
	o := out.Options
	if o == nil {
		return d, errors.New("the provider gave no options")
	}
	d.Utilization = o.ScaleDownUtilizationThreshold
	d.UnneededTime, d.UnreadyTime = o.ScaleDownUnneededDuration.or(d.UnneededTime), o.ScaleDownUnreadyDuration.or(d.UnreadyTime)
	d.ProvisionTime, d.StartupTime = o.MaxNodeProvisionDuration.or(d.ProvisionTime), o.MaxNodeStartupDuration.or(d.StartupTime)
	return d, nil
}

func duration(d time.Duration) *Duration {
	return &Duration{Seconds: int64(d / time.Second), Nanos: int32(d % time.Second)}
}

// or returns m, or otherwise where there is none.
func (m *Duration) or(otherwise time.Duration) time.Duration {
	if m == nil {
		return otherwise
	}
	return time.Duration(m.Seconds)*time.Second + time.Duration(m.Nanos)
}
