package cni

import (
	"net/netip"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/node/hostport"
)

func TestScript(t *testing.T) {
	pod := func(ip string, port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), port) }
	d := &Default{last: Network{Own: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")}}}
	got := d.script(map[types.UID][]hostport.Port{
		"b": {{Protocol: v1.ProtocolTCP, Port: 80, Pod: pod("10.0.0.3", 8080)}, {Protocol: v1.ProtocolUDP, Port: 80, Pod: pod("10.0.0.3", 53)}},
		"a": {{Protocol: v1.ProtocolTCP, Port: 80, Pod: pod("10.0.0.2", 8080)},
			{Protocol: v1.ProtocolTCP, HostIP: netip.MustParseAddr("192.0.2.1"), Port: 80, Pod: pod("10.0.0.2", 81)},
			{Protocol: v1.ProtocolTCP, Port: 82, Pod: pod("fd00::2", 82)}},
	})
	for _, want := range []string{
		"flush map ip keelson hostports\nadd element ip keelson hostports { tcp . 80 : 10.0.0.2 . 8080, udp . 80 : 10.0.0.3 . 53 }\n",
		"flush map ip keelson hostipports\nadd element ip keelson hostipports { 192.0.2.1 . tcp . 80 : 10.0.0.2 . 81 }\n",
		"flush map ip6 keelson hostports\nadd element ip6 keelson hostports { tcp . 82 : fd00::2 . 82 }\n",
		"flush set ip keelson hairpin\nadd element ip keelson hairpin { 10.0.0.2 . 10.0.0.2, 10.0.0.3 . 10.0.0.3 }\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if got := d.script(nil); strings.Contains(got, "add") || strings.Count(got, "flush") != 6 {
		t.Errorf("for no pod:\n%s", got)
	}
}
