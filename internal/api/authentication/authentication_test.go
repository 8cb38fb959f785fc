package authentication

import (
	"testing"

	v1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestTokenRequests(t *testing.T) {
	const webhook = `boundObjectRef: {apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, name: a}, `
	for spec, want := range map[string][]string{
		``:                              nil,
		`expirationSeconds: 600`:        nil,
		`expirationSeconds: 4294967296`: nil,
		`expirationSeconds: 599`:        {"spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"},
		`expirationSeconds: 4294967297`: {"spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds"},
		`attestations: {a: [b]}`:        {`spec.attestations: Invalid value: "": attestations may not be specified without a bound object reference`},
		`attestations: {a: [b]}, boundObjectRef: {kind: Pod}`:               {`spec.attestations: Invalid value: "Pod": attestations may not be specified when bound object ref is of kind Pod`},
		webhook + `attestations: {a: [b], b: []}`:                           {`spec.attestations: Invalid value: "a": may not specify an unknown key`, `spec.attestations: Invalid value: "b": may not specify empty value`},
		webhook + `attestations: {admissionReviewAPIGroups: [apps, batch]}`: {`spec.attestations.admissionReviewAPIGroups: Invalid value: "admissionReviewAPIGroups": must specify a single value`},
		webhook + `attestations: {admissionReviewAPIGroups: [""]}`:          {`spec.attestations.admissionReviewAPIGroups: Invalid value: "admissionReviewAPIGroups": may not be an empty string`},
		webhook + `attestations: {admissionReviewAPIGroups: [apps]}`:        nil,
	} {
		t.Run(spec, func(t *testing.T) {
			var r v1.TokenRequest
			if err := yaml.UnmarshalStrict([]byte(`{spec: {`+spec+`}}`), &r); err != nil {
				t.Fatal(err)
			}
			DefaultTokenRequest(&r)
			rowtest.Expect(t, ValidateTokenRequest(&r), want...)
		})
	}
}
