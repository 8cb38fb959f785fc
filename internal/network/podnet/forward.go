package podnet

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// drops reports whether a chain belongs to a firewall that drops forwarded packets:
// by its policy, as those of Docker and ufw, or by its last rule, as that of
// firewalld. It drops packets even if another chain accepts them, so that it has to
// accept the pods' packets itself.
func drops(b nft.Base) bool {
	return b.Hook == unix.NF_INET_FORWARD && (b.Drops || b.Table == "firewalld")
}

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
			if len(rules) >= 2 && rules[0].Comment == accepted && rules[1].Comment == accepted {
				continue
			}
			for _, r := range rules {
				if r.Comment == accepted {
					fmt.Fprintf(&script, "delete rule %s %s %s handle %d\n", f.name, b.Table, b.Chain, r.Handle)
				}
			}
			for _, side := range []string{"oifname", "iifname"} {
				fmt.Fprintf(&script, "insert rule %s %s %s %s %q counter accept comment %q\n", f.name, b.Table, b.Chain, side, k.pods, accepted)
			}
		}
	}
	if script.Len() == 0 {
		return nil
	}
	if err := run(script.String(), "nft", "-f", "-"); err != nil {
		return fmt.Errorf("a firewall of this machine drops forwarded packets, among them the pods': make it accept packets from and to the link %s: %w", k.pods, err)
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
		out, err := exec.Command(l.program, "-w", "-S", "FORWARD").Output()
		if err != nil {
			errs = append(errs, fmt.Errorf("the machine has a firewall in the older tables of iptables, and its rules cannot be read: %w: install %s, or make the firewall accept packets from and to the link %s", err, l.program, k.pods))
			continue
		}
		if !bytes.Contains(out, []byte("-P FORWARD DROP")) {
			continue
		}
		for _, side := range []string{"-o", "-i"} {
			rule := legacyRule(side, k.pods)
			if exec.Command(l.program, append([]string{"-w", "-C", "FORWARD"}, rule...)...).Run() == nil {
				continue
			}
			if err := run("", l.program, append([]string{"-w", "-I", "FORWARD"}, rule...)...); err != nil {
				errs = append(errs, fmt.Errorf("a firewall of this machine drops forwarded packets: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

func hasFilter(tables string) bool {
	b, err := os.ReadFile(tables)
	return err == nil && bytes.Contains(b, []byte("filter\n"))
}

func legacyRule(side, link string) []string {
	return []string{side, link, "-m", "comment", "--comment", accepted, "-j", "ACCEPT"}
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
			if b.Hook != unix.NF_INET_FORWARD {
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
		for _, side := range []string{"-o", "-i"} {
			// The rule may not exist.
			_ = exec.Command(l.program, append([]string{"-w", "-D", "FORWARD"}, legacyRule(side, k.pods)...)...).Run()
		}
	}
	return errors.Join(errs...)
}
