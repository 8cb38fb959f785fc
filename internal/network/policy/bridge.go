package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
)

// Bridged returns the bridge that a pod is reached over, "" if there is none, and makes
// sure that packets to the pod pass nftables also when they come from a pod of the same
// bridge: it makes the kernel pass bridged packets to nftables. It returns an error if
// the kernel's module br_netfilter is missing.
func Bridged(pod netip.Addr) (bridge string, err error) {
	routes, err := netlink.RouteGet(net.IP(pod.AsSlice()))
	if err != nil || len(routes) == 0 {
		return "", nil //nolint:nilerr // the pod has gone, or cannot be reached
	}
	l, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil || l.Type() != "bridge" {
		return "", nil //nolint:nilerr // the same
	}
	file := "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if pod.Is6() {
		file = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if path, missing := exec.LookPath("modprobe"); missing == nil {
			_ = exec.Command(path, "br_netfilter").Run() // the existence of the file tells whether it succeeded
		}
		b, err = os.ReadFile(file)
	}
	if err == nil && strings.TrimSpace(string(b)) != "1" {
		err = os.WriteFile(file, []byte("1"), 0o644)
	}
	if err != nil {
		return l.Attrs().Name, fmt.Errorf("network policies do not hold between pods of the bridge %s of this node, whose packets the kernel does not show: load its module (modprobe br_netfilter): %w", l.Attrs().Name, err)
	}
	return l.Attrs().Name, nil
}
