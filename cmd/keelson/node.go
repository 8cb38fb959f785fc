package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cliflag "k8s.io/component-base/cli/flag"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/node/kubeletconfig"
)

// nodeFlags holds the flags for this machine's node.
type nodeFlags struct {
	none    bool
	config  string // file of a kubelet's configuration
	dropIns string // folder of more of them
	sets    *cliflag.NamedFlagSets
	agent   agent.Options
	runtime machine.Options
}

func (f *nodeFlags) addFlags(sets *cliflag.NamedFlagSets) {
	fs := sets.FlagSet("node")
	f.sets = sets
	fs.StringVar(&f.config, "config", "", "file with a kubelet's configuration (KubeletConfiguration v1beta1): flags count more than its fields, and fields that have no effect are named")
	fs.StringVar(&f.dropIns, "config-dir", "", "folder of more such files (*.conf), each merged into those before it")
	fs.BoolVar(&f.none, "no-node", false, "run no node on this machine")
	f.agent.AddFlags(fs)
	f.runtime.AddFlags(fs)
	f.agent.Eviction.AddFlags(sets.FlagSet("eviction"))
	f.agent.ImageGC.AddFlags(sets.FlagSet("image garbage collection"))
	f.agent.Exclusive.AddFlags(sets.FlagSet("resource managers"))
	f.agent.Network.AddFlags(sets.FlagSet("network"))
}

// configure sets the flags that the kubelet's configuration says, once.
func (f *nodeFlags) configure() error {
	if f.config == "" && f.dropIns == "" {
		return nil
	}
	fields, err := kubeletconfig.Load(f.config, f.dropIns)
	if err != nil {
		return err
	}
	without, err := fields.Apply(slices.Collect(maps.Values(f.sets.FlagSets))...)
	if len(without) > 0 {
		fmt.Fprintf(os.Stderr, "keelson: fields of the kubelet configuration that have no effect here:\n  %s\n", strings.Join(without, "\n  "))
	}
	f.config, f.dropIns = "", ""
	return err
}

// machine returns the Machine that the node runs on, nil without a node.
func (f *nodeFlags) machine(dataDir string) (*machine.Machine, error) {
	if f.none || dataDir == "" {
		return nil, nil
	}
	if err := f.configure(); err != nil {
		return nil, err
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

func (f *nodeFlags) options(dataDir string) (agent.Options, error) {
	if err := f.configure(); err != nil {
		return f.agent, err
	}
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
