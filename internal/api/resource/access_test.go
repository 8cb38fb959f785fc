package resource

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/internal/api/rowtest"
)

// asked returns a request in namespace ns, by an account whose token is bound to
// node-1, with the permissions in may, each a verb and a subresource.
func asked(verb, subresource string, labels map[string]string, may ...string) rowtest.Request {
	return rowtest.Request{
		As:    &user.DefaultInfo{Name: "system:serviceaccount:ns:driver", Extra: map[string][]string{serviceaccount.NodeNameKey: {"node-1"}}},
		Asked: authorizer.AttributesRecord{Verb: verb, Namespace: "ns", APIGroup: v1.GroupName, APIVersion: "v1", Resource: "resourceclaims", Subresource: subresource, Name: "c", ResourceRequest: true},
		May: func(a authorizer.AttributesRecord) bool {
			return slices.Contains(may, a.Verb+" "+a.Subresource+" "+a.Namespace+"/"+a.Name)
		},
		Objects: map[string]runtime.Object{"namespaces//ns": &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", Labels: labels}}},
	}
}

func TestAdminAccess(t *testing.T) {
	const (
		want = "spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
		spec = `spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c, adminAccess: true}}]}}`
	)
	admin := map[string]string{v1.DRAAdminNamespaceLabelKey: "true"}
	for resource, text := range map[string]string{"resourceclaims": `{` + spec + `}`, "resourceclaimtemplates": `{spec: {` + spec + `}}`} {
		r := rowtest.Find(t, Resources(), resource)
		obj := rowtest.Object(t, r, text)
		rowtest.Expect(t, r.ValidateRequest(asked("create", "", nil), obj, nil), want)
		rowtest.Expect(t, r.ValidateRequest(asked("create", "", admin), obj, nil))
		rowtest.Expect(t, r.ValidateRequest(asked("update", "", nil), obj, obj))
	}
}

func TestStatusPermissions(t *testing.T) {
	r := rowtest.Find(t, Resources(), "resourceclaims")
	const (
		plain     = `{}`
		reserved  = `{status: {reservedFor: [{resource: pods, name: p, uid: u}]}}`
		reports   = `{status: {devices: [{driver: d, pool: p, device: a}]}}`
		here      = `{status: {allocation: {nodeSelector: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [node-1]}]}]}}}}`
		hereAlso  = `{status: {allocation: {nodeSelector: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [node-1]}]}]}}, devices: [{driver: d, pool: p, device: a}]}}`
		asAdmin   = `{status: {allocation: {devices: {results: [{request: r, driver: d, pool: p, device: a, adminAccess: true}]}}}}`
		mayBind   = "update binding /"
		anywhere  = "arbitrary-node:update driver ns/d"
		onOwnNode = "associated-node:update driver ns/d"
	)
	for _, c := range []struct {
		name, old, obj string
		may            []string
		want           []string
	}{
		{"nothing changes", plain, plain, nil, nil},
		{"a consumer without the permission", plain, reserved, nil,
			[]string{`status: Forbidden: changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="update" permission: no`}},
		{"a consumer", plain, reserved, []string{mayBind}, nil},
		{"a report without the permission", plain, reports, []string{onOwnNode},
			[]string{`status.devices: Forbidden: changing status.devices requires resource="resourceclaims/driver", verb="[arbitrary-node:update]" permission: no`}},
		{"a report", plain, reports, []string{anywhere}, nil},
		{"a report that goes", reports, plain, []string{anywhere}, nil},
		{"a report from the devices' node", here, hereAlso, []string{onOwnNode}, nil},
		{"a report from the devices' node, by one who may from anywhere", here, hereAlso, []string{anywhere}, nil},
		{"an administrator's access in another's namespace", plain, asAdmin, []string{mayBind},
			[]string{"status.allocation.devices.results[0].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"}},
		{"an administrator's access that was there", asAdmin, asAdmin, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			rowtest.Expect(t, r.Status.ValidateRequest(asked("update", "status", nil, c.may...), rowtest.Object(t, r, c.obj), rowtest.Object(t, r, c.old)), c.want...)
		})
	}
}
