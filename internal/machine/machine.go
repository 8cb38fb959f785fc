package machine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/internal/machine/cni"
	"keelson.dev/keelson/internal/machine/containerd"
	"keelson.dev/keelson/internal/network/dns"
	"keelson.dev/keelson/internal/network/podnet"
	"keelson.dev/keelson/internal/network/policy"
	"keelson.dev/keelson/internal/network/proxy"
	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/hostport"
	"keelson.dev/keelson/internal/node/images"
)

// Options of a Machine.
type Options struct {
	// PodCIDRs are the ranges of the pods' addresses, in place of the Node's.
	PodCIDRs []netip.Prefix
	// NoPodNetwork leaves the pods' network to another implementation, which puts
	// a CNI configuration into cni.SystemConf.
	NoPodNetwork bool
	// Runtime is the CRI socket of a running runtime; empty starts a private
	// containerd.
	Runtime string
	// Registry is the address of a registry that images can be pushed to; empty
	// means none.
	Registry string
	// CgroupRoot is the cgroup that the pods' cgroups are below; empty means the
	// root.
	CgroupRoot string
	// RootDir is the folder of the node's pods and of what plug-ins share with it; empty
	// is a kubelet's for the default data folder if there is no kubelet, else the node's
	// own.
	RootDir string
}

// Machine holds the folders, the runtime and the network of one node on this
// machine.
type Machine struct {
	o          Options
	dir        string
	root       string
	containerd containerd.Options
	cni        cni.Options
	pods       cni.Default
	hostPorts  hostport.Mapper
	// supervision waits for the supervision of the runtime, which must not start
	// again what Clean stops.
	supervision sync.WaitGroup
}

// defaultDataDir is the data folder whose run folder has a name of its own.
const defaultDataDir = "/var/lib/keelson"

// New describes a node's place below dataDir; it changes nothing.
func New(dataDir string, o Options) *Machine {
	dir := filepath.Join(dataDir, "node")
	kubelet := dir
	if dataDir == defaultDataDir {
		kubelet = kubeletRoot
	}
	m := &Machine{o: o, dir: dir, root: chooseRoot(dir, o.RootDir, kubelet), cni: cni.Options{Dir: filepath.Join(dir, "cni"), None: o.NoPodNetwork}}
	m.containerd = containerd.Options{
		Dir: filepath.Join(dir, "containerd"), State: filepath.Join("/run", "keelson-"+runName(dataDir)),
		CNIConf: filepath.Join(m.cni.Dir, "net.d"), CNIBin: cni.Bins, Hosts: filepath.Join(dir, "hosts"), PauseImage: images.Pause,
	}
	return m
}

// runName makes a short name of the data folder: a socket's path is at most
// 107 bytes long.
func runName(dataDir string) string {
	if dataDir == defaultDataDir {
		return "default"
	}
	h := fnv.New32a()
	h.Write([]byte(dataDir))
	return fmt.Sprintf("%08x", h.Sum32())
}

// Dir returns the folder of the node's state.
func (m *Machine) Dir() string { return m.dir }

// PodCIDRs returns the ranges of the pods' addresses that are not the Node's; none if they
// are the Node's.
func (m *Machine) PodCIDRs() []netip.Prefix { return m.o.PodCIDRs }

// OwnNetwork reports whether the pods' network is the built-in one, which Connect sets
// up.
func (m *Machine) OwnNetwork() bool { return m.o.Runtime == "" && cni.Own(m.cni) }

// PodLink is the link that the pods of the built-in network are on.
const PodLink = cni.Bridge

// Connect configures the built-in network of the pods by the plan.
func (m *Machine) Connect(p podnet.Plan) error {
	return m.pods.Apply(m.cni, cni.Network{Own: p.Own, All: p.All, MTU: p.MTU})
}

// CgroupRoot returns the cgroup that the pods' cgroups are below; empty is the root.
func (m *Machine) CgroupRoot() string { return m.o.CgroupRoot }

