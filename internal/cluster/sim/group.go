package sim

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/nodegroup"
)

// The label of all simulated nodes, and the ID of their group.
const (
	groupLabel = "type"
	groupName  = "simulated"
)

// Provider returns the nodes as a node group, whose size the cluster autoscaler
// changes between Nodes and Most; nil if it is fixed.
func (n *Nodes) Provider() nodegroup.Provider {
	if n.Most == n.Nodes {
		return nil
	}
	return provider{n}
}

type provider struct{ *Nodes }

// Name implements nodegroup.Provider.
func (provider) Name() string { return groupName }

// Refresh implements nodegroup.Provider.
func (provider) Refresh(context.Context) error { return nil }

// Groups implements nodegroup.Provider.
func (p provider) Groups(context.Context) ([]nodegroup.Group, error) {
	return []nodegroup.Group{group(p)}, nil
}

// GroupOf implements nodegroup.Provider.
func (p provider) GroupOf(_ context.Context, node *v1.Node) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.members[node.Name] == nil {
		return "", nil
	}
	return groupName, nil
}

type group struct{ *Nodes }

// ID implements nodegroup.Group.
func (group) ID() string { return groupName }

// Least implements nodegroup.Group.
func (g group) Least() int { return g.Nodes.Nodes }

// Most implements nodegroup.Group.
func (g group) Most() int { return g.Nodes.Most }

// Target implements nodegroup.Group.
func (g group) Target(context.Context) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.members), nil
}

// Increase implements nodegroup.Group.
func (g group) Increase(ctx context.Context, n int) error {
	g.mu.Lock()
	have := len(g.members)
	var free []int
	for i := 0; i < g.Nodes.Most && len(free) < n; i++ {
		if g.members[name(i)] == nil {
			free = append(free, i)
		}
	}
	g.mu.Unlock()
	if len(free) < n {
		return fmt.Errorf("size increase is too large: %d nodes and %d more are over the most, %d", have, n, g.Nodes.Most)
	}
	return g.add(ctx, free)
}

// Decrease implements nodegroup.Group. Nodes are there at once.
func (group) Decrease(_ context.Context, n int) error {
	return fmt.Errorf("%d nodes are to be taken back that are not there yet, but all are", n)
}

// Delete implements nodegroup.Group.
func (g group) Delete(ctx context.Context, nodes []*v1.Node) error {
	errs := make([]error, len(nodes))
	each(len(nodes), func(i int) {
		name := nodes[i].Name
		g.mu.Lock()
		delete(g.members, name)
		g.mu.Unlock()
		for _, err := range []error{
			g.Client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}),
			g.Client.CoordinationV1().Leases(v1.NamespaceNodeLease).Delete(ctx, name, metav1.DeleteOptions{}),
		} {
			if err != nil && !apierrors.IsNotFound(err) {
				errs[i] = errors.Join(errs[i], err)
			}
		}
	})
	return errors.Join(errs...)
}

// Instances implements nodegroup.Group. Nodes are there at once.
func (group) Instances(context.Context) ([]nodegroup.Instance, error) {
	return nil, nodegroup.ErrNotImplemented
}

// Template implements nodegroup.Group.
func (g group) Template(context.Context) (*v1.Node, error) { return g.node("simulated", 0), nil }

// Options implements nodegroup.Group.
func (group) Options(_ context.Context, defaults nodegroup.GroupOptions) (nodegroup.GroupOptions, error) {
	return defaults, nil
}

// Range is a flag of a number of nodes, "3", or of the least and the greatest, "0..500".
type Range struct{ Least, Most *int }

// Set implements pflag.Value.
func (r Range) Set(s string) error {
	low, high, both := strings.Cut(s, "..")
	if !both {
		high = low
	}
	least, err := strconv.Atoi(low)
	most, err2 := strconv.Atoi(high)
	if err != nil || err2 != nil || least < 0 || most < least {
		return errors.New("give a number like 3, or a range like 0..500")
	}
	*r.Least, *r.Most = least, most
	return nil
}

// String implements pflag.Value.
func (r Range) String() string {
	switch {
	case r.Least == nil:
		return "0"
	case *r.Most <= *r.Least:
		return strconv.Itoa(*r.Least)
	}
	return fmt.Sprintf("%d..%d", *r.Least, *r.Most)
}

// Type implements pflag.Value.
func (Range) Type() string { return "range" }
