package main

import (
	"errors"
	"os"
	"path/filepath"

	cliflag "k8s.io/component-base/cli/flag"

	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/machine"
)

// nodeFlags holds the flags for this machine's node.
type nodeFlags struct {
	none    bool
	agent   cluster.AgentOptions
	runtime machine.Options
}

func (f *nodeFlags) addFlags(sets *cliflag.NamedFlagSets) {
	fs := sets.FlagSet("node")
	fs.BoolVar(&f.none, "no-node", false, "run no node on this machine")
	f.agent.AddFlags(fs)
	f.runtime.AddFlags(fs)
	f.agent.Eviction.AddFlags(sets.FlagSet("eviction"))
	f.agent.ImageGC.AddFlags(sets.FlagSet("image garbage collection"))
	f.agent.Network.AddFlags(sets.FlagSet("network"))
}

// machine gives the Machine that the node runs on, nil without a node.
func (f *nodeFlags) machine(dataDir string) (*machine.Machine, error) {
	if f.none || dataDir == "" {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a node needs root to run containers: use sudo, or --no-node for a control plane alone")
	}
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, err
	}
	return machine.New(dir, f.runtime), nil
}

func (f *nodeFlags) options(dataDir string) (cluster.AgentOptions, error) {
	o := f.agent
	if o.StaticPods == "" {
		o.StaticPods = filepath.Join(dataDir, "manifests")
	}
	var err error
	if o.StaticPods, err = filepath.Abs(o.StaticPods); err != nil {
		return o, err
	}
	return o, o.Validate()
}
