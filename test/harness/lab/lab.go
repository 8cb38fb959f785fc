// Package lab simulates machines by network namespaces, for tests of several nodes:
// each has an interface eth0 on a segment, which is a bridge in the test's own
// namespace (harness.OwnNetwork), and a default route to the test's namespace, which
// routes between the segments. All of it ends with the test.
package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/test/harness"
)

// Segment is a network of machines that reach one another directly.
type Segment struct {
	t       testing.TB
	name    string
	routers []netip.Prefix
	n       int
}

// NewSegment makes a segment whose ranges are those of routers, the addresses that the
// test's process has on it: one, or one of each family.
func NewSegment(t testing.TB, name string, routers ...netip.Prefix) *Segment {
	t.Helper()
	if !harness.InOwnNetwork() {
		t.Fatal("this test makes machines: run it as root, and have its package's TestMain call harness.OwnNetwork")
	}
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	check(t, netlink.LinkAdd(b))
	t.Cleanup(func() { check(t, netlink.LinkDel(b)) })
	for _, r := range routers {
		check(t, address(b, r))
	}
	check(t, netlink.LinkSetUp(b))
	for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		check(t, os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0o644))
	}
	return &Segment{t: t, name: name, routers: routers}
}

// address gives a link an address, which is used at once: nobody else has it.
func address(l netlink.Link, p netip.Prefix) error {
	a, err := netlink.ParseAddr(p.String())
	if err != nil {
		return err
	}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return netlink.AddrAdd(l, a)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Machine is a network namespace on a segment.
type Machine struct {
	// Name is the machine's name. Addresses are those of its interface eth0, one for
	// each of the segment's ranges, and Address is the first.
	Name      string
	Address   netip.Addr
	Addresses []netip.Addr
	// Dir is a folder for the processes on the machine.
	Dir  string
	file string // the path of the namespace
	port string // the port of the segment's bridge
	s    *Segment
	t    testing.TB
}

// NewMachine makes the next machine of a segment.
func (s *Segment) NewMachine(name string) *Machine {
	t := s.t
	t.Helper()
	s.n++
	dir, err := os.MkdirTemp("", "keelson-"+name+"-")
	check(t, err)
	m := &Machine{Name: name, Dir: dir, file: filepath.Join(dir, "netns"), port: s.name + "-" + strconv.Itoa(s.n), s: s, t: t}
	for _, r := range s.routers {
		a := r.Addr()
		for range s.n {
			a = a.Next()
		}
		m.Addresses = append(m.Addresses, a)
	}
	m.Address = m.Addresses[0]
	check(t, os.WriteFile(m.file, nil, 0o600))
	check(t, inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", m.file, "", unix.MS_BIND, "")
	}))
	t.Cleanup(func() {
		check(t, unix.Unmount(m.file, unix.MNT_DETACH))
		check(t, os.RemoveAll(dir))
	})
	ns, err := os.Open(m.file)
	check(t, err)
	defer ns.Close()
	bridge, err := netlink.LinkByName(s.name)
	check(t, err)
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: m.port, MasterIndex: bridge.Attrs().Index, Flags: net.FlagUp},
		PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}))
	t.Cleanup(func() {
		if l, err := netlink.LinkByName(m.port); err == nil { // the namespace's end deletes it, too
			_ = netlink.LinkDel(l)
		}
	})
	check(t, m.In(func() error {
		for _, name := range []string{"lo", "eth0"} {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
			if name == "lo" {
				continue
			}
			if err := m.address(l); err != nil {
				return err
			}
		}
		return nil
	}))
	return m
}

// address gives the machine's link its addresses and the default routes.
func (m *Machine) address(l netlink.Link) error {
	for i, r := range m.s.routers {
		if err := address(l, netip.PrefixFrom(m.Addresses[i], r.Bits())); err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: r.Addr().AsSlice()}); err != nil {
			return err
		}
	}
	return nil
}

// Readdress gives the machine other addresses of the segment's ranges in place of those
// that it has, as a DHCP server may.
func (m *Machine) Readdress(addresses ...netip.Addr) {
	m.t.Helper()
	check(m.t, m.In(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for i, r := range m.s.routers {
			old := ipNet(netip.PrefixFrom(m.Addresses[i], r.Bits()))
			if err := netlink.AddrDel(l, &netlink.Addr{IPNet: old}); err != nil {
				return err
			}
			// Of IPv6 the route stays.
			_ = netlink.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: r.Addr().AsSlice()})
		}
		m.Addresses, m.Address = addresses, addresses[0]
		return m.address(l)
	}))
}

