package podnet

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/internal/network/nft"
)

// accepted is the comment of the rules that let pods' packets through a
// firewall.
const accepted = "keelson pods"

// families holds the families of nftables that firewalls use, with their names in
// the nft program.
var families = []struct {
	family nft.Family
	name   string
}{{nft.IPv4, "ip"}, {nft.IPv6, "ip6"}, {nft.Inet, "inet"}}

// drops reports whether a chain belongs to a firewall that drops forwarded packets, or
// those that come to the machine: by its policy, as those of Docker and ufw, or by its
// last rule, as that of firewalld. It drops packets even if another chain accepts them, so
// that it has to
// accept the pods' packets itself.
func drops(b nft.Base) bool {
	return (b.Hook == unix.NF_INET_FORWARD || b.Hook == unix.NF_INET_LOCAL_IN) && (b.Drops || b.Table == "firewalld")
}

// passing are the rules for a hook, as the nft program and iptables write them: all of
// the pods' packets are forwarded; to the machine itself come those to a Service with an
// endpoint there, as the API server is, and questions to the name server.
func passing(hook uint32, pods string) (nft []string, iptables [][]string) {
	if hook == unix.NF_INET_FORWARD {
		return []string{fmt.Sprintf("oifname %q", pods), fmt.Sprintf("iifname %q", pods)}, [][]string{{"-o", pods}, {"-i", pods}}
	}
	from := fmt.Sprintf("iifname %q ", pods)
	return []string{from + "ct status dnat", from + "udp dport 53", from + "tcp dport 53"},
		[][]string{{"-i", pods, "-m", "conntrack", "--ctstate", "DNAT"}, {"-i", pods, "-p", "udp", "--dport", "53"}, {"-i", pods, "-p", "tcp", "--dport", "53"}}
}

// hooks are those at which firewalls drop, with the names of their chains in iptables.
var hooks = []struct {
	number uint32
	chain  string
}{{unix.NF_INET_FORWARD, "FORWARD"}, {unix.NF_INET_LOCAL_IN, "INPUT"}}

// Forward implements Kernel.
func (k *kernel) Forward() error {
	g, err := nft.Generation()
	if err != nil || g == k.generation {
		return errors.Join(err, k.dropped)
	}
	k.dropped = errors.Join(k.accept(), k.acceptLegacy())
	if g, err = nft.Generation(); err == nil && k.dropped == nil {
		k.generation = g
	}
	return k.dropped
}

// accept inserts accepting rules at the start of firewalls' chains in nftables.
func (k *kernel) accept() error {
	var script strings.Builder
	for _, f := range families {
		bases, err := nft.Bases(f.family)
		if err != nil {
			return err
		}
		for _, b := range bases {
			if !drops(b) {
				continue
			}
			rules, err := nft.Commented(f.family, b.Table, b.Chain)
			if err != nil {
				return err
			}
			wanted, _ := passing(b.Hook, k.pods)
			if len(rules) >= len(wanted) && !slices.ContainsFunc(rules[:len(wanted)], func(r nft.Rule) bool { return r.Comment != accepted }) {
				continue
			}
			for _, r := range rules {
				if r.Comment == accepted {
					fmt.Fprintf(&script, "delete rule %s %s %s handle %d\n", f.name, b.Table, b.Chain, r.Handle)
				}
			}
			for _, match := range wanted {
				fmt.Fprintf(&script, "insert rule %s %s %s %s counter accept comment %q\n", f.name, b.Table, b.Chain, match, accepted)
			}
		}
	}
	if script.Len() == 0 {
		return nil
	}
	if err := run(script.String(), "nft", "-f", "-"); err != nil {
		return fmt.Errorf("a firewall of this machine drops the pods' packets: make it accept packets that are forwarded from and to the link %s, and those from there to the API server and the name server: %w", k.pods, err)
	}
	return nil
}

// legacy are the programs that write the older tables of iptables, which nftables does
// not show, and the files that list these tables.
var legacy = []struct{ program, tables string }{
	{"iptables-legacy", "/proc/net/ip_tables_names"}, {"ip6tables-legacy", "/proc/net/ip6_tables_names"}}

// acceptLegacy does what accept does, for firewalls in the older tables.
func (k *kernel) acceptLegacy() error {
	var errs []error
	for _, l := range legacy {
		if !hasFilter(l.tables) {
			continue
		}
		for _, h := range hooks {
			out, err := exec.Command(l.program, "-w", "-S", h.chain).Output()
			if err != nil {
				errs = append(errs, fmt.Errorf("the machine has a firewall in the older tables of iptables, and its rules cannot be read: %w: install %s, or make the firewall accept packets from and to the link %s", err, l.program, k.pods))
				break
			}
			if !bytes.Contains(out, []byte("-P "+h.chain+" DROP")) {
				continue
			}
			_, wanted := passing(h.number, k.pods)
			for _, match := range wanted {
				rule := legacyRule(match)
				if exec.Command(l.program, append([]string{"-w", "-C", h.chain}, rule...)...).Run() == nil {
					continue
				}
				if err := run("", l.program, append([]string{"-w", "-I", h.chain}, rule...)...); err != nil {
					errs = append(errs, fmt.Errorf("a firewall of this machine drops the pods' packets: %w", err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

func hasFilter(tables string) bool {
	b, err := os.ReadFile(tables)
	return err == nil && bytes.Contains(b, []byte("filter\n"))
}

func legacyRule(match []string) []string {
	return append(slices.Clone(match), "-m", "comment", "--comment", accepted, "-j", "ACCEPT")
}

func run(input, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(out))
	}
	return nil
}

// unaccept deletes the rules.
func (k *kernel) unaccept() error {
	var script strings.Builder
	var errs []error
	for _, f := range families {
		bases, err := nft.Bases(f.family)
		errs = append(errs, err)
		for _, b := range bases {
			if b.Hook != unix.NF_INET_FORWARD && b.Hook != unix.NF_INET_LOCAL_IN {
				continue
			}
			rules, err := nft.Commented(f.family, b.Table, b.Chain)
			errs = append(errs, err)
			for _, r := range rules {
				if r.Comment == accepted {
					fmt.Fprintf(&script, "delete rule %s %s %s handle %d\n", f.name, b.Table, b.Chain, r.Handle)
				}
			}
		}
	}
	if script.Len() > 0 {
		errs = append(errs, run(script.String(), "nft", "-f", "-"))
	}
	for _, l := range legacy {
		if !hasFilter(l.tables) {
			continue
		}
		for _, h := range hooks {
			_, all := passing(h.number, k.pods)
			for _, match := range all {
				// The rule may not exist.
				_ = exec.Command(l.program, append([]string{"-w", "-D", h.chain}, legacyRule(match)...)...).Run()
			}
		}
	}
	return errors.Join(errs...)
}
