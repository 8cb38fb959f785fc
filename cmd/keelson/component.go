package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/controllers/manager"
)

// addComponent adds the flags that the components with a process of their own
// share.
func addComponent(fs *pflag.FlagSet, o *cluster.Component) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of the API server and of the identity that the component acts as (default: the service account of the pod that it runs in)")
	fs.StringVar(&o.Master, "master", "", "URL of the API server, in place of the kubeconfig's")
	fs.Float32Var(&o.QPS, "kube-api-qps", 0, "requests a second to the API server; 0 is no limit")
	fs.IntVar(&o.Burst, "kube-api-burst", 0, "how many requests may exceed --kube-api-qps for a moment")
	fs.BoolVar(&o.LeaderElect, "leader-elect", true, "of several processes, let the one that holds the component's Lease work")
	fs.DurationVar(&o.LeaseDuration, "leader-elect-lease-duration", 0, "how long the others wait after the last renewal (default 15s)")
	fs.DurationVar(&o.RenewDeadline, "leader-elect-renew-deadline", 0, "how long the holder tries to renew before it ends (default 10s)")
	fs.DurationVar(&o.RetryPeriod, "leader-elect-retry-period", 0, "how long to wait between tries (default 2s)")
	fs.StringVar(&o.Namespace, "leader-elect-resource-namespace", "", "namespace of the Lease (default kube-system)")
}

func schedulerCommand() *cobra.Command {
	var o cluster.Component
	var level logLevel
	c := &cobra.Command{
		Use:   "scheduler",
		Short: "Run the scheduler alone, against the API server of any cluster",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := level.set(); err != nil {
				return err
			}
			return cluster.RunScheduler(c.Context(), o)
		},
	}
	addComponent(c.Flags(), &o)
	level.add(c.Flags())
	return c
}

func controllersCommand() *cobra.Command {
	var o cluster.ControllerManager
	var level logLevel
	c := &cobra.Command{
		Use:   "controllers",
		Short: "Run the controllers alone, against the API server of any cluster",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := level.set(); err != nil {
				return err
			}
			return cluster.RunControllers(c.Context(), o)
		},
	}
	fs := c.Flags()
	addComponent(fs, &o.Component)
	fs.StringSliceVar(&o.Controllers, "controllers", nil, "controllers to run: '*' is all, 'foo' is that one, '-foo' leaves it out. There are: "+strings.Join(manager.Names(), ", "))
	fs.BoolVar(&o.UseServiceAccountCredentials, "use-service-account-credentials", false, "let each controller act as its own service account of kube-system")
	fs.StringVar(&o.RootCAFile, "root-ca-file", "", "bundle in PEM that is published to each namespace (default: the kubeconfig's authority)")
	fs.StringVar(&o.ClusterSigningCertFile, "cluster-signing-cert-file", "", "certificate in PEM of the authority that signs requests for certificates; without it none is signed")
	fs.StringVar(&o.ClusterSigningKeyFile, "cluster-signing-key-file", "", "its key in PEM")
	fs.StringVar(&o.ServiceAccountPrivateKeyFile, "service-account-private-key-file", "", "key in PEM that signs the tokens in Secrets of service accounts; without it they get none")
	level.add(fs)
	return c
}
