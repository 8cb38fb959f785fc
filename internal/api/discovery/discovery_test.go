package discovery

import (
	"strings"
	"testing"

	v1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestEndpointSlices(t *testing.T) {
	slice := func(more string) string {
		return `{metadata: {name: s, generation: 1}, addressType: IPv4, ` + more + `}`
	}
	generation := func(want int64) func(*testing.T, runtime.Object) {
		return func(t *testing.T, obj runtime.Object) {
			if g := obj.(*v1.EndpointSlice).Generation; g != want {
				t.Errorf("generation %d, want %d", g, want)
			}
		}
	}
	rowtest.Run(t, Resources()[0], []rowtest.Case{
		{Name: "ports", Object: slice(`ports: [{}, {name: a, port: 99999}]`), Check: func(t *testing.T, obj runtime.Object) {
			if p := obj.(*v1.EndpointSlice).Ports[0]; *p.Name != "" || *p.Protocol != "TCP" {
				t.Errorf("the port is %+v", p)
			}
		}},
		{Name: "wrong ports", Object: slice(`ports: [{name: A}, {name: b, protocol: ICMP}, {name: b, appProtocol: a b}]`), Errors: []string{
			`ports[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			`ports[1].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`,
			`ports[2].name: Duplicate value: "b"`,
			`ports[2].appProtocol: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`}},
		{Name: "addresses", Object: slice(`endpoints: [{addresses: []}, {addresses: [127.0.0.1, 169.254.1.1, 224.0.0.1, "::1"]}]`), Errors: []string{
			`endpoints[0].addresses: Required value`,
			`endpoints[1].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
			`endpoints[1].addresses[1]: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)`,
			`endpoints[1].addresses[2]: Invalid value: "224.0.0.1": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)`,
			`endpoints[1].addresses[3]: Invalid value: "::1": must be a valid IPv4 address`}},
		{Name: "names", Object: `{metadata: {name: s}, addressType: FQDN, endpoints: [{addresses: [a.example.com]}]}`, Warnings: []string{
			"spec.addressType: FQDN endpoints are deprecated"}},
		{Name: "odd addresses", Object: `{metadata: {name: s}, addressType: Odd}`, Errors: []string{
			`addressType: Unsupported value: "Odd": supported values: "FQDN", "IPv4", "IPv6"`}},
		{Name: "too many addresses", Object: slice(`endpoints: [{addresses: [` + strings.Repeat("10.0.0.1, ", 101) + `]}]`), Errors: []string{
			`endpoints[0].addresses: Too many: 101: must have at most 100 items`}},
		{Name: "no type", Object: `{metadata: {name: s}}`, Errors: []string{`addressType: Required value`}},
		{Name: "another type", Object: slice(``), Update: `{addressType: IPv6}`, Errors: []string{`addressType: Invalid value: null: field is immutable`}},
		{Name: "label", Object: slice(``), Update: `{metadata: {labels: {a: b}}}`, Check: generation(2)},
		{Name: "annotation", Object: slice(``), Update: `{metadata: {annotations: {a: b}}}`, Check: generation(1)},
		{Name: "topology", Object: slice(`endpoints: [{addresses: [10.0.0.1], deprecatedTopology: {kubernetes.io/hostname: node}}]`), Check: func(t *testing.T, obj runtime.Object) {
			if e := obj.(*v1.EndpointSlice).Endpoints[0]; e.DeprecatedTopology != nil || e.NodeName != nil {
				t.Errorf("the endpoint is %+v", e)
			}
		}},
		{Name: "topology of old", Object: slice(`endpoints: [{addresses: [10.0.0.1], deprecatedTopology: {kubernetes.io/hostname: node}}]`),
			Update: `{endpoints: [{addresses: [10.0.0.2], deprecatedTopology: {kubernetes.io/hostname: node}}]}`, Check: func(t *testing.T, obj runtime.Object) {
				if e := obj.(*v1.EndpointSlice).Endpoints[0]; e.DeprecatedTopology != nil || e.NodeName == nil || *e.NodeName != "node" {
					t.Errorf("the endpoint is %+v", e)
				}
			}},
		{Name: "hints", Object: slice(`endpoints: [{addresses: [10.0.0.1], hints: {forZones: [{name: a}, {name: a}], forNodes: [{name: A}]}}]`), Errors: []string{
			`endpoints[0].hints.forZones[1].name: Duplicate value: "a"`,
			`endpoints[0].hints.forNodes[0].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`}},
	}...)
}
