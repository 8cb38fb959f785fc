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
		"class": {"storageclasses", `{provisioner: x, parameters: {a: b}}`, `{provisioner: y, reclaimPolicy: Retain, volumeBindingMode: WaitForFirstConsumer}`, []string{
			`parameters: Forbidden: updates to parameters are forbidden.`,
			`provisioner: Forbidden: updates to provisioner are forbidden.`,
			`reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.`,
			`volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable`}},
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
