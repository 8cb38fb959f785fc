package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	nftables "keelson.dev/keelson/internal/network/nft"
	"keelson.dev/keelson/internal/node/hostport"
)

// Bins are the folders that are searched for plug-ins.
var Bins = []string{"/opt/cni/bin", "/usr/lib/cni"}

// SystemConf is where a cluster's own network add-on puts its configuration.
const SystemConf = "/etc/cni/net.d"

const (
	bridge = "keelson0"
	table  = "keelson"
)

// Bridge is the link of the default network that the machine's pods are on.
const Bridge = bridge

// Options of the default network.
type Options struct {
	// Dir is where the configuration and the addresses in use are kept.
	Dir string
	// None leaves the network to another implementation, which puts its
	// configuration into SystemConf.
	None bool
}

// Network describes the network of the machine's pods.
type Network struct {
	// Own are the ranges of their addresses, All are those of the whole cluster's
	// pods, which reach one another without translation.
	Own, All []netip.Prefix
	// MTU is the greatest size of their packets.
	MTU int
}

// Own reports whether the network is the default one: the system has none.
func Own(o Options) bool {
	files, _ := filepath.Glob(filepath.Join(SystemConf, "*.conf*"))
	return len(files) == 0 && !o.None
}

// Conf returns the folder of the network's configuration: the system's if that has
// one, else one of our own, which Apply fills.
func Conf(o Options) (dir string, own bool, err error) {
	if !Own(o) {
		return SystemConf, false, nil
	}
	for _, p := range []string{"bridge", "host-local", "loopback"} {
		if find(p) == "" {
			return "", false, fmt.Errorf("the CNI plug-in %s is in none of %s: install it (apt-get install containernetworking-plugins)", p, strings.Join(Bins, ", "))
		}
	}
	dir = filepath.Join(o.Dir, "net.d")
	return dir, true, os.MkdirAll(dir, 0o755)
}

// FreeAddresses frees all addresses of pods. None may be running. The plug-in host-local
// keeps them in files, which a loss of power tears: the end of a pod does not free those.
func FreeAddresses(o Options) error { return os.RemoveAll(o.addresses()) }

// addresses returns the folder of the addresses in use.
func (o *Options) addresses() string { return filepath.Join(o.Dir, "addresses") }

func (o *Options) file() string { return filepath.Join(o.Dir, "net.d", "10-keelson.conflist") }

// plugin is the bridge plug-in's part of the configuration.
type plugin struct {
	Type      string `json:"type"`
	Bridge    string `json:"bridge"`
	IsGateway bool   `json:"isGateway"`
	Hairpin   bool   `json:"hairpinMode"`
	MTU       int    `json:"mtu,omitempty"`
	IPAM      ipam   `json:"ipam"`
}

type ipam struct {
	Type    string     `json:"type"`
	DataDir string     `json:"dataDir"`
	Ranges  [][]subnet `json:"ranges"`
	Routes  []route    `json:"routes"`
}

type subnet struct {
	Subnet netip.Prefix `json:"subnet"`
}

type route struct {
	To netip.Prefix `json:"dst"`
}

type conflist struct {
	Version string   `json:"cniVersion"`
	Name    string   `json:"name"`
	Plugins []plugin `json:"plugins"`
}

// Last returns the network that Apply made last, in this process or an earlier
// one; the zero value if there was none.
func Last(o Options) (n Network) {
	if b, err := os.ReadFile(o.state()); err != nil || json.Unmarshal(b, &n) != nil {
		return Network{}
	}
	return n
}

// state returns the file of Last.
func (o *Options) state() string { return filepath.Join(o.Dir, "network.json") }

// configuration returns the content of the file.
func (o *Options) configuration(n Network) ([]byte, error) {
	p := plugin{Type: "bridge", Bridge: bridge, IsGateway: true, Hairpin: true, MTU: n.MTU, IPAM: ipam{Type: "host-local", DataDir: o.addresses()}}
	for _, r := range n.Own {
		p.IPAM.Ranges = append(p.IPAM.Ranges, []subnet{{r.Masked()}})
		any := netip.IPv4Unspecified()
		if r.Addr().Is6() {
			any = netip.IPv6Unspecified()
		}
		p.IPAM.Routes = append(p.IPAM.Routes, route{netip.PrefixFrom(any, 0)})
	}
	return json.MarshalIndent(conflist{"0.4.0", "keelson", []plugin{p}}, "", "  ")
}

