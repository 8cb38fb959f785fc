package coordination

import (
	"testing"

	v1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestLeases(t *testing.T) {
	lease := func(spec string) string { return `{metadata: {name: l}, spec: {` + spec + `}}` }
	elected := func(want bool) func(*testing.T, runtime.Object) {
		return func(t *testing.T, obj runtime.Object) {
			if s := obj.(*v1.Lease).Spec; (s.Strategy != nil) != want || (s.PreferredHolder != nil) != want {
				t.Errorf("the spec is %+v", s)
			}
		}
	}
	const election = `strategy: OldestEmulationVersion, preferredHolder: a`
	rowtest.Run(t, Resources()[0], []rowtest.Case{
		{Name: "held", Object: lease(`holderIdentity: me, leaseDurationSeconds: 15, leaseTransitions: 0, renewTime: "2026-01-02T03:04:05.000006Z"`)},
		{Name: "nothing", Object: lease(``)},
		{Name: "numbers", Object: lease(`leaseDurationSeconds: 0, leaseTransitions: -1`), Errors: []string{
			"spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
			"spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"}},
		{Name: "coordinated", Object: lease(election), Check: elected(false)},
		{Name: "coordinated of old", Object: lease(election), Update: `{spec: {holderIdentity: b}}`, Check: elected(true)},
		{Name: "odd strategy", Object: lease(election), Update: `{spec: {strategy: Odd}}`, Errors: []string{
			`spec.strategy: Unsupported value: "Odd": supported values: "OldestEmulationVersion"`}},
		{Name: "strategy of another", Object: lease(election), Update: `{spec: {strategy: example.com/mine}}`},
		{Name: "badly named strategy", Object: lease(election), Update: `{spec: {strategy: a/b/c}}`, Errors: []string{
			`spec.strategy: Invalid value: "a/b/c": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`}},
		{Name: "preferred without a strategy", Object: lease(election), Update: `{spec: {strategy: null}}`, Errors: []string{
			"spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"}},
	}...)
}
