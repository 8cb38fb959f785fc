package networking

import (
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/networking/v1"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestValidation(t *testing.T) {
	path := func(kind, path, backend string) string {
		return `{spec: {rules: [{host: a.example.com, http: {paths: [{path: "` + path + `", pathType: ` + kind + `, backend: ` + backend + `}]}}]}}`
	}
	const service = `{service: {name: s, port: {number: 80}}}`
	const backend = `spec.rules[0].http.paths[0].backend`
	for name, c := range map[string]struct {
		resource, object string
		want             []string
	}{
		"ingress":                        {"ingresses", path("Prefix", "/", service), nil},
		"ingress to a service of digits": {"ingresses", path("Prefix", "/", `{service: {name: 1s, port: {name: http}}}`), nil},
		"ingress of nothing": {"ingresses", `{}`, []string{
			"spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"}},
		"ingress with a relative path": {"ingresses", path("Exact", "a//b/..", service), []string{
			`spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must be an absolute path`,
			`spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must not contain '//'`,
			`spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": cannot end with '/..'`}},
		"ingress with an odd path type": {"ingresses", path("Suffix", "/", service), []string{
			`spec.rules[0].http.paths[0].pathType: Unsupported value: "Suffix": supported values: "Exact", "ImplementationSpecific", "Prefix"`}},
		"ingress to no port": {"ingresses", path("Prefix", "/", `{service: {name: s}}`), []string{
			backend + `: Required value: port name or number is required`}},
		"ingress to nothing": {"ingresses", path("Prefix", "/", `{}`), []string{
			backend + `: Invalid value: "": resource or service backend is required`}},
		"ingress with two classes": {"ingresses", `{metadata: {annotations: {kubernetes.io/ingress.class: a}}, spec: {ingressClassName: b, defaultBackend: ` + service + `}}`, []string{
			"annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified"}},
		"class": {"ingressclasses", `{spec: {controller: example.com/c, parameters: {kind: K, name: n}}}`, nil},
		"class with a namespace of a cluster's": {"ingressclasses", `{spec: {controller: example.com/c, parameters: {kind: K, name: n, namespace: x}}}`, []string{
			"spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"}},
		"policy": {"networkpolicies", `{spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80, endPort: 90}]}]}}`, nil},
		"policy with wrong peers": {"networkpolicies", `{spec: {podSelector: {}, egress: [{to: [{}, {ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}, podSelector: {}}], ports: [{endPort: 90}, {port: http, endPort: 1}, {protocol: ICMP}]}]}}`, []string{
			`spec.egress[0].to[0]: Required value: must specify a peer`,
			`spec.egress[0].to[1]: Forbidden: may not specify both ipBlock and another peer`,
			"spec.egress[0].to[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
			"spec.egress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is not specified",
			"spec.egress[0].ports[1].endPort: Invalid value: 1: may not be specified when `port` is non-numeric",
			`spec.egress[0].ports[2].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"`}},
		"address": {"ipaddresses", `{metadata: {name: 10.0.0.1}, spec: {parentRef: {resource: services, name: s, namespace: n}}}`, nil},
		"address of nobody": {"ipaddresses", `{metadata: {name: 10.0.0.1}}`, []string{
			`spec.parentRef: Required value`}},
		"range":            {"servicecidrs", `{spec: {cidrs: [10.0.0.0/16, "fd00::/112"]}}`, nil},
		"range of nothing": {"servicecidrs", `{}`, []string{`spec.cidrs: Required value: at least one CIDR required`}},
	} {
		t.Run(name, func(t *testing.T) {
			r := rowtest.Find(t, Resources(), c.resource)
			rowtest.Expect(t, r.Validate(rowtest.Object(t, r, c.object)), c.want...)
		})
	}
}

func TestUpdates(t *testing.T) {
	for name, c := range map[string]struct {
		resource, old, object string
		want                  []string
	}{
		"policy keeps a badly written range": {"networkpolicies",
			`{spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/8}}]}]}}`,
			`{metadata: {labels: {a: b}}, spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/8}}]}]}}`, nil},
		"class keeps its controller": {"ingressclasses", `{spec: {controller: example.com/c}}`, `{spec: {controller: example.com/d}}`, []string{
			`spec.controller: Invalid value: "example.com/d": field is immutable`}},
		"range grows a family": {"servicecidrs", `{spec: {cidrs: [10.0.0.0/16]}}`, `{spec: {cidrs: [10.0.0.0/16, "fd00::/112"]}}`, nil},
		"range keeps its family": {"servicecidrs", `{spec: {cidrs: [10.0.0.0/16]}}`, `{spec: {cidrs: [10.1.0.0/16]}}`, []string{
			`spec.cidrs: Invalid value: ["10.1.0.0/16"]: field is immutable`}},
	} {
		t.Run(name, func(t *testing.T) {
			r := rowtest.Find(t, Resources(), c.resource)
			rowtest.Expect(t, r.ValidateUpdate(rowtest.Object(t, r, c.object), rowtest.Object(t, r, c.old)), c.want...)
		})
	}
}

func TestNamesOfAddresses(t *testing.T) {
	valid := rowtest.Find(t, Resources(), "ipaddresses").ValidateName
	for name, good := range map[string]bool{
		"10.0.0.1": true, "fd00::1": true, "10.0.0.01": false, "FD00::1": false, "::ffff:1.2.3.4": false, "x": false,
	} {
		if msgs := valid(name, false); (len(msgs) == 0) != good {
			t.Errorf("%s: %q", name, msgs)
		}
	}
}

