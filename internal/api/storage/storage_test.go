package storage

import (
	"testing"
	"time"

	v1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestValidation(t *testing.T) {
	for name, c := range map[string]struct {
		resource, object string
		want             []string
	}{
		"class": {"storageclasses", `{metadata: {name: a}, provisioner: example.com/x}`, nil},
		"class of nothing": {"storageclasses", `{metadata: {name: a}}`, []string{
			`provisioner: Required value`}},
		"class with bad choices": {"storageclasses", `{provisioner: x, reclaimPolicy: Recycle, volumeBindingMode: Later}`, []string{
			`reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"`,
			`volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer"`}},
		"class with a topology twice": {"storageclasses", `{provisioner: x, allowedTopologies: [
			{matchLabelExpressions: [{key: zone, values: [a, a]}]}, {matchLabelExpressions: [{key: zone, values: [a]}]}]}`, []string{
			`allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: "a"`,
			`allowedTopologies[1].matchLabelExpressions: Duplicate value: ""`}},
		"attachment": {"volumeattachments", `{spec: {attacher: csi.example.com, nodeName: node, source: {persistentVolumeName: pv}}}`, nil},
		"attachment of nothing": {"volumeattachments", `{spec: {attacher: csi.example.com, nodeName: node, source: {}}}`, []string{
			`spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName`}},
		"driver": {"csidrivers", `{metadata: {name: csi.example.com}, spec: {}}`, nil},
		"driver with tokens": {"csidrivers", `{metadata: {name: csi.example.com}, spec: {tokenRequests: [{audience: a, expirationSeconds: 1}, {audience: a}]}}`, []string{
			`spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes`,
			`spec.tokenRequests[1].audience: Duplicate value: "a"`}},
		"node": {"csinodes", `{spec: {drivers: [{name: d, nodeID: ""}, {name: d, nodeID: n, allocatable: {count: -1}}]}}`, []string{
			`spec.drivers[0].nodeID: Required value`,
			`spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0`,
			`spec.drivers[1].name: Duplicate value: "d"`}},
		"capacity": {"csistoragecapacities", `{storageClassName: UP, capacity: "-1"}`, []string{
			`capacity: Invalid value: "-1": must be greater than or equal to 0`,
			`storageClassName: Invalid value: "UP": ` + validation.IsDNS1123Subdomain("UP")[0]}},
		"attributes": {"volumeattributesclasses", `{driverName: d.example.com}`, []string{
			`parameters: Required value: must contain at least one key/value pair`}},
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
		"class": {"storageclasses", `{provisioner: a, parameters: {a: b}}`, `{provisioner: c, reclaimPolicy: Retain, volumeBindingMode: WaitForFirstConsumer}`, []string{
			`parameters: Invalid value: null: field is immutable`,
			`provisioner: Invalid value: null: field is immutable`,
			`reclaimPolicy: Invalid value: null: field is immutable`,
			`volumeBindingMode: Invalid value: null: field is immutable`}},
		"driver may change what is mutable": {"csidrivers", `{metadata: {name: d}, spec: {}}`, `{metadata: {name: d}, spec: {podInfoOnMount: true, requiresRepublish: true}}`, nil},
		"node may change an allocatable":    {"csinodes", `{spec: {drivers: [{name: d, nodeID: n}]}}`, `{spec: {drivers: [{name: d, nodeID: n, allocatable: {count: 3}}]}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := rowtest.Find(t, Resources(), c.resource)
			rowtest.Expect(t, r.ValidateUpdate(rowtest.Object(t, r, c.object), rowtest.Object(t, r, c.old)), c.want...)
		})
	}
}

func TestDefaultClassIsMarked(t *testing.T) {
	r := rowtest.Find(t, Resources(), "storageclasses")
	cells := r.Cells(rowtest.Object(t, r, `{metadata: {name: a, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}, provisioner: x}`), time.Now())
	if cells[0] != "a (default)" || cells[2] != "Delete" || cells[3] != "Immediate" || cells[4] != false {
		t.Errorf("cells are %v", cells)
	}
}

func TestStatusOfAttachment(t *testing.T) {
	r := rowtest.Find(t, Resources(), "volumeattachments")
	obj := rowtest.Object(t, r, `{spec: {attacher: a, nodeName: node, source: {persistentVolumeName: pv}}, status: {attached: true}}`).(*v1.VolumeAttachment)
	r.PrepareForCreate(obj)
	if obj.Status.Attached {
		t.Error("a new attachment may say that it is attached")
	}
	next := obj.DeepCopy()
	next.Status.Attached, next.Spec.NodeName = true, "other"
	r.Status.PrepareForUpdate(next, obj)
	if !next.Status.Attached || next.Spec.NodeName != "node" {
		t.Errorf("a status update gives %+v", next)
	}
}

func TestWrites(t *testing.T) {
	const attachment = `{metadata: {name: a, labels: {a: b}}, spec: {attacher: csi.example.com, nodeName: node, source: {persistentVolumeName: pv}}}`
	run := func(resource string, cases ...rowtest.Case) {
		t.Run(resource, func(t *testing.T) { rowtest.Run(t, rowtest.Find(t, Resources(), resource), cases...) })
	}
	run("storageclasses",
		rowtest.Case{Name: "old label", Object: `{metadata: {name: c}, provisioner: x, allowedTopologies: [{matchLabelExpressions: [{key: beta.kubernetes.io/os, values: [a]}]}]}`, Warnings: []string{
			`allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.14; use "kubernetes.io/os" instead`}})
	run("volumeattachments",
		rowtest.Case{Name: "of nobody", Object: `{metadata: {name: a}, spec: {nodeName: node, source: {persistentVolumeName: pv}}}`, Errors: []string{"spec.attacher: Required value"}},
		rowtest.Case{Name: "elsewhere", Object: attachment, Update: `{spec: {nodeName: other}}`, Errors: []string{
			`spec: Invalid value: null: field is immutable`}},
		rowtest.Case{Name: "status", Object: attachment, Status: `{attached: true, attachError: {errorCode: -1}}`, Errors: []string{
			"status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"}})
	run("csidrivers",
		rowtest.Case{Name: "choices", Object: `{metadata: {name: d}, spec: {fsGroupPolicy: Odd, volumeLifecycleModes: [Odd], nodeAllocatableUpdatePeriodSeconds: 9}}`, Errors: []string{
			`spec.fsGroupPolicy: Unsupported value: "Odd": supported values: "File", "None", "ReadWriteOnceWithFSType"`,
			`spec.volumeLifecycleModes: Unsupported value: "Odd": supported values: "Persistent", "Ephemeral"`,
			`spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds`}},
		rowtest.Case{Name: "modes", Object: `{metadata: {name: d}, spec: {}}`, Update: `{spec: {attachRequired: false, volumeLifecycleModes: [Ephemeral]}}`, Errors: []string{
			"spec.attachedRequired: Invalid value: false: field is immutable", `spec.volumeLifecycleModes: Invalid value: ["Ephemeral"]: field is immutable`}})
	run("csinodes",
		rowtest.Case{Name: "another identity", Object: `{metadata: {name: node}, spec: {drivers: [{name: d, nodeID: a}]}}`, Update: `{spec: {drivers: [{name: d, nodeID: b}]}}`, Errors: []string{
			`spec.drivers: Invalid value: {"name":"d","nodeID":"b","topologyKeys":null}: field is immutable`}})
	run("csistoragecapacities",
		rowtest.Case{Name: "another class", Object: `{metadata: {name: c}, storageClassName: a}`, Update: `{storageClassName: b, capacity: 1Gi}`, Errors: []string{`storageClassName: Invalid value: "b": field is immutable`}})
	run("volumeattributesclasses",
		rowtest.Case{Name: "other parameters", Object: `{metadata: {name: c}, driverName: d.example.com, parameters: {a: b}}`, Update: `{driverName: e.example.com, parameters: {a: c}}`, Errors: []string{
			"driverName: Forbidden: updates to driverName are forbidden.", "parameters: Forbidden: updates to parameters are forbidden."}})
}