// Renumber gives the machine other addresses of the segment's ranges, as its default routes'
// sources, beside those that it has until the function that it returns is called.
func (m *Machine) Renumber(addresses ...netip.Addr) (drop func()) {
	m.t.Helper()
	was := m.Addresses
	link := func(f func(l netlink.Link, i int, r netip.Prefix) error) {
		m.t.Helper()
		check(m.t, m.In(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			for i, r := range m.s.routers {
				if err := f(l, i, r); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	// Without this the end of the first address of a range is that of all.
	check(m.t, m.In(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", []byte("1"), 0o644)
	}))
	link(func(l netlink.Link, i int, r netip.Prefix) error {
		if err := address(l, netip.PrefixFrom(addresses[i], r.Bits())); err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: r.Addr().AsSlice(), Src: addresses[i].AsSlice()})
	})
	m.Addresses, m.Address = addresses, addresses[0]
	return func() {
		m.t.Helper()
		link(func(l netlink.Link, i int, r netip.Prefix) error {
			return netlink.AddrDel(l, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(was[i], r.Bits()))})
		})
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// inThread calls f, which may leave the thread's namespace, and then returns to that
// namespace. The thread must not end: processes that it has started are killed then
// (harness.Process has Pdeathsig).
func inThread(f func() error) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	failed := f()
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(err) // the thread is in the wrong namespace, so that nothing else may run in it
	}
	runtime.UnlockOSThread()
	return failed
}

func enter(file string) error {
	ns, err := os.Open(file)
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

// In calls f on the machine. Goroutines that f starts are not on it; sockets that
// f opens stay there.
func (m *Machine) In(f func() error) error {
	return inThread(func() error {
		if err := enter(m.file); err != nil {
			return err
		}
		return f()
	})
}

// inMachine, in the environment, is the file of the namespace of Self's machine.
const inMachine = "KEELSON_TEST_MACHINE"

// Self returns the test's own program on the machine, with these variables in its
// environment; its TestMain calls Enter first.
func (m *Machine) Self(env ...string) *exec.Cmd {
	return harness.Self(append(env, inMachine+"="+m.file)...)
}

// Enter puts a process that Self has started on its machine. Like harness.OwnNetwork, it
// replaces the process by itself there.
func Enter() {
	file := os.Getenv(inMachine)
	if file == "" {
		return
	}
	err := func() error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		runtime.LockOSThread()
		if err := enter(file); err != nil {
			return err
		}
		if err := os.Unsetenv(inMachine); err != nil {
			return err
		}
		return unix.Exec(self, os.Args, os.Environ())
	}()
	fmt.Println("error: entering the machine:", err)
	os.Exit(1)
}

// Cut disconnects the machine from its segment, or connects it again.
func (m *Machine) Cut(out bool) {
	m.t.Helper()
	l, err := netlink.LinkByName(m.port)
	check(m.t, err)
	if out {
		check(m.t, netlink.LinkSetDown(l))
		return
	}
	check(m.t, netlink.LinkSetUp(l))
}

// Left returns the parts of the machine's network configuration that the lab has
// not made.
func (m *Machine) Left() (left []string) {
	m.t.Helper()
	check(m.t, m.In(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if n := l.Attrs().Name; n != "lo" && n != "eth0" {
				left = append(left, "link "+n)
			}
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().Name == "eth0" && (r.Dst == nil || r.Dst.IP.IsUnspecified() || r.Protocol == unix.RTPROT_KERNEL) {
				continue
			}
			left = append(left, "route "+r.String())
		}
		neighbours, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, n := range neighbours {
			if n.State&netlink.NUD_PERMANENT != 0 && n.IP.IsGlobalUnicast() {
				left = append(left, "neighbour "+n.String())
			}
		}
		rules, err := netlink.RuleList(netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.Priority != -1 && r.Priority != 0 && r.Priority != 32766 && r.Priority != 32767 {
				left = append(left, "rule "+r.String())
			}
		}
		out, err := exec.Command("nft", "list", "tables").Output()
		if err != nil {
			return err
		}
		if len(out) > 0 {
			left = append(left, "tables "+string(out))
		}
		return nil
	}))
	return left
}