// Endpoint returns the CRI socket of the node's runtime.
func (m *Machine) Endpoint() string {
	if m.o.Runtime != "" {
		return m.o.Runtime
	}
	return containerd.Existing(m.containerd).Endpoint()
}

// Answers returns an error if the runtime does not answer CRI now.
func (m *Machine) Answers(ctx context.Context) error {
	c, err := cri.Connect(ctx, m.Endpoint())
	if err != nil {
		return err
	}
	return c.Close()
}

// HostPorts maps host ports to pods; nil where the network's plug-ins do.
func (m *Machine) HostPorts() hostport.Mapper { return m.hostPorts }

// Start makes sure that there are a network and a runtime, unless an existing
// runtime is configured. The registry of the built-in images and the supervision
// of the runtime end with ctx; the runtime and its containers do not. step runs
// each step, with its name.
func (m *Machine) Start(ctx context.Context, step func(name string, f func() error) error) error {
	if err := m.claimRoot(); err != nil {
		return err
	}
	if m.o.Runtime != "" {
		return nil
	}
	if err := step("network", func() error {
		dir, own, err := cni.Conf(m.cni)
		if m.containerd.CNIConf = dir; err != nil {
			return err
		}
		if !own {
			return podnet.Remove(PodLink) // the remains of an earlier network
		}
		if containerd.Existing(m.containerd).Idle() {
			if err := cni.FreeAddresses(m.cni); err != nil {
				return err
			}
		}
		m.hostPorts = &m.pods
		last := cni.Last(m.cni)
		if given := m.o.PodCIDRs; len(given) > 0 && !slices.Equal(given, last.Own) {
			last = cni.Network{Own: given, All: given}
		}
		if len(last.Own) == 0 {
			return nil // the cluster assigns the Node's ranges
		}
		// Running pods keep their network before the API server is asked.
		return m.pods.Apply(m.cni, last)
	}); err != nil {
		return err
	}
	if err := step("images", func() error {
		r, err := images.Serve(m.containerd.Hosts)
		if err == nil {
			context.AfterFunc(ctx, func() { r.Close() })
		}
		return err
	}); err != nil {
		return err
	}
	if m.o.Registry != "" {
		if err := step("registry", func() error { return m.serveRegistry(ctx) }); err != nil {
			return err
		}
	}
	return step("containerd", func() error {
		r, err := containerd.Start(ctx, m.containerd)
		if err == nil {
			m.supervision.Go(func() { r.Supervise(ctx) })
		}
		return err
	})
}

// Clean stops the node's pods, each within its grace period, and its runtime,
// and removes its network and its mounts. It also works if the runtime has died,
// or was never started. The context that Start was given must have ended.
func (m *Machine) Clean(ctx context.Context, o containerd.StopOptions) error {
	m.supervision.Wait()
	errs := []error{
		containerd.Existing(m.containerd).Stop(ctx, o),
		cni.Cleanup(m.cni),
		podnet.Remove(PodLink),
		proxy.Remove(),
		policy.Remove(),
		dns.RemoveLink(),
		unmountBelow(m.dir, m.root, m.containerd.State),
		os.RemoveAll(m.containerd.State),
	}
	_ = cgroup.RemoveAll("cgroupfs", m.o.CgroupRoot) // a cgroup that is still in use is removed next time
	return errors.Join(errs...)
}

// unmountBelow unmounts everything below the folders, the last mount first.
func unmountBelow(dirs ...string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	points := mountsBelow(string(b), dirs)
	slices.Reverse(points)
	var errs []error
	for _, p := range points {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// mountsBelow returns the mount points below the folders in the text of a
// mountinfo file, whose fifth field they are (proc(5)).
func mountsBelow(mountinfo string, dirs []string) (points []string) {
	for l := range strings.Lines(mountinfo) {
		f := strings.Fields(l)
		if len(f) < 5 {
			continue
		}
		p := unescape.Replace(f[4])
		if slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(p, d+"/") }) {
			points = append(points, p)
		}
	}
	return points
}

// unescape decodes the octal escapes of proc(5).
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
