package core

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/api"
)

func object(t *testing.T, r *api.Resource, texts ...string) runtime.Object {
	t.Helper()
	o := r.New()
	for _, text := range texts {
		if err := yaml.UnmarshalStrict([]byte(text), o); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	if r.Default != nil {
		r.Default(o)
	}
	return o
}

func messages(errs field.ErrorList) []string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Error())
	}
	slices.Sort(out)
	return out
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

type creation struct {
	text string
	want []string
}

func testCreations(t *testing.T, r *api.Resource, base string, cases []creation) {
	t.Helper()
	for _, c := range cases {
		o := object(t, r, base, c.text)
		r.PrepareForCreate(o)
		same(t, c.text, messages(r.Validate(o)), c.want)
	}
}

func TestService(t *testing.T) {
	testCreations(t, services(), "{metadata: {name: s}, spec: {ports: [{port: 80}]}}", []creation{
		{"spec: {}", nil},
		{"spec: {ports: []}", []string{"spec.ports: Required value"}},
		{"spec: {ports: [], clusterIP: None}", nil},
		{"spec: {clusterIP: None, type: NodePort}", []string{"spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"}},
		{"spec: {type: ExternalName}", []string{"spec.externalName: Required value"}},
		{"spec: {type: ExternalName, externalName: db.example.com., clusterIP: 10.96.0.9}", []string{"spec.clusterIPs: Forbidden: may not be set for ExternalName services"}},
		{"spec: {type: ExternalName, externalName: Db}", []string{
			"spec.externalName: Invalid value: \"Db\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"}},
		{"spec: {type: Odd}", []string{`spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"`}},
		{"spec: {ports: [{port: 80}, {port: 0, name: b, targetPort: 1}]}", []string{
			"spec.ports[0].name: Required value", "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive"}},
		{"spec: {ports: [{name: a, port: 80}, {name: a, port: 80}]}", []string{
			`spec.ports[1].name: Duplicate value: "a"`, `spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80,"targetPort":0}`}},
		{"spec: {ports: [{port: 80, nodePort: 30000}]}", []string{"spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"}},
		{"spec: {ports: [{port: 80, appProtocol: 'a b'}]}", []string{
			"spec.ports[0].appProtocol: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"}},
		{"spec: {sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}}", []string{
			"spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400"}},
		{"spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.8]}", []string{"spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: first value must match `clusterIP`"}},
		{"spec: {clusterIPs: [10.96.0.8]}", []string{"spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: must be empty when `clusterIP` is not specified"}},
		{"spec: {clusterIP: 10.96.0.8, clusterIPs: [10.96.0.8, 10.96.0.9]}", []string{"spec.clusterIPs: Invalid value: [\"10.96.0.8\",\"10.96.0.9\"]: may specify no more than one IP for each IP family"}},
		{"spec: {clusterIP: 10.96.0.8, ipFamilies: [IPv6]}", []string{"spec.clusterIPs[0]: Invalid value: \"10.96.0.8\": expected an IPv6 value as indicated by `ipFamilies[0]`"}},
		{"spec: {ipFamilies: [IPv5], ipFamilyPolicy: Both}", []string{
			`spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"`,
			`spec.ipFamilyPolicy: Unsupported value: "Both": supported values: "PreferDualStack", "RequireDualStack", "SingleStack"`}},
		{"spec: {externalIPs: [127.0.0.1, x]}", []string{
			`spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
			`spec.externalIPs[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`}},
		{"spec: {loadBalancerSourceRanges: [10.0.0.0/8]}", []string{"spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"}},
		{"spec: {type: LoadBalancer, loadBalancerSourceRanges: ['10.0.0.0/40 ']}", []string{
			`spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0/40": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)`}},
		{"spec: {allocateLoadBalancerNodePorts: true, loadBalancerClass: a/b}", []string{
			"spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
			"spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"}},
		{"spec: {externalTrafficPolicy: Local}", []string{`spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services`}},
		{"spec: {type: LoadBalancer, externalTrafficPolicy: Local}", []string{"spec.healthCheckNodePort: Required value"}}, // the allocator gives one
		{"spec: {healthCheckNodePort: 30001}", []string{"spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"}},
		{"spec: {internalTrafficPolicy: Near, trafficDistribution: Far}", []string{
			`spec.internalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"`,
			`spec.trafficDistribution: Unsupported value: "Far": supported values: "PreferClose", "PreferSameNode", "PreferSameZone"`}},
	})
}

func TestServiceUpdate(t *testing.T) {
	const cluster = "spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80}]}"
	const port = "spec: {type: NodePort, clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80, nodePort: 30080}]}"
	r := services()
	for _, c := range []struct {
		old, text string
		want      []string
		ok        func(*v1.Service) bool
	}{
		{cluster, "spec: {clusterIP: 10.96.0.8, clusterIPs: [10.96.0.9]}", []string{`spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set`}, nil},
		{cluster, "spec: {ipFamilies: [IPv6]}", []string{
			`spec.ipFamilies[0]: Invalid value: ["IPv6"]: may not change once set`,
			"spec.clusterIPs[0]: Invalid value: \"10.96.0.9\": expected an IPv6 value as indicated by `ipFamilies[0]`"}, nil},
		{cluster, "spec: {clusterIP: '', clusterIPs: [], ipFamilies: []}", nil, func(s *v1.Service) bool { return s.Spec.ClusterIPs[0] == "10.96.0.9" && len(s.Spec.IPFamilies) == 1 }},
		{cluster, "spec: {type: ExternalName, externalName: a.b}", nil, func(s *v1.Service) bool { return s.Spec.ClusterIP == "" && s.Spec.IPFamilyPolicy == nil }},
		{port, "spec: {type: ClusterIP}", nil, func(s *v1.Service) bool { return s.Spec.Ports[0].NodePort == 0 && s.Spec.ExternalTrafficPolicy == "" }},
		{port, "spec: {ports: [{port: 80}]}", nil, func(s *v1.Service) bool { return s.Spec.Ports[0].NodePort == 30080 }},
	} {
		old := object(t, r, c.old)
		is := object(t, r, c.old, c.text)
		r.PrepareForUpdate(is, old)
		same(t, c.text, messages(r.ValidateUpdate(is, old)), c.want)
		if c.ok != nil && !c.ok(is.(*v1.Service)) {
			t.Errorf("%s: %+v", c.text, is)
		}
	}
}

func TestEndpoints(t *testing.T) {
	testCreations(t, endpoints(), "{metadata: {name: e}}", []creation{
		{"subsets: [{}]", []string{"subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"}},
		{"subsets: [{addresses: [{ip: 169.254.1.1, nodeName: 'N!'}], ports: [{port: 1}, {port: 2, name: b, protocol: X}]}]", []string{
			`subsets[0].addresses[0].ip: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)`,
			"subsets[0].addresses[0].nodeName: Invalid value: \"N!\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
			"subsets[0].ports[0].name: Required value",
			`subsets[0].ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"`}},
	})
}

func TestNode(t *testing.T) {
	r := nodes()
	r.PrepareForCreate = func(runtime.Object) {}
	testCreations(t, r, "{metadata: {name: n}}", []creation{
		{"spec: {podCIDR: 10.0.0.0/24}", nil},
		{"spec: {taints: [{key: a, effect: NoSchedule}, {key: a, effect: NoSchedule}, {key: b, effect: Odd}]}", []string{
			`metadata.taints[1]: Duplicate value: {"key":"a","effect":"NoSchedule"}: taints must be unique by key and effect pair`,
			`metadata.taints[2].effect: Unsupported value: "Odd": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"`}},
		{"spec: {podCIDRs: [10.0.0.0/24, 10.0.1.0/24]}", []string{
			`spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR for each IP family`}},
		{"status: {capacity: {pods: 1500m, cpu: -1}, allocatable: {pods: '1', cpu: '1'}}", []string{
			`status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0`, `status.capacity.pods: Invalid value: "1500m": must be an integer`}},
	})
	old := object(t, r, "{metadata: {name: n}, spec: {podCIDR: 10.0.0.0/24, providerID: a}}")
	is := object(t, r, "{metadata: {name: n}, spec: {podCIDR: 10.0.1.0/24, providerID: b}}")
	same(t, "an update", messages(r.ValidateUpdate(is, old)), []string{
		`spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid`,
		`spec.providerID: Forbidden: node updates may not change providerID except from "" to valid`})
}

func TestLimitRange(t *testing.T) {
	testCreations(t, limitRanges(), "{metadata: {name: l}}", []creation{
		{"spec: {limits: [{type: Container, max: {cpu: '2'}, min: {cpu: '1'}}]}", nil},
		{"spec: {limits: [{type: Pod, default: {cpu: '1'}}, {type: Pod}, {type: Odd}]}", []string{
			"spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'", `spec.limits[1].type: Duplicate value: "Pod"`,
			`spec.limits[2].type: Invalid value: "Odd": must be a standard limit type or fully qualified`}},
		{"spec: {limits: [{type: Pod, max: {cpu: '1'}, min: {cpu: '2'}}]}", []string{`spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1`}},
		{"spec: {limits: [{type: Container, max: {cpu: '1'}, default: {cpu: '2'}, defaultRequest: {cpu: 1500m}}]}", []string{
			`spec.limits[0].default[cpu]: Invalid value: "1": default value 2 is greater than max value 1`,
			`spec.limits[0].defaultRequest[cpu]: Invalid value: "1500m": default request value 1500m is greater than max value 1`}},
		{"spec: {limits: [{type: Container, max: {cpu: '2'}, min: {cpu: '1'}, maxLimitRequestRatio: {cpu: '3'}}]}", []string{
			`spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "3": ratio 3 is greater than max/min = 2.000000`}},
		{"spec: {limits: [{type: PersistentVolumeClaim, max: {cpu: '2'}}]}", []string{
			"spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided"}},
		{"spec: {limits: [{type: Container, max: {storage: '2'}}]}", []string{
			`spec.limits[0].max[storage]: Invalid value: "storage": must be a standard resource for containers`,
			`spec.limits[0].default[storage]: Invalid value: "storage": must be a standard resource for containers`,
			`spec.limits[0].defaultRequest[storage]: Invalid value: "storage": must be a standard resource for containers`}},
	})
}

func TestResourceQuota(t *testing.T) {
	testCreations(t, resourceQuotas(), "{metadata: {name: q}}", []creation{
		{"spec: {hard: {pods: '1', requests.nvidia.com/gpu: '1', count/widgets.example.com: '2'}}", nil},
		{"spec: {hard: {pods: 1500m, storage: '1', odd: '1', cpu: -1}}", []string{
			`spec.hard[pods]: Invalid value: "1500m": must be an integer`,
			`spec.hard[storage]: Invalid value: "storage": must be a standard resource for quota`,
			`spec.hard[odd]: Invalid value: "odd": must be a standard resource type or fully qualified`,
			`spec.hard[odd]: Invalid value: "odd": must be a standard resource for quota`,
			`spec.hard[cpu]: Invalid value: "-1": must be greater than or equal to 0`}},
		{"spec: {hard: {services: '1'}, scopes: [Terminating, NotTerminating]}", []string{
			`spec.scopes: Invalid value: ["Terminating","NotTerminating"]: conflicting scopes`,
			`spec.scopes: Invalid value: ["Terminating","NotTerminating"]: unsupported scope applied to resource`,
			`spec.scopes: Invalid value: ["Terminating","NotTerminating"]: unsupported scope applied to resource`}},
		{"spec: {scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In}, {scopeName: BestEffort, operator: In, values: [a]}]}}", []string{
			"spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
			"spec.scopeSelector.matchExpressions.operator: Invalid value: \"In\": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"}},
	})
}

func TestSecretAndNamespace(t *testing.T) {
	testCreations(t, secrets(), "{metadata: {name: s}}", []creation{
		{"{type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: '{'}}", []string{"data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": unexpected end of JSON input"}},
		{"{type: kubernetes.io/tls, stringData: {tls.crt: x}}", []string{"data[tls.key]: Required value"}},
		{"{type: kubernetes.io/basic-auth}", []string{"data[username]: Required value", "data[password]: Required value"}},
	})
	testCreations(t, namespaces(), "{metadata: {name: n}}", []creation{
		{"spec: {finalizers: [odd, a.b/c]}", []string{`spec.finalizers: Invalid value: "odd": name is neither a standard finalizer name nor is it fully qualified`}},
	})
	testCreations(t, replicationControllers(), "{metadata: {name: r}, spec: {selector: {a: b}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}", []creation{
		{"spec: {replicas: -1}", []string{"spec.replicas: Invalid value: -1: must be greater than or equal to 0"}},
		{"spec: {template: {spec: {activeDeadlineSeconds: 5}}}", []string{"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported"}},
	})
}

func TestNodeRules(t *testing.T) {
	const base = "{metadata: {name: n}}"
	testCreations(t, nodesWithPrepare(), base, []creation{
		{"spec: {taints: [{key: a, effect: NoSchedule}, {key: a, effect: NoSchedule}, {key: b, value: 'c d'}]}", []string{
			`metadata.taints[1]: Duplicate value: {"key":"a","effect":"NoSchedule"}: taints must be unique by key and effect pair`,
			"metadata.taints[2].effect: Required value",
			`metadata.taints[2].value: Invalid value: "c d": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`}},
		{"metadata: {annotations: {scheduler.alpha.kubernetes.io/taints: '[{\"key\": \"a\"}]', scheduler.alpha.kubernetes.io/preferAvoidPods: '{\"preferAvoidPods\": [{}]}'}}", []string{
			"metadata.annotations.scheduler.alpha.kubernetes.io/taints[0].effect: Required value",
			"metadata.annotations.scheduler.alpha.kubernetes.io/preferAvoidPods[0].PodSignature: Required value"}},
		{"spec: {podCIDRs: [10.0.0.0/24, 10.0.1.0/24]}", []string{`spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR for each IP family`}},
		{"status: {capacity: {pods: 1500m}, allocatable: {pods: -1}}", []string{`status.capacity.pods: Invalid value: "1500m": must be an integer`, `status.allocatable.pods: Invalid value: "-1": must be greater than or equal to 0`}},
	})
	r := nodes()
	const source = "{configMap: {name: c, namespace: ns, kubeletConfigKey: k"
	testChanges(t, r, &r.UpdateStrategy, base, []change{
		{"spec: {podCIDR: 10.0.0.0/24, providerID: a}", "spec: {podCIDR: 10.0.1.0/24, podCIDRs: [10.0.1.0/24], providerID: b, externalID: c}", []string{
			"spec.externalID: Forbidden: may not be updated", `spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid`,
			`spec.providerID: Forbidden: node updates may not change providerID except from "" to valid`}},
		{"{}", "spec: {configSource: {}}", []string{"spec.configSource: Invalid value: {}: exactly one reference subfield must be non-nil"}},
		{"{}", "spec: {configSource: " + source + ", uid: u}}}", []string{"spec.configSource.configMap.uid: Forbidden: uid must not be set in spec"}},
		{"{}", "spec: {configSource: {configMap: {name: A}}}", []string{"spec.configSource.configMap.kubeletConfigKey: Required value: kubeletConfigKey must be set",
			`spec.configSource.configMap.name: Invalid value: "A": a lowercase RFC 1123 subdomain`, "spec.configSource.configMap.namespace: Required value: namespace must be set"}},
	})
	testChanges(t, r, r.Status, base, []change{
		{"{}", "status: {config: {active: " + source + "}}}}", []string{"status.config.active.configMap.resourceVersion: Required value: resourceVersion must be set in status",
			"status.config.active.configMap.uid: Required value: uid must be set in status"}},
		{"{}", "status: {addresses: [{type: Hostname, address: a}, {type: Hostname, address: a}]}", []string{`status.addresses[1]: Duplicate value: {"type":"Hostname","address":"a"}`}},
	})
}

// nodesWithPrepare returns the row of nodes with a preparation that keeps the
// status of the test's node.
func nodesWithPrepare() *api.Resource {
	r := nodes()
	r.PrepareForCreate = func(runtime.Object) {}
	return r
}

func TestUpdates(t *testing.T) {
	const fixed = "field is immutable when `immutable` is set"
	r := configMaps()
	testChanges(t, r, &r.UpdateStrategy, "{metadata: {name: c}, data: {a: b}}", []change{
		{"{immutable: true}", "{immutable: false, data: {a: c}, binaryData: {d: AA==}}", []string{"binaryData: Forbidden: " + fixed, "data: Forbidden: " + fixed, "immutable: Forbidden: " + fixed}},
		{"{}", "{data: {'a b': c}, binaryData: {a: AA==}}", []string{`data[a b]: Invalid value: "a b": a valid config key must consist of`, `data[a]: Invalid value: "a": duplicate of key present in binaryData`}},
	})
	r = secrets()
	testChanges(t, r, &r.UpdateStrategy, "{metadata: {name: s}, data: {a: AA==}}", []change{
		{"{immutable: true}", "{immutable: null, data: {a: AQ==}, type: odd}", []string{"data: Forbidden: " + fixed, "immutable: Forbidden: " + fixed, `type: Invalid value: "odd": field is immutable`}},
	})
	r = resourceQuotas()
	testChanges(t, r, &r.UpdateStrategy, "{metadata: {name: q}, spec: {hard: {pods: '1'}, scopes: [BestEffort]}}", []change{
		{"{}", "spec: {hard: {pods: '2'}, scopes: [BestEffort, BestEffort]}", nil},
		{"{}", "spec: {scopes: [NotBestEffort]}", []string{`spec.scopes: Invalid value: ["NotBestEffort"]: field is immutable`}},
	})
	r = services()
	testChanges(t, r, &r.UpdateStrategy, "{metadata: {name: s}, spec: {ports: [{port: 80}], clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack}}", []change{
		{"{}", "spec: {clusterIP: 10.96.0.8, clusterIPs: [10.96.0.8]}", []string{`spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set`}},
		{"spec: {clusterIPs: [10.96.0.9, 'fd00::9'], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}", "spec: {clusterIPs: [10.96.0.9, 'fd00::9'], ipFamilies: [IPv6, IPv4]}", []string{
			`spec.clusterIPs[0]: Invalid value: "10.96.0.9": expected an IPv6 value as indicated by`, `spec.clusterIPs[1]: Invalid value: "fd00::9": expected an IPv4 value as indicated by`,
			`spec.ipFamilies[0]: Invalid value: ["IPv6","IPv4"]: may not change once set`, `spec.ipFamilies[0]: Invalid value: ["IPv6","IPv4"]: may not change once set`}},
		{"spec: {clusterIPs: [10.96.0.9, 'fd00::9'], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}", "spec: {clusterIPs: [10.96.0.9], ipFamilies: [IPv4]}", []string{
			`spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be set to 'SingleStack' when releasing the secondary clusterIP`,
			`spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be set to 'SingleStack' when releasing the secondary ipFamily`}},
	})
	r = namespaces()
	testChanges(t, r, r.Updates["finalize"], "{metadata: {name: n}}", []change{
		{"{}", "spec: {finalizers: [kubernetes, odd]}", []string{`spec.finalizers[1]: Invalid value: "odd": name is neither a standard finalizer name nor is it fully qualified`}},
	})
	testChanges(t, r, r.Status, "{metadata: {name: n}, status: {phase: Active}}", []change{
		{"{}", "status: {phase: Terminating}", []string{"status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"}},
	})
}
