package component

import (
	"github.com/spf13/pflag"
)

// AddFlags adds the flags of the component's client of the API server.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of the API server and of the identity that the component acts as (default: the service account of the pod that it runs in)")
	fs.StringVar(&o.Master, "master", "", "URL of the API server, in place of the kubeconfig's")
	fs.Float32Var(&o.QPS, "kube-api-qps", 0, "requests a second to the API server; 0 is no limit")
	fs.IntVar(&o.Burst, "kube-api-burst", 0, "how many requests may exceed --kube-api-qps for a moment")
}

// AddFlags adds upstream's flags of leader election.
func (e *Election) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&e.LeaderElect, "leader-elect", true, "of several processes, let the one that holds the component's Lease work")
	fs.DurationVar(&e.LeaseDuration, "leader-elect-lease-duration", 0, "how long the others wait after the last renewal (default 15s)")
	fs.DurationVar(&e.RenewDeadline, "leader-elect-renew-deadline", 0, "how long the holder tries to renew before it ends (default 10s)")
	fs.DurationVar(&e.RetryPeriod, "leader-elect-retry-period", 0, "how long to wait between tries (default 2s)")
	fs.StringVar(&e.Namespace, "leader-elect-resource-namespace", "", "namespace of the Lease (default kube-system)")
}
