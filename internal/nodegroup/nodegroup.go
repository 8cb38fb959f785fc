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
	// Delete deletes nodes of the group, and takes them from the target. A node that has
	// not registered has the ID of its instance as its name and provider ID.
	Delete(ctx context.Context, nodes []*v1.Node) error
	// Instances returns the machines of the group, registered as nodes or not; or
	// ErrNotImplemented where nodes are registered as soon as they are asked for.
	Instances(ctx context.Context) ([]Instance, error)
	// Template returns a node as a new one of the group would be, or
	// ErrNotImplemented.
	Template(ctx context.Context) (*v1.Node, error)
	// Options returns what is particular to the group, or ErrNotImplemented.
	Options(ctx context.Context, defaults GroupOptions) (GroupOptions, error)
}

// Instance is a machine of a group.
type Instance struct {
	// ID is the provider ID of its node.
	ID    string
	State State
	// Failure tells why it cannot be made; nil if it can.
	Failure *Failure
}

// State of an instance; an unknown one is neither waited for nor removed.
type State int

// States, by the numbers of upstream's externalgrpc protocol.
const (
	Unknown State = iota
	Running
	Creating
	Deleting
)

// Failure of an instance.
type Failure struct {
	Class         Class
	Code, Message string
}

// Class of a failure.
type Class int

// Classes, by the numbers of upstream's cloud providers.
const (
	OutOfResources Class = 1
	Other          Class = 99
)

// String returns upstream's name of the class.
func (c Class) String() string {
	switch c {
	case OutOfResources:
		return "OutOfResource"
	case Other:
		return "Other"
	}
	return fmt.Sprint(int(c))
}

// GroupOptions may differ between groups.
type GroupOptions struct {
	// Utilization is the share of a node's CPU or memory, of 1, that its pods request,
	// below which it may be removed.
	Utilization float64
	// UnneededTime is how long a node has to be unneeded before it is removed.
	UnneededTime time.Duration
	// UnreadyTime is UnneededTime for a node that is not ready.
	UnreadyTime time.Duration
	// ProvisionTime is how long a node may take to appear.
	ProvisionTime time.Duration
	// StartupTime is how long a node that has appeared may take to be ready.
	StartupTime time.Duration
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
	// DelayAfterAdd is how long after the last increase nothing is removed, DelayAfterFailure
	// after the last failed removal.
	DelayAfterAdd, DelayAfterFailure time.Duration
	// DelayAfterTaint is how long after a node was tainted its pods are counted for the last
	// time, so that those which were being bound meanwhile are seen.
	DelayAfterTaint time.Duration
	// Parallelism is how many nodes are removed at once; of these, Drains have pods.
	Parallelism, Drains int
	// GracefulTermination bounds how long pods may take to end.
	GracefulTermination time.Duration
	// SoftTaints is how many nodes' soft taints are changed at one look, for SoftTaintTime at
	// the most; 0 is no soft taints.
	SoftTaints    int
	SoftTaintTime time.Duration
	// FirstBackoff and LastBackoff bound how long a group is left alone that has failed;
	// BackoffReset after its last failure it is as if it had not.
	FirstBackoff, LastBackoff, BackoffReset time.Duration
	// UnreadyPercentage is how many of all nodes, in percent, may be unready, where they
	// are more than UnreadyCount, before nothing is done.
	UnreadyPercentage float64
	UnreadyCount      int
}

// DefaultOptions are upstream's.
func DefaultOptions() Options {
	return Options{Expanders: []string{"least-waste"}, ScanInterval: 10 * time.Second,
		GroupOptions:  GroupOptions{Utilization: 0.5, UnneededTime: 10 * time.Minute, UnreadyTime: 20 * time.Minute, ProvisionTime: 15 * time.Minute, StartupTime: 15 * time.Minute},
		DelayAfterAdd: 10 * time.Minute, DelayAfterFailure: 3 * time.Minute, DelayAfterTaint: 5 * time.Second, Parallelism: 10, Drains: 1, GracefulTermination: 10 * time.Minute,
		SoftTaints: 10, SoftTaintTime: 3 * time.Second, FirstBackoff: 5 * time.Minute, LastBackoff: 30 * time.Minute, BackoffReset: 3 * time.Hour,
		UnreadyPercentage: 45, UnreadyCount: 3}
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
	fs.DurationVar(&o.UnreadyTime, "scale-down-unready-time", o.UnreadyTime, "how long a node that is not ready has to be unneeded before it is removed")
	fs.DurationVar(&o.DelayAfterAdd, "scale-down-delay-after-add", o.DelayAfterAdd, "how long after the last node was added none is removed")
	fs.DurationVar(&o.DelayAfterFailure, "scale-down-delay-after-failure", o.DelayAfterFailure, "how long after a removal has failed no node is removed")
	fs.DurationVar(&o.DelayAfterTaint, "node-delete-delay-after-taint", o.DelayAfterTaint, "how long after a node that is removed was tainted its pods are counted for the last time")
	fs.DurationVar(&o.ProvisionTime, "max-node-provision-time", o.ProvisionTime, "how long a node that was asked for may take to appear")
	fs.DurationVar(&o.StartupTime, "max-node-startup-time", o.StartupTime, "how long a node that has appeared may take to be ready")
	fs.IntVar(&o.Parallelism, "max-scale-down-parallelism", o.Parallelism, "how many nodes are removed at once")
	fs.IntVar(&o.Drains, "max-drain-parallelism", o.Drains, "how many of the nodes that are removed at once may have pods")
	fs.DurationVar(&o.GracefulTermination, "max-graceful-termination", o.GracefulTermination, "how long the pods of a node that is removed may take to end")
	fs.IntVar(&o.SoftTaints, "max-bulk-soft-taint-count", o.SoftTaints, "how many nodes get or lose the taint DeletionCandidateOfClusterAutoscaler at one look of the cluster autoscaler; 0: it sets none")
	fs.DurationVar(&o.SoftTaintTime, "max-bulk-soft-taint-time", o.SoftTaintTime, "how long setting and removing these taints may take at one look")
	fs.DurationVar(&o.FirstBackoff, "initial-node-group-backoff-duration", o.FirstBackoff, "how long a node group is left alone that has failed to grow once")
	fs.DurationVar(&o.LastBackoff, "max-node-group-backoff-duration", o.LastBackoff, "how long a node group is left alone at the most that has failed to grow")
	fs.DurationVar(&o.BackoffReset, "node-group-backoff-reset-timeout", o.BackoffReset, "how long after its last failure a node group's failures are forgotten")
	fs.Float64Var(&o.UnreadyPercentage, "max-total-unready-percentage", o.UnreadyPercentage, "percentage of unready nodes above which the cluster autoscaler does nothing")
	fs.IntVar(&o.UnreadyCount, "ok-total-unready-count", o.UnreadyCount, "number of unready nodes up to which their percentage does not matter")
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
	if o.SoftTaints < 0 {
		errs = append(errs, fmt.Errorf("--max-bulk-soft-taint-count %d: give a number of at least 0", o.SoftTaints))
	}
	if o.FirstBackoff <= 0 || o.LastBackoff < o.FirstBackoff {
		errs = append(errs, fmt.Errorf("--max-node-group-backoff-duration %s: give a time of at least that of --initial-node-group-backoff-duration, %s, which is above 0", o.LastBackoff, o.FirstBackoff))
	}
	if o.UnreadyPercentage < 0 || o.UnreadyPercentage > 100 {
		errs = append(errs, fmt.Errorf("--max-total-unready-percentage %v: give a percentage of 0 to 100", o.UnreadyPercentage))
	}
	return errors.Join(errs...)
}