// Default is the default network as it was written last.
type Default struct {
	mu   sync.Mutex
	last Network
	done bool
	// generation is the generation of nftables at which the tables were found
	// complete.
	generation uint32
	// ports are the host ports of each pod.
	ports map[types.UID][]hostport.Port
}

// Apply configures n as the network of the machine's pods. Existing pods keep their
// addresses. The configuration is written once per process, and again when n has
// changed or the tables were removed.
func (d *Default) Apply(o Options, n Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	whole := d.done && d.whole()
	if whole && reflect.DeepEqual(n, d.last) {
		return nil
	}
	if err := forward(n.Own); err != nil {
		return err
	}
	fresh := !whole || !slices.Equal(n.Own, d.last.Own)
	text := ""
	for _, four := range []bool{true, false} {
		text += masquerade(four, n, fresh)
	}
	d.last, d.done = n, true
	if fresh {
		text += d.script(d.ports)
	}
	if err := nft(text); err != nil {
		d.done = false
		return err
	}
	if err := readdress(n); err != nil {
		return err
	}
	b, err := o.configuration(n)
	if err != nil {
		return err
	}
	state, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return errors.Join(write(o.state(), state), write(o.file(), b))
}

// write writes a file unless it has that content: the runtime reads the configuration
// again when it is written. The temporary file is in the same folder, because
// containerd ignores files that are created, and notices those that are renamed.
func write(file string, content []byte) error {
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, content) {
		return nil
	}
	return renameio.WriteFile(file, content, 0o644, renameio.WithTempDir(filepath.Dir(file)))
}

// readdress removes the bridge's addresses of other ranges, beside which the plug-in
// would refuse to add one, and sets its MTU.
func readdress(n Network) error {
	l, err := netlink.LinkByName(bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", bridge, err)
	}
	if n.MTU > 0 && l.Attrs().MTU != n.MTU {
		if err := netlink.LinkSetMTU(l, n.MTU); err != nil {
			return fmt.Errorf("link %s: an MTU of %d: %w", bridge, n.MTU, err)
		}
	}
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of link %s: %w", bridge, err)
	}
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP)
		ip = ip.Unmap()
		if ip.IsLinkLocalUnicast() || slices.ContainsFunc(n.Own, func(r netip.Prefix) bool { return r.Contains(ip) }) {
			continue
		}
		if err := netlink.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("address %s of link %s: %w", ip, bridge, err)
		}
	}
	return nil
}

