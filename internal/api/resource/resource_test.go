package resource

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestValidation(t *testing.T) {
	claim := func(devices string) string { return `{spec: {devices: {` + devices + `}}}` }
	for name, c := range map[string]struct {
		resource, object string
		want             []string
	}{
		"claim": {"resourceclaims", claim(`requests: [{name: r, exactly: {deviceClassName: c, selectors: [{cel: {expression: "device.driver == 'd' && device.attributes['d'].model == 'x'"}}]}}],
			constraints: [{requests: [r], matchAttribute: example.com/numa}], config: [{opaque: {driver: d, parameters: {a: 1}}}]`), nil},
		"claim of nothing": {"resourceclaims", claim(`requests: [{name: r}, {name: r, exactly: {deviceClassName: c, allocationMode: All, count: 2}}]`), []string{
			"spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
			`spec.devices.requests[1].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'`,
			`spec.devices.requests[1]: Duplicate value: {"name":"r","exactly":{"deviceClassName":"c","allocationMode":"All","count":2}}`}},
		"claim with tolerations": {"resourceclaims", claim(`requests: [{name: r, firstAvailable: [{name: s, deviceClassName: c, tolerations: [{operator: Exists, value: v}]}]}], config: [{requests: [x, r/s], opaque: {driver: d, parameters: [1]}}]`), []string{
			"spec.devices.requests[0].firstAvailable[0].tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`",
			`spec.devices.config[0].requests[0]: Invalid value: "x": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'`,
			`spec.devices.config[0].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object`}},
		"class": {"deviceclasses", `{spec: {selectors: [{cel: {expression: "device.driver == 'd'"}}], extendedResourceName: example.com/gpu}}`, nil},
		"class that is no bool": {"deviceclasses", `{spec: {selectors: [{cel: {expression: "1"}}]}}`, []string{
			`spec.selectors[0].cel.expression: Invalid value: "1": must evaluate to bool or the unknown type, not int`}},
		"slice": {"resourceslices", `{spec: {driver: d, nodeName: n, pool: {name: n/p, resourceSliceCount: 1}, devices: [{name: gpu-0, attributes: {model: {string: x}, d.example.com/v: {version: 1.2.3}}, capacity: {memory: {value: 1Gi}}}]}}`, nil},
		"slice of nowhere": {"resourceslices", `{spec: {driver: d, pool: {name: p, resourceSliceCount: 1}, devices: [{name: UP_, attributes: {m: {}}}, {name: a, allNodes: true}]}}`, []string{
			"spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
			"spec.devices[0].attributes[m]: Invalid value: \"\": must specify one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`",
			`spec.devices[0].name: Invalid value: "UP_": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			"spec.devices[1]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"}},
		"slice of many places": {"resourceslices", `{spec: {driver: d, nodeName: n, allNodes: true, pool: {name: p, resourceSliceCount: 1}}}`, []string{
			"spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"}},
		"template": {"resourceclaimtemplates", `{spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := rowtest.Find(t, Resources(), c.resource)
			rowtest.Expect(t, r.Validate(rowtest.Object(t, r, c.object)), c.want...)
		})
	}
}

func TestSelectorThatDoesNotCompile(t *testing.T) {
	r := rowtest.Find(t, Resources(), "deviceclasses")
	errs := r.Validate(rowtest.Object(t, r, `{spec: {selectors: [{cel: {expression: "device.driver =="}}]}}`))
	if len(errs) != 1 || !strings.HasPrefix(errs[0].Detail, "compilation failed: ") {
		t.Errorf("errors are %v", errs)
	}
}

func TestClaimStatus(t *testing.T) {
	r := rowtest.Find(t, Resources(), "resourceclaims")
	old := rowtest.Object(t, r, `{spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}}`).(*v1.ResourceClaim)
	state := func(c *v1.ResourceClaim) any { return r.Cells(c, time.Now())[1] }
	if state(old) != "pending" {
		t.Errorf("a new claim is %v", state(old))
	}
	pod := v1.ResourceClaimConsumerReference{Resource: "pods", Name: "p", UID: "1"}
	early := old.DeepCopy()
	early.Status.ReservedFor = []v1.ResourceClaimConsumerReference{pod}
	rowtest.Expect(t, r.Status.ValidateUpdate(early, old), "status.reservedFor: Forbidden: may not be specified when `allocated` is not set")

	allocated := old.DeepCopy()
	allocated.Status.Allocation = &v1.AllocationResult{Devices: v1.DeviceAllocationResult{Results: []v1.DeviceRequestAllocationResult{
		{Request: "r", Driver: "d", Pool: "p", Device: "gpu-0"},
	}}}
	allocated.Status.ReservedFor = early.Status.ReservedFor
	rowtest.Expect(t, r.Status.ValidateUpdate(allocated, old))
	if state(allocated) != "allocated,reserved" {
		t.Errorf("the claim is %v", state(allocated))
	}

	moved := allocated.DeepCopy()
	moved.Status.Allocation.Devices.Results[0].Device = "gpu-1"
	if errs := r.Status.ValidateUpdate(moved, allocated); len(errs) != 1 || errs[0].Field != "status.allocation" || errs[0].Detail != "field cannot be modified once set" {
		t.Errorf("errors of a moved allocation are %v", errs)
	}

	dying := allocated.DeepCopy()
	dying.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	dying.Status.ReservedFor = append(dying.Status.ReservedFor, v1.ResourceClaimConsumerReference{Resource: "pods", Name: "q", UID: "2"})
	rowtest.Expect(t, r.Status.ValidateUpdate(dying, allocated), "status.reservedFor: Forbidden: new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set")

	freed := allocated.DeepCopy()
	freed.Status.Allocation, freed.Status.Devices = nil, []v1.AllocatedDeviceStatus{{Driver: "d", Pool: "p", Device: "gpu-0"}, {Driver: "d", Pool: "p", Device: "gpu-1"}}
	r.Status.PrepareForUpdate(freed, allocated)
	if d := freed.Status.Devices; len(d) != 1 || d[0].Device != "gpu-1" {
		t.Errorf("of the devices' statuses %+v outlive the allocation of one", d)
	}
}

func TestDefaults(t *testing.T) {
	c := rowtest.Object(t, rowtest.Find(t, Resources(), "resourceclaims"), `{spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c, tolerations: [{key: k}]}}]}}}`).(*v1.ResourceClaim)
	if e := c.Spec.Devices.Requests[0].Exactly; e.AllocationMode != "ExactCount" || e.Count != 1 || e.Tolerations[0].Operator != "Equal" {
		t.Errorf("the request is %+v", e)
	}
}

func TestWrites(t *testing.T) {
	run := func(resource string, cases ...rowtest.Case) {
		t.Run(resource, func(t *testing.T) { rowtest.Run(t, rowtest.Find(t, Resources(), resource), cases...) })
	}
	slice := func(more string) string {
		return `{metadata: {name: s}, spec: {driver: d, nodeName: node, pool: {name: p, resourceSliceCount: 1}, ` + more + `}}`
	}
	device := func(more string) string { return slice(`devices: [{name: a, ` + more + `}]`) }
	run("resourceslices",
		rowtest.Case{Name: "another driver", Object: slice(``), Update: `{spec: {driver: e, nodeName: other, pool: {name: q}}}`, Errors: []string{
			`spec.driver: Invalid value: "e": field is immutable`, `spec.nodeName: Invalid value: "other": field is immutable`, `spec.pool.name: Invalid value: "q": field is immutable`}},
		rowtest.Case{Name: "counters", Object: slice(`sharedCounters: [{name: c, counters: {a: {value: 1}}}, {name: c}, {counters: {A: {value: 1}}}]`), Errors: []string{
			"spec.sharedCounters[1].counters: Required value", `spec.sharedCounters[1]: Duplicate value: {"name":"c"}`, "spec.sharedCounters[2].name: Required value",
			`spec.sharedCounters[2].counters: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`}},
		rowtest.Case{Name: "both", Object: slice(`sharedCounters: [{name: c, counters: {a: {value: 1}}}], devices: [{name: a}]`), Errors: []string{
			"spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed"}},
		rowtest.Case{Name: "consumption", Object: device(`consumesCounters: [{counterSet: c, counters: {a: {value: 1}}}, {counterSet: c, counters: {a: {value: 1}}}]`), Errors: []string{
			`spec.devices[0].consumesCounters[1]: Duplicate value: {"counterSet":"c","counters":{"a":{"value":"1"}}}`}},
		rowtest.Case{Name: "device twice", Object: slice(`devices: [{name: a}, {name: a}]`), Errors: []string{`spec.devices[1]: Duplicate value: "a"`}},
		rowtest.Case{Name: "attributes", Object: device(`attributes: {a/b: {version: v1.0.0}, example.com/: {int: 1}, c: {int: 1, bool: true}}`), Errors: []string{
			`spec.devices[0].attributes[a/b].version: Invalid value: "v1.0.0": must be a string compatible with semver.org spec 2.0.0`,
			`spec.devices[0].attributes[example.com/]: Invalid value: "": the name must not be empty`,
			"spec.devices[0].attributes[c]: Invalid value: \"{int, bool}\": must specify exactly one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`"}},
		rowtest.Case{Name: "capacity of one", Object: device(`capacity: {memory: {value: 1Gi, requestPolicy: {}}}`), Errors: []string{
			"spec.devices[0].capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true"}},
		rowtest.Case{Name: "values", Object: device(`allowMultipleAllocations: true, capacity: {memory: {value: "4", requestPolicy: {default: "3", validValues: ["2", "1", "8"]}}}`), Errors: []string{
			`spec.devices[0].capacity[memory].requestPolicy.validValues[1]: Invalid value: "1": values must be sorted in ascending order`,
			`spec.devices[0].capacity[memory].requestPolicy.validValues[2]: Invalid value: "8": option is larger than capacity value: 4`,
			`spec.devices[0].capacity[memory].requestPolicy.validValues: Invalid value: "3": default value is not valid according to the requestPolicy`}},
		rowtest.Case{Name: "range", Object: device(`allowMultipleAllocations: true, capacity: {memory: {value: "4", requestPolicy: {default: "1", validRange: {min: "2", max: "5", step: "2"}}}}`), Errors: []string{
			`spec.devices[0].capacity[memory].requestPolicy.validRange.min: Invalid value: "1": default is less than min: 2`,
			`spec.devices[0].capacity[memory].requestPolicy.validRange.max: Invalid value: "5": max is larger than capacity value: 4`,
			`spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: "1": value is not a multiple of a given step (2) from (2)`,
			`spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: "5": value is not a multiple of a given step (2) from (2)`}},
		rowtest.Case{Name: "taints and conditions", Object: device(`taints: [{key: a, effect: Odd}], bindingConditions: [a, a]`), Errors: []string{
			`spec.devices[0].taints[0].effect: Unsupported value: "Odd": supported values: "NoExecute", "NoSchedule", "None"`,
			`spec.devices[0].bindingConditions[1]: Duplicate value: "a"`,
			`spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions`}},
		rowtest.Case{Name: "alpha", Object: slice(`partitionTypeAttribute: a/b, skipNodeOperations: [NodePrepareResources], devices: [{name: a, attributes: {a: {ints: [1]}, b: {int: 1}},
			consumesCounters: [{counterSet: c, counters: {a: {value: 1}}, compatibilityGroups: [g]}], nodeAllocatableResources: {cpu: {}}}]`), Errors: []string{
			"spec.devices[0].attributes[a]: Invalid value: \"\": must specify one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`"},
			Check: func(t *testing.T, obj runtime.Object) {
				s := obj.(*v1.ResourceSlice).Spec
				if d := s.Devices[0]; s.PartitionTypeAttribute != nil || s.SkipNodeOperations != nil || d.ConsumesCounters[0].CompatibilityGroups != nil || d.NodeAllocatableResources != nil || d.Attributes["a"].IntValues != nil {
					t.Errorf("the slice is %+v", s)
				}
			}},
		rowtest.Case{Name: "lists of old", Object: device(`attributes: {a: {ints: [1]}}`), Update: `{spec: {devices: [{name: a, attributes: {b: {strings: [x]}}}]}}`},
		rowtest.Case{Name: "fractions", Object: device(`allowMultipleAllocations: true, capacity: {cpu: {value: "4", requestPolicy: {default: 500m, validRange: {min: 100m, max: "1", step: 300m}}}}`), Errors: []string{
			`spec.devices[0].capacity[cpu].requestPolicy.validRange.step: Invalid value: "500m": value is not a multiple of a given step (300m) from (100m)`}},
		rowtest.Case{Name: "too many devices", Object: slice(`devices: [` + strings.Repeat(`{name: a, taints: [{key: k, effect: None}]}, `, 64) + `{name: a}]`), Errors: []string{
			"spec.devices: Too many: 65: must have at most 64 items"}},
		rowtest.Case{Name: "own nodes", Object: `{metadata: {name: s}, spec: {driver: d, perDeviceNodeSelection: true, pool: {name: p, resourceSliceCount: 1}, devices: [{name: a, nodeName: ""}, {name: b, nodeName: node, allNodes: true}]}}`, Errors: []string{
			`spec.devices[0].nodeName: Invalid value: "": must not be empty`,
			"spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
			"spec.devices[1]: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"}})
	claim := func(devices string) string { return `{metadata: {name: c}, spec: {devices: {` + devices + `}}}` }
	derived := func(want int) func(*testing.T, runtime.Object) {
		return func(t *testing.T, obj runtime.Object) {
			if got := len(obj.(*v1.ResourceClaim).Spec.Devices.Requests[0].Exactly.DerivedAttributes); got != want {
				t.Errorf("%d derived attributes, want %d", got, want)
			}
		}
	}
	const requests = `requests: [{name: r, exactly: {deviceClassName: c}}]`
	run("resourceclaims",
		rowtest.Case{Name: "constraints", Object: claim(requests + `, constraints: [{}, {matchAttribute: numa}, {requests: [r, r, r/s/t], distinctAttribute: example.com/numa}]`), Errors: []string{
			`spec.devices.constraints[0]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`,
			`spec.devices.constraints[1].matchAttribute: Invalid value: "numa": a fully qualified name must be a domain and a name separated by a slash`,
			`spec.devices.constraints[2].requests[1]: Duplicate value: "r"`,
			`spec.devices.constraints[2].requests[2]: Invalid value: "r/s/t": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'`}},
		rowtest.Case{Name: "requests", Object: claim(`requests: [{name: r, firstAvailable: [{name: s, tolerations: [{key: "a b", operator: Odd, effect: Odd}]}, {name: s, deviceClassName: C}]}]`), Errors: []string{
			`spec.devices.requests[0].firstAvailable[0].deviceClassName: Required value`,
			`spec.devices.requests[0].firstAvailable[0].tolerations[0].key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			`spec.devices.requests[0].firstAvailable[0].tolerations[0].operator: Unsupported value: "Odd": supported values: "Equal", "Exists"`,
			`spec.devices.requests[0].firstAvailable[0].tolerations[0].effect: Unsupported value: "Odd": supported values: "NoExecute", "NoSchedule", "None"`,
			`spec.devices.requests[0].firstAvailable[1].deviceClassName: Invalid value: "C": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			`spec.devices.requests[0].firstAvailable[1]: Duplicate value: {"name":"s","deviceClassName":"C","allocationMode":"ExactCount","count":1}`}},
		rowtest.Case{Name: "too many constraints", Object: claim(requests + `, constraints: [` + strings.Repeat(`{}, `, 32) + `{}]`), Errors: []string{
			"spec.devices.constraints: Too many: 33: must have at most 32 items"}},
		rowtest.Case{Name: "derived attributes", Object: claim(`requests: [{name: r, exactly: {deviceClassName: c, derivedAttributes: [{}]}}]`), Check: derived(0)},
		rowtest.Case{Name: "derived attributes of old", Object: claim(`requests: [{name: r, exactly: {deviceClassName: c, derivedAttributes: [{name: a/b, expression: x}]}}]`), Update: `{metadata: {labels: {a: b}}}`, Check: derived(1)},
		rowtest.Case{Name: "skipped operations", Object: claim(requests), Status: `{allocation: {devices: {results: [{request: r, driver: d, pool: p, device: a, skipNodeOperations: [NodePrepareResources]}]}}}`, Check: func(t *testing.T, obj runtime.Object) {
			if r := obj.(*v1.ResourceClaim).Status.Allocation.Devices.Results[0]; r.SkipNodeOperations != nil {
				t.Errorf("the result is %+v", r)
			}
		}},
		rowtest.Case{Name: "another class", Object: claim(requests), Update: `{spec: {devices: {requests: [{name: r, exactly: {deviceClassName: d}}]}}}`, Errors: []string{
			"spec: Invalid value: null: field is immutable"}},
		rowtest.Case{Name: "allocation", Object: claim(requests), Status: `{allocation: {devices: {results: [{request: r, driver: d, pool: p, device: a}]}}, devices: [{driver: d, pool: p, device: a, networkData: {ips: [10.0.0.1/24]}}], reservedFor: [{resource: pods, name: a, uid: a}]}`},
		rowtest.Case{Name: "wrong allocation", Object: claim(requests), Status: `{allocation: {devices: {results: [{request: x, driver: d, pool: p, device: a, shareID: A}], config: [{source: Odd}]}}, devices: [{driver: d, pool: p, device: b, networkData: {ips: [10.0.0.1]}}], reservedFor: [{uid: a}]}`, Errors: []string{
			`status.allocation.devices.results[0].request: Invalid value: "x": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'`,
			`status.allocation.devices.results[0].shareID: Invalid value: "A": must be a lowercase UUID in 8-4-4-4-12 format`,
			`status.allocation.devices.config[0].source: Unsupported value: "Odd": supported values: "FromClaim", "FromClass"`,
			`status.allocation.devices.config[0].opaque: Required value`,
			`status.devices[0]: Invalid value: "d/p/b": must be an allocated device in the claim`,
			`status.devices[0].networkData.ips[0]: Invalid value: "10.0.0.1": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)`,
			"status.reservedFor[0].name: Required value", "status.reservedFor[0].resource: Required value"}})
	run("deviceclasses",
		rowtest.Case{Name: "costly", Object: `{metadata: {name: c}, spec: {selectors: [{cel: {expression: "device.attributes['d'].map(e, device.attributes['d'].map(d, device.attributes['d'].map(c, device.attributes['d'].map(b, device.attributes['d'].map(a, a).size()).size()).size()).size()).size() > 0"}}]}}`, Errors: []string{
			"spec.selectors[0].cel.expression: Forbidden: too complex, exceeds cost limit"}},
		rowtest.Case{Name: "extended resource", Object: `{metadata: {name: c}, spec: {extendedResourceName: kubernetes.io/gpu}}`, Errors: []string{
			`spec.extendedResourceName: Invalid value: "kubernetes.io/gpu": must not have "kubernetes.io/" domain`}})
}
