package storagemigration

import (
	"testing"
	"time"

	"keelson.dev/keelson/internal/api/rowtest"
)

func condition(t, status string) string {
	return `{type: ` + t + `, status: "` + status + `", reason: R, lastTransitionTime: "2026-01-02T03:04:05Z"}`
}

const shown = `{"type":"Succeeded","status":"True","lastTransitionTime":"2026-01-02T03:04:05Z","reason":"R","message":""}`

func TestMigrations(t *testing.T) {
	const object = `{metadata: {name: m}, spec: {resource: {group: apps, resource: deployments}}`
	cases := []rowtest.Case{
		{Name: "good", Object: object + `}`},
		{Name: "core", Object: `{metadata: {name: m}, spec: {resource: {resource: pods}}}`},
		{Name: "nothing", Object: `{metadata: {name: m}}`, Errors: []string{"spec.resource.resource: Required value: resource is required to be set"}},
		{Name: "names", Object: `{metadata: {name: m}, spec: {resource: {group: A, resource: a/b}}}`, Errors: []string{
			`spec.resource.resource: Invalid value: "a/b": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')`,
			`spec.resource.group: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`}},
		{Name: "another resource", Object: object + `}`, Update: `{spec: {resource: {resource: replicasets}}}`, Errors: []string{
			`spec: Invalid value: {"resource":{"group":"apps","resource":"replicasets"}}: field is immutable`}},
		{Name: "running", Object: object + `}`, Status: `{resourceVersion: "5", conditions: [` + condition("Running", "True") + `]}`},
		{Name: "versions", Object: object + `, status: {resourceVersion: "5"}}`, Status: `{resourceVersion: abc}`, Errors: []string{
			`status.resourceVersion: Invalid value: "abc": resource version is not well formed: abc`, `status.resourceVersion: Invalid value: "abc": field is immutable`}},
		{Name: "no longer succeeded", Object: object + `, status: {resourceVersion: "5", conditions: [` + condition("Succeeded", "True") + `]}}`, Status: `{conditions: []}`, Errors: []string{
			"status.conditions: Invalid value: []: Success condition cannot be set to false once it is true"}},
		{Name: "succeeded and running", Object: object + `}`, Status: `{resourceVersion: "5", conditions: [` + condition("Succeeded", "True") + `, ` + condition("Running", "True") + `]}`, Errors: []string{
			`status.conditions: Invalid value: [` + shown + `,{"type":"Running","status":"True","lastTransitionTime":"2026-01-02T03:04:05Z","reason":"R","message":""}]: Running condition cannot be true when success condition is true`}},
	}
	for _, r := range Resources() {
		t.Run(r.Version, func(t *testing.T) {
			rowtest.Run(t, r, cases...)
			if cells := r.Cells(rowtest.Object(t, r, object+`}`), time.Now()); cells[1] != "deployments.apps" {
				t.Errorf("cells are %v", cells)
			}
		})
	}
}
