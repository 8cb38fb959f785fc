package cni

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/vishvananda/netlink"
)

// Bins are the folders in which plug-ins are looked for.
var Bins = []string{"/opt/cni/bin", "/usr/lib/cni"}

// SystemConf is where a cluster's own network add-on puts its configuration.
const SystemConf = "/etc/cni/net.d"

const (
	bridge = "keelson0"
	table  = "keelson"
)

// Options of the default network.
type Options struct {
	// Dir is where the configuration and the addresses in use are kept.
	Dir string
	// PodCIDR is the range of the node's pods.
	PodCIDR netip.Prefix
}

// Conf makes sure that there is a network, and gives the folder of its
// configuration: the system's if that has one, else one of our own.
func Conf(o Options) (dir string, own bool, err error) {
	files, _ := filepath.Glob(filepath.Join(SystemConf, "*.conf*"))
	if len(files) > 0 {
		return SystemConf, false, nil
	}
	for _, p := range []string{"bridge", "host-local", "loopback"} {
		if find(p) == "" {
			return "", false, fmt.Errorf("the CNI plug-in %s is in none of %s: install it (apt-get install containernetworking-plugins)", p, strings.Join(Bins, ", "))
		}
	}
	dir = filepath.Join(o.Dir, "net.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", false, err
	}
	conf := fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "keelson",
  "plugins": [
    {
      "type": "bridge", "bridge": %q, "isGateway": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
    }
  ]
}
`, bridge, filepath.Join(o.Dir, "addresses"), o.PodCIDR)
	if err := renameio.WriteFile(filepath.Join(dir, "10-keelson.conflist"), []byte(conf), 0o644); err != nil {
		return "", false, err
	}
	return dir, true, masquerade(o.PodCIDR)
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

// masquerade lets pods out under the machine's address, and host ports in. What
// a pod or the machine itself sends to a host port comes back the same way
// only under the machine's address.
func masquerade(cidr netip.Prefix) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("pods need forwarding of packets: %w", err)
	}
	// What came over a Service or a host port to a pod of the same bridge must go
	// back the way it came. The kernel sees to that where it shows bridged packets
	// to nftables. Where it does not, the pod sees the machine's address in place
	// of the sender's.
	same := `ip daddr %[2]s ip saddr 127.0.0.0/8 ct status dnat masquerade
		ct status dnat ip saddr . ip daddr @hairpin masquerade`
	if !bridgedPacketsAreSeen() {
		same = `ip daddr %[2]s ip saddr { 127.0.0.0/8, %[2]s } ct status dnat masquerade`
	}
	return nft(fmt.Sprintf(`table ip %[1]s {}
delete table ip %[1]s
table ip %[1]s {
	map hostports { type inet_proto . inet_service : ipv4_addr . inet_service; }
	set hairpin { type ipv4_addr . ipv4_addr; }
	map hostipports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	chain hostports {
		dnat ip to ip daddr . meta l4proto . th dport map @hostipports
		dnat ip to meta l4proto . th dport map @hostports
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
		ip saddr %[2]s ip daddr != %[2]s ip daddr != 224.0.0.0/4 masquerade
		`+same+`
	}
}
`, table, cidr))
}

// bridgedPacketsAreSeen has the kernel show nftables what goes from one port of
// a bridge to another, and reports whether it does: its module br_netfilter may
// be missing.
func bridgedPacketsAreSeen() bool {
	const dir = "/proc/sys/net/bridge"
	if _, err := os.Stat(dir); err != nil {
		if path, err := exec.LookPath("modprobe"); err == nil {
			_ = exec.Command(path, "br_netfilter").Run() // the files below say whether it helped
		}
	}
	// IPv6 may be switched off.
	_ = os.WriteFile(filepath.Join(dir, "bridge-nf-call-ip6tables"), []byte("1"), 0o644)
	return os.WriteFile(filepath.Join(dir, "bridge-nf-call-iptables"), []byte("1"), 0o644) == nil
}

// Cleanup takes the default network down.
func Cleanup(o Options) error {
	var errs []error
	if l, err := netlink.LinkByName(bridge); err == nil {
		errs = append(errs, netlink.LinkDel(l))
	}
	if _, err := exec.LookPath("nft"); err == nil {
		errs = append(errs, nft(fmt.Sprintf("table ip %[1]s {}\ndelete table ip %[1]s\n", table)))
	}
	errs = append(errs, os.RemoveAll(filepath.Join(o.Dir, "addresses")))
	return errors.Join(errs...)
}
