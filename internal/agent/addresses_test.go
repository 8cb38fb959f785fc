package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func ips(all ...string) (out []netip.Addr) {
	for _, s := range all {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// TestAddresses checks which of a machine's addresses are the node's.
func TestAddresses(t *testing.T) {
	const four, six, other = "192.0.2.1", "2001:db8::1", "198.51.100.7"
	both := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:244::/64")}
	for _, c := range []struct {
		name            string
		given, has, had []netip.Addr
		pods            []netip.Prefix
		want            []netip.Addr
	}{
		{"the machine's", nil, ips(four), nil, nil, ips(four)},
		{"of both families, the first", nil, ips(four, six), nil, both[:1], ips(four)},
		{"of IPv6 alone", nil, ips(six), nil, nil, ips(six)},
		{"none", nil, nil, nil, nil, ips("127.0.0.1")},
		{"for pods of both families", nil, ips(four, six), nil, both, ips(four, six)},
		{"for pods of both families, of one", nil, ips(four), nil, both, ips(four)},
		{"given", ips(other), ips(four, six), nil, nil, ips(other)},
		{"given, for pods of both families", ips(other), ips(four, six), nil, both, ips(other, six)},
		{"given of both families", ips(other, six), ips(four), nil, both, ips(other, six)},
		{"IPv6 first", ips("::"), ips(four, six), nil, both, ips(six, four)},
		{"IPv6 preferred, and not there", ips("::"), ips(four), nil, nil, ips(four)},
		{"gone for the moment", nil, nil, ips(four, six), both, ips(four, six)},
		{"one of them gone for the moment", nil, ips(four), ips(four, six), both, ips(four, six)},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &addresses{given: c.given, last: c.had, pods: func() []netip.Prefix { return c.pods }, machine: func(four bool) (netip.Addr, bool) {
				i := slices.IndexFunc(c.has, func(x netip.Addr) bool { return x.Is4() == four })
				if i < 0 {
					return netip.Addr{}, false
				}
				return c.has[i], true
			}}
			if got := a.now(); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestAddressesFollow tells another address once it stays, and nothing that is as
// before.
func TestAddressesFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		has := ips("192.0.2.1")
		a := &addresses{pods: func() []netip.Prefix { return nil }, machine: func(four bool) (netip.Addr, bool) { return has[0], four }}
		network := make(chan struct{}, 1)
		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			a.follow(ctx, network, nil, time.After, func() { told = append(told, fmt.Sprint(a.now())) })
		}()
		synctest.Wait()
		for _, next := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.2"} {
			has = ips(next)
			network <- struct{}{}
			time.Sleep(time.Second)
		}
		// It changes twice within a moment.
		has = ips("192.0.2.3")
		network <- struct{}{}
		time.Sleep(settle / 2)
		has = ips("192.0.2.4")
		network <- struct{}{}
		time.Sleep(time.Second)
		cancel()
		<-ended
		if want := []string{"[192.0.2.2]", "[192.0.2.4]"}; !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}

func TestValidateNodeIPs(t *testing.T) {
	for _, c := range []struct {
		given []netip.Addr
		want  string
	}{
		{nil, ""},
		{ips("192.0.2.1"), ""},
		{ips("::"), ""},
		{ips("192.0.2.1", "2001:db8::1"), ""},
		{ips("192.0.2.1", "192.0.2.2"), "must contain either a single IP or a dual-stack pair of IPs"},
		{ips("192.0.2.1", "2001:db8::1", "192.0.2.2"), "must contain either a single IP or a dual-stack pair of IPs"},
		{ips("192.0.2.1", "::"), "in a dual-stack pair"},
		{ips("127.0.0.1"), "other machines do not reach it"},
	} {
		complain(t, validateNodeIPs(c.given), c.want)
	}
}
