package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"keelson.dev/keelson/internal/cluster"
)

func agentCommand() *cobra.Command {
	var o cluster.AgentProcess
	var f nodeFlags
	var level logLevel
	var dataDir, nodeIP, clusterDNS string
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run this machine's node alone, against the API server of any cluster",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if err := level.set(); err != nil {
				return err
			}
			if dataDir, err = filepath.Abs(dataDir); err != nil {
				return err
			}
			for _, a := range []struct {
				flag, value string
				to          *netip.Addr
			}{{"node-ip", nodeIP, &o.NodeIP}, {"cluster-dns", clusterDNS, &o.ClusterDNS}} {
				if a.value == "" {
					continue
				}
				if *a.to, err = netip.ParseAddr(a.value); err != nil {
					return fmt.Errorf("--%s %q: %w: give an IP address", a.flag, a.value, err)
				}
			}
			if o.AgentOptions, err = f.options(dataDir); err != nil {
				return err
			}
			m, err := f.machine(dataDir)
			if err != nil {
				return err
			}
			if m == nil {
				return errors.New("--no-node leaves nothing to run: leave it out")
			}
			begin := time.Now()
			o.Progress = func(step string, took time.Duration) {
				fmt.Printf("%-16s %8s\n", step, took.Round(100*time.Microsecond))
			}
			o.Ready = func() {
				fmt.Printf("ready            %8s  node %s\n", time.Since(begin).Round(100*time.Microsecond), o.NodeName())
			}
			return cluster.RunAgent(c.Context(), m, o)
		},
	}
	fs := c.Flags()
	f.add(fs)
	if err := fs.MarkHidden("no-node"); err != nil {
		panic(err)
	}
	fs.StringVar(&dataDir, "data-dir", defaultDataDir, "folder of the node's state; keelson down --data-dir takes down what the node has on the machine")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of the API server and of the node's user, system:node: and the node's name")
	fs.Float32Var(&o.QPS, "kube-api-qps", 0, "requests a second to the API server; 0 is no limit")
	fs.IntVar(&o.Burst, "kube-api-burst", 0, "how many requests may exceed --kube-api-qps for a moment")
	fs.StringVar(&nodeIP, "node-ip", "", "address that the node is reached by (default: the machine's towards its default route)")
	fs.StringVar(&clusterDNS, "cluster-dns", "", "address of the cluster's name server (default: that of the Service kube-system/kube-dns)")
	fs.StringVar(&o.ClientCAFile, "client-ca-file", "", "authority in PEM of the certificates of those who call the node (default: the kubeconfig's)")
	fs.StringVar(&o.TLSCertFile, "tls-cert-file", "", "certificate in PEM of the node's server (default: the node signs its own)")
	fs.StringVar(&o.TLSPrivateKeyFile, "tls-private-key-file", "", "its key in PEM")
	fs.BoolVar(&o.RotateServerCertificates, "rotate-server-certificates", false, "request the certificate of the node's server from the cluster, where the requests have to be approved (kubectl certificate approve)")
	level.add(fs)
	return c
}
