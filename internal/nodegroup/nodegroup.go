package nodegroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
)

// ErrNotImplemented is the error of what a provider need not do.
var ErrNotImplemented = errors.New("the provider does not implement it")

// Provider has node groups.
type Provider interface {
	// Name of the provider, for messages.
	Name() string
	// Refresh is called before each look at the groups.
	Refresh(ctx context.Context) error
	// Groups returns all groups.
	Groups(ctx context.Context) ([]Group, error)
	// GroupOf returns the ID of the group that a node is of; empty if it is of none.
	GroupOf(ctx context.Context, node *v1.Node) (string, error)
}

// Group is a group of nodes that are alike. Sizes are numbers of nodes.
type Group interface {
	ID() string
	// Least and Most are the bounds of its size; Least may be 0.
	Least() int
	Most() int
	// Target returns the size that the group will have; nodes may be on their
	// way.
	Target(ctx context.Context) (int, error)
	// Increase adds n to the target.
	Increase(ctx context.Context, n int) error
	// Decrease takes n from the target, of nodes that are not there yet.
	Decrease(ctx context.Context, n int) error
	// Delete deletes nodes of the group, and takes them from the target.
	Delete(ctx context.Context, nodes []*v1.Node) error
	// Template returns a node as a new one of the group would be, or
	// ErrNotImplemented.
	Template(ctx context.Context) (*v1.Node, error)
	// Options returns what is particular to the group, or ErrNotImplemented.
	Options(ctx context.Context, defaults GroupOptions) (GroupOptions, error)
}

// GroupOptions may differ between groups.
type GroupOptions struct {
	// Utilization is the share of a node's CPU or memory, of 1, that its pods request,
	// below which it may be removed.
	Utilization float64
	// UnneededTime is how long a node has to be unneeded before it is removed.
	UnneededTime time.Duration
	// ProvisionTime is how long a node may take to appear.
	ProvisionTime time.Duration
}

// Options of the cluster autoscaler, by the names of upstream's flags.
type Options struct {
	// CloudConfig is the file of an external provider's address and certificates.
	CloudConfig string
	// Expanders choose among groups that would do, one after another: least-waste,
	// priority or random.
	Expanders []string
	// ScanInterval is the time between two looks at the cluster.
	ScanInterval time.Duration
	// NoScaleDown keeps nodes that are not needed.
	NoScaleDown bool
	GroupOptions
	// DelayAfterAdd is how long after the last increase nothing is removed.
	DelayAfterAdd time.Duration
	// Parallelism is how many nodes are removed at once; of these, Drains have pods.
	Parallelism, Drains int
	// GracefulTermination bounds how long pods may take to end.
	GracefulTermination time.Duration
}

// DefaultOptions are upstream's.
func DefaultOptions() Options {
	return Options{Expanders: []string{"least-waste"}, ScanInterval: 10 * time.Second,
		GroupOptions:  GroupOptions{Utilization: 0.5, UnneededTime: 10 * time.Minute, ProvisionTime: 15 * time.Minute},
		DelayAfterAdd: 10 * time.Minute, Parallelism: 10, Drains: 1, GracefulTermination: 10 * time.Minute}
}

// AddFlags adds upstream's flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	*o = DefaultOptions()
	fs.StringVar(&o.CloudConfig, "cloud-config", "", "file (YAML: address, key, cert, cacert, grpc_timeout) of a provider of node groups by upstream's externalgrpc protocol")
	fs.StringSliceVar(&o.Expanders, "expander", o.Expanders, "how to choose among suitable node groups, one criterion after another: least-waste, priority, random")
	fs.DurationVar(&o.ScanInterval, "scan-interval", o.ScanInterval, "time between two looks of the cluster autoscaler at the cluster")
	fs.BoolVar(&o.NoScaleDown, "no-scale-down", false, "let the cluster autoscaler remove no nodes")
	fs.Float64Var(&o.Utilization, "scale-down-utilization-threshold", o.Utilization, "share of a node's CPU or memory, of 1, that its pods request, below which it may be removed")
	fs.DurationVar(&o.UnneededTime, "scale-down-unneeded-time", o.UnneededTime, "how long a node has to be unneeded before it is removed")
	fs.DurationVar(&o.DelayAfterAdd, "scale-down-delay-after-add", o.DelayAfterAdd, "how long after the last node was added none is removed")
	fs.DurationVar(&o.ProvisionTime, "max-node-provision-time", o.ProvisionTime, "how long a node that was asked for may take to appear")
	fs.IntVar(&o.Parallelism, "max-scale-down-parallelism", o.Parallelism, "how many nodes are removed at once")
	fs.IntVar(&o.Drains, "max-drain-parallelism", o.Drains, "how many of the nodes that are removed at once may have pods")
	fs.DurationVar(&o.GracefulTermination, "max-graceful-termination", o.GracefulTermination, "how long the pods of a node that is removed may take to end")
}

// expanders holds the names of all expanders.
var expanders = []string{"least-waste", "priority", "random"}

// Validate reports what is wrong with options that flags have filled in.
func (o *Options) Validate() error {
	var errs []error
	for _, e := range o.Expanders {
		if !slices.Contains(expanders, e) {
			errs = append(errs, fmt.Errorf("--expander %q: there are %s", e, strings.Join(expanders, ", ")))
		}
	}
	if o.ScanInterval <= 0 {
		errs = append(errs, fmt.Errorf("--scan-interval %s: give a time above 0", o.ScanInterval))
	}
	if o.Utilization < 0 || o.Utilization > 1 {
		errs = append(errs, fmt.Errorf("--scale-down-utilization-threshold %v: give a share of 0 to 1", o.Utilization))
	}
	if o.Parallelism < 1 || o.Drains < 0 {
		errs = append(errs, errors.New("--max-scale-down-parallelism must be at least 1, and --max-drain-parallelism at least 0"))
	}
	return errors.Join(errs...)
}