func TestNetworkPolicyDefaults(t *testing.T) {
	r := rowtest.Find(t, Resources(), "networkpolicies")
	p := rowtest.Object(t, r, `{spec: {podSelector: {}, egress: [{ports: [{port: 53}]}]}}`).(*v1.NetworkPolicy)
	if !slices.Equal(p.Spec.PolicyTypes, []v1.PolicyType{"Ingress", "Egress"}) || *p.Spec.Egress[0].Ports[0].Protocol != "TCP" {
		t.Errorf("the policy is %+v", p.Spec)
	}
}

func TestIngressTable(t *testing.T) {
	r := rowtest.Find(t, Resources(), "ingresses")
	i := rowtest.Object(t, r, `{metadata: {name: i}, spec: {tls: [{}], rules: [{host: a}, {host: b}, {host: c}, {host: d}]}, status: {loadBalancer: {ingress: [{ip: 2.2.2.2}, {ip: 1.1.1.1}]}}}`)
	want := []any{"i", "<none>", "a,b,c + 1 more...", "1.1.1.1,2.2.2.2", "80, 443", "<unknown>"}
	if got := r.Cells(i, time.Now()); !slices.Equal(got, want) {
		t.Errorf("cells are %v, want %v", got, want)
	}
}

func TestWrites(t *testing.T) {
	const service = `{service: {name: s, port: {number: 80}}}`
	run := func(resource string, cases ...rowtest.Case) {
		t.Run(resource, func(t *testing.T) { rowtest.Run(t, rowtest.Find(t, Resources(), resource), cases...) })
	}
	run("ingresses",
		rowtest.Case{Name: "deprecated class", Object: `{metadata: {name: i, annotations: {kubernetes.io/ingress.class: a}}, spec: {defaultBackend: ` + service + `}}`, Warnings: []string{
			`annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead`}},
		rowtest.Case{Name: "deprecated class that was", Object: `{metadata: {name: i, annotations: {kubernetes.io/ingress.class: a}}, spec: {defaultBackend: ` + service + `}}`, Update: `{metadata: {labels: {a: b}}}`},
		rowtest.Case{Name: "resource of nothing", Object: `{metadata: {name: i}, spec: {defaultBackend: {resource: {kind: "", name: ""}}}}`, Errors: []string{
			"spec.defaultBackend.resource.kind: Required value: kind is required", "spec.defaultBackend.resource.name: Required value: name is required"}},
		rowtest.Case{Name: "status", Object: `{metadata: {name: i}, spec: {defaultBackend: ` + service + `}}`, Status: `{loadBalancer: {ingress: [{ip: x}, {hostname: 1.2.3.4}]}}`, Errors: []string{
			`status.loadBalancer.ingress[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
			`status.loadBalancer.ingress[1].hostname: Invalid value: "1.2.3.4": must be a DNS name, not an IP address`}})
	run("ingressclasses",
		rowtest.Case{Name: "parameters of nothing", Object: `{metadata: {name: c}, spec: {controller: example.com/c, parameters: {kind: "", name: ""}}}`, Errors: []string{
			"spec.parameters.kind: Required value", "spec.parameters.name: Required value"}},
		rowtest.Case{Name: "another controller", Object: `{metadata: {name: c}, spec: {controller: example.com/c}}`, Update: `{spec: {controller: example.com/d}}`, Errors: []string{
			`spec.controller: Invalid value: "example.com/d": field is immutable`}})
	run("networkpolicies",
		rowtest.Case{Name: "types", Object: `{metadata: {name: p}, spec: {podSelector: {}, policyTypes: [Odd]}}`, Errors: []string{
			`spec.policyTypes[0]: Unsupported value: "Odd": supported values: "Ingress", "Egress"`}},
		rowtest.Case{Name: "range of ports", Object: `{metadata: {name: p}, spec: {podSelector: {}, ingress: [{ports: [{port: 80, endPort: 70}]}]}}`, Errors: []string{
			"spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`"}},
		rowtest.Case{Name: "address as a network that was", Object: `{metadata: {name: p}, spec: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.1/8}}]}]}}`, Update: `{metadata: {labels: {a: b}}}`, Warnings: []string{
			`spec.egress[0].to[0].ipBlock.cidr: CIDR value "10.0.0.1/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)`}})
	run("ipaddresses",
		rowtest.Case{Name: "no address", Object: `{metadata: {name: x}, spec: {parentRef: {resource: services, name: s}}}`, Errors: []string{
			`metadata.name: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`}},
		rowtest.Case{Name: "not canonical", Object: `{metadata: {name: "2001:DB8::1"}, spec: {parentRef: {resource: services, name: s}}}`, Errors: []string{
			`metadata.name: Invalid value: "2001:DB8::1": must be in canonical form ("2001:db8::1")`}})
	run("servicecidrs",
		rowtest.Case{Name: "one family twice", Object: `{metadata: {name: c}, spec: {cidrs: [10.0.0.0/24, 10.1.0.0/24]}}`, Errors: []string{
			`spec.cidrs: Invalid value: {"CIDRs":["10.0.0.0/24","10.1.0.0/24"]}: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64`}},
		rowtest.Case{Name: "three", Object: `{metadata: {name: c}, spec: {cidrs: [a, b, c]}}`, Errors: []string{
			`spec.cidrs: Invalid value: {"CIDRs":["a","b","c"]}: may only hold up to 2 values`}})
}
