package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/certificates/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
	"keelson.dev/keelson/internal/api/signername"
)

// maxBundle is the size of a trust bundle in bytes.
const maxBundle = 1 << 20

func trustBundles() *api.Resource {
	r := api.Resource{
		Columns: []metav1.TableColumnDefinition{
			row.Name(), row.String("SignerName", v1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"]),
		},
	}
	// What a name has to be depends on the signer: validateBundle checks it.
	r.ValidateName = row.ValidatePathSegment
	r.RequireResourceVersion = true
	r.FieldLabels = []string{"spec.signerName"}
	return row.New[v1.ClusterTrustBundleList](v1.SchemeGroupVersion, r, row.Kind[*v1.ClusterTrustBundle]{
		Spec:     func(b *v1.ClusterTrustBundle) any { return &b.Spec },
		Validate: func(b *v1.ClusterTrustBundle) field.ErrorList { return validateBundle(b, nil) },
		ValidateUpdate: func(b, old *v1.ClusterTrustBundle) field.ErrorList {
			return append(validateBundle(b, old),
				apivalidation.ValidateImmutableField(b.Spec.SignerName, old.Spec.SignerName, field.NewPath("spec", "signerName"))...)
		},
		Fields: func(b *v1.ClusterTrustBundle) fields.Set { return fields.Set{"spec.signerName": b.Spec.SignerName} },
		Cells: func(b *v1.ClusterTrustBundle, _ time.Time) []any {
			signer := "<none>"
			if b.Spec.SignerName != "" {
				signer = b.Spec.SignerName
			}
			return []any{b.Name, signer}
		},
	})
}

// validateBundle checks a bundle; one that old (nil for a new one) has already is
// not parsed again, because what parses may change with the library.
func validateBundle(b, old *v1.ClusterTrustBundle) (errs field.ErrorList) {
	metadata, spec := field.NewPath("metadata"), field.NewPath("spec")
	if b.Name != "" {
		for _, msg := range signername.ValidateBundleName(b.Spec.SignerName, b.Name, false) {
			errs = append(errs, field.Invalid(metadata.Child("name"), b.Name, msg))
		}
	}
	if b.GenerateName != "" {
		for _, msg := range signername.ValidateBundleName(b.Spec.SignerName, b.GenerateName, true) {
			errs = append(errs, field.Invalid(metadata.Child("generateName"), b.GenerateName, msg))
		}
	}
	if b.Spec.SignerName != "" {
		errs = append(errs, signername.Validate(b.Spec.SignerName, spec.Child("signerName"))...)
	}
	if old == nil || b.Spec.TrustBundle != old.Spec.TrustBundle {
		errs = append(errs, validateAnchors(b.Spec.TrustBundle, spec.Child("trustBundle"))...)
	}
	return errs
}

// validateAnchors wants certificates of authorities in PEM, each once, without headers.
func validateAnchors(text string, at *field.Path) (errs field.ErrorList) {
	if len(text) > maxBundle {
		return field.ErrorList{field.TooLong(at, "", maxBundle)}
	}
	invalid := func(format string, args ...any) {
		errs = append(errs, field.Invalid(at, "<value omitted>", fmt.Sprintf(format, args...)))
	}
	seen := map[string][]int{}
	for i, rest := 0, []byte(text); ; i++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type != certificateBlock:
			invalid("entry %d has bad block type: %v", i, block.Type)
			continue
		case len(block.Headers) != 0:
			invalid("entry %d has PEM block headers", i)
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			invalid("entry %d does not parse as X.509", i)
		case !cert.IsCA:
			invalid("entry %d does not have the CA bit set", i)
		case !cert.BasicConstraintsValid:
			invalid("entry %d has invalid basic constraints", i)
		default:
			seen[string(block.Bytes)] = append(seen[string(block.Bytes)], i)
		}
	}
	if len(errs) > 0 {
		return errs
	}
	if len(seen) == 0 {
		invalid("at least one trust anchor must be provided")
	}
	for _, entries := range slices.SortedFunc(maps.Values(seen), slices.Compare) {
		if len(entries) > 1 {
			invalid("duplicate trust anchor (indices %v)", entries)
		}
	}
	return errs
}
