package harness

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNetwork, in the environment, marks a process that OwnNetwork has put into a
// namespace.
const inNetwork = "KEELSON_TEST_NETWORK"

// uplink is the bridge that simulates the machine's network in the namespace.
const uplink, address, router = "uplink", "172.29.213.2/24", "172.29.213.1"

// OwnNetwork puts the whole test process into a network namespace of its own, so
// that nodes of several tests, and a cluster of the machine, run side by side. A
// TestMain calls it before m.Run. The namespace has a loopback interface and an
// uplink with an address and a default route, which leads nowhere. The namespace
// ends with the last process in it. Without root, OwnNetwork does nothing.
//
// A namespace belongs to a thread. So that all threads are in it, the process
// replaces itself by the same program in the new namespace: the process ID, the
// arguments and the open files stay.
func OwnNetwork() {
	if InOwnNetwork() || os.Geteuid() != 0 {
		return
	}
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, "a network namespace for the test:", err)
		os.Exit(1)
	}
}

// InOwnNetwork reports whether the process is in a namespace that OwnNetwork made.
func InOwnNetwork() bool { return os.Getenv(inNetwork) != "" }

// enter returns only if it fails.
func enter() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := connect(); err != nil {
		return err
	}
	return unix.Exec(self, os.Args, append(os.Environ(), inNetwork+"=1"))
}

// connect adds the interfaces of the thread's namespace.
func connect() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: uplink}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(bridge, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Index, Gw: net.ParseIP(router)})
}