func find(plugin string) string {
	for _, d := range Bins {
		p := filepath.Join(d, plugin)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}

func nft(script string) error {
	path, err := exec.LookPath("nft")
	if err != nil {
		return errors.New("nft is not in PATH: install it (apt-get install nftables)")
	}
	cmd := exec.Command(path, "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// forward makes the machine forward packets.
func forward(ranges []netip.Prefix) error {
	const dir = "/proc/sys/net/ipv6/conf"
	for _, r := range ranges {
		file := "/proc/sys/net/ipv4/ip_forward"
		if r.Addr().Is6() {
			file = dir + "/all/forwarding"
			// A machine that forwards ignores router advertisements, unless accept_ra is 2:
			// it would lose its default route.
			links, _ := filepath.Glob(dir + "/*/accept_ra")
			for _, l := range links {
				if b, err := os.ReadFile(l); err == nil && strings.TrimSpace(string(b)) == "1" {
					_ = os.WriteFile(l, []byte("2"), 0o644) // the link may have gone
				}
			}
		}
		if err := os.WriteFile(file, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("pods need forwarding of packets: %w", err)
		}
	}
	return nil
}

// whole reports whether the tables are still there.
func (d *Default) whole() bool {
	g, err := nftables.Generation()
	if err == nil && g == d.generation {
		return true
	}
	for _, r := range d.last.Own {
		f := nftables.IPv4
		if r.Addr().Is6() {
			f = nftables.IPv6
		}
		if n, err := nftables.Rules(f, table, "postrouting"); err != nil || n == 0 {
			return false
		}
	}
	d.generation = g
	return true
}

// masquerade returns the script of the table of a family: it translates pods' packets
// to outside to the machine's address, and host ports to pods. Packets of a pod or of
// the machine itself to a host port also get the machine's address, so that the
// replies come back the same way. fresh replaces the table; else only the ranges of
// all pods are replaced.
func masquerade(four bool, n Network, fresh bool) string {
	of := func(ranges []netip.Prefix) (out []string) {
		for _, r := range ranges {
			if r.Addr().Is4() == four {
				out = append(out, r.Masked().String())
			}
		}
		return out
	}
	own, all := of(n.Own), of(n.All)
	family, address, multicast, loopback := "ip", "ipv4_addr", "224.0.0.0/4", "127.0.0.0/8"
	if !four {
		family, address, multicast, loopback = "ip6", "ipv6_addr", "ff00::/8", "::1"
	}
	if len(own) == 0 {
		if !fresh {
			return ""
		}
		return fmt.Sprintf("table %[1]s %[2]s {}\ndelete table %[1]s %[2]s\n", family, table)
	}
	elements := "elements = { " + strings.Join(all, ", ") + " };"
	if !fresh {
		return fmt.Sprintf("flush set %[1]s %[2]s pods\nadd element %[1]s %[2]s pods { %[3]s }\n", family, table, strings.Join(all, ", "))
	}
	mine := "{ " + strings.Join(own, ", ") + " }"
	// Replies of a pod to another of the same bridge, which came through a Service
	// or a host port, must go back the same way. They do where the kernel passes
	// bridged packets to nftables. Elsewhere the pod sees the machine's address in
	// place of the sender's.
	same := `%[1]s daddr %[3]s %[1]s saddr %[6]s ct status dnat masquerade
		ct status dnat %[1]s saddr . %[1]s daddr @hairpin masquerade`
	if !bridgedPacketsAreSeen() {
		same = `%[1]s daddr %[3]s %[1]s saddr { %[6]s, ` + strings.Join(own, ", ") + ` } ct status dnat masquerade`
	}
	return fmt.Sprintf(`table %[1]s %[2]s {}
delete table %[1]s %[2]s
table %[1]s %[2]s {
	set pods { type %[7]s; flags interval; auto-merge; %[4]s }
	map hostports { type inet_proto . inet_service : %[7]s . inet_service; }
	set hairpin { type %[7]s . %[7]s; }
	map hostipports { type %[7]s . inet_proto . inet_service : %[7]s . inet_service; }
	chain hostports {
		dnat %[1]s to %[1]s daddr . meta l4proto . th dport map @hostipports
		dnat %[1]s to meta l4proto . th dport map @hostports
	}
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		meta l4proto { tcp, udp, sctp } fib daddr type local jump hostports
	}
	chain output {
		type nat hook output priority -100; policy accept;
		meta l4proto { tcp, udp, sctp } fib daddr type local jump hostports
	}
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		%[1]s saddr %[3]s %[1]s daddr != @pods %[1]s daddr != %[5]s masquerade
		`+same+`
	}
}
`, family, table, mine, elements, multicast, loopback, address)
}

// bridgedPacketsAreSeen makes the kernel pass to nftables packets from one port
// of a bridge to another, and reports whether it does: its module br_netfilter
// may be missing.
func bridgedPacketsAreSeen() bool {
	const dir = "/proc/sys/net/bridge"
	if _, err := os.Stat(dir); err != nil {
		if path, err := exec.LookPath("modprobe"); err == nil {
			_ = exec.Command(path, "br_netfilter").Run() // the files below tell whether it succeeded
		}
	}
	// IPv6 may be switched off.
	_ = os.WriteFile(filepath.Join(dir, "bridge-nf-call-ip6tables"), []byte("1"), 0o644)
	return os.WriteFile(filepath.Join(dir, "bridge-nf-call-iptables"), []byte("1"), 0o644) == nil
}

// Cleanup removes the default network.
func Cleanup(o Options) error {
	var errs []error
	if l, err := netlink.LinkByName(bridge); err == nil {
		errs = append(errs, netlink.LinkDel(l))
	}
	if _, err := exec.LookPath("nft"); err == nil {
		errs = append(errs, nft(fmt.Sprintf("table ip %[1]s {}\ndelete table ip %[1]s\ntable ip6 %[1]s {}\ndelete table ip6 %[1]s\n", table)))
	}
	errs = append(errs, FreeAddresses(o), os.RemoveAll(o.state()), os.RemoveAll(o.file()))
	return errors.Join(errs...)
}
