package resource

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
			`spec.devices.requests[1].name: Duplicate value: "r"`}},
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
			`spec.devices[0].attributes[m]: Required value: exactly one value must be specified`,
			`spec.devices[0].name: Invalid value: "UP_": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			"spec.devices[1]: Invalid value: \"\": may not be set unless `perDeviceNodeSelection` is set to true in the ResourceSlice"}},
		"slice of many places": {"resourceslices", `{spec: {driver: d, nodeName: n, allNodes: true, pool: {name: p, resourceSliceCount: 1}}}`, []string{
			"spec: Invalid value: \"{`allNodes`, `nodeName`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"}},
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
	if errs := r.Status.ValidateUpdate(moved, allocated); len(errs) != 1 || errs[0].Field != "status.allocation" || errs[0].Detail != "field is immutable" {
		t.Errorf("errors of a moved allocation are %v", errs)
	}

	dying := allocated.DeepCopy()
	dying.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	dying.Status.ReservedFor = append(dying.Status.ReservedFor, v1.ResourceClaimConsumerReference{Resource: "pods", Name: "q", UID: "2"})
	rowtest.Expect(t, r.Status.ValidateUpdate(dying, allocated), "status.reservedFor: Forbidden: new entries may not be added while `deletionTimestamp` or `deallocationRequested` are set")

	freed := allocated.DeepCopy()
	freed.Status.Allocation, freed.Status.Devices = nil, []v1.AllocatedDeviceStatus{{Driver: "d", Pool: "p", Device: "gpu-0"}}
	r.Status.PrepareForUpdate(freed, allocated)
	if freed.Status.Devices != nil {
		t.Error("the devices' statuses outlive the allocation")
	}
}

func TestDefaults(t *testing.T) {
	c := rowtest.Object(t, rowtest.Find(t, Resources(), "resourceclaims"), `{spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c, tolerations: [{key: k}]}}]}}}`).(*v1.ResourceClaim)
	if e := c.Spec.Devices.Requests[0].Exactly; e.AllocationMode != "ExactCount" || e.Count != 1 || e.Tolerations[0].Operator != "Equal" {
		t.Errorf("the request is %+v", e)
	}
}
