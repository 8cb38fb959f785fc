package podspec

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	unversionedvalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api/signername"
)

// validateVolumes also keeps the good volumes, which containers may mount.
func (c *checker) validateVolumes(at *field.Path) (errs field.ErrorList) {
	list := c.spec.Volumes
	if len(list) == 0 {
		return nil
	}
	c.volumes = make(map[string]*v1.VolumeSource, len(list))
	for i := range list {
		v, at := &list[i], at.Index(i)
		bad := c.source(&v.VolumeSource, v.Name, at)
		if v.Name == "" {
			bad = append(bad, field.Required(at.Child("name"), ""))
		} else {
			bad = append(bad, conforms(v.Name, validation.IsDNS1123Label, at, "name")...)
		}
		if c.volumes[v.Name] != nil {
			bad = append(bad, field.Duplicate(at.Child("name"), v.Name))
		}
		if len(bad) == 0 {
			c.volumes[v.Name] = &v.VolumeSource
		}
		errs = append(errs, bad...)
		if claim := v.PersistentVolumeClaim; claim != nil && c.makesClaim(claim.ClaimName) {
			errs = append(errs, field.Invalid(at.Child("persistentVolumeClaim", "claimName"), claim.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume"))
		}
	}
	return errs
}

// makesClaim reports whether the claim is made for an ephemeral volume of the
// pod.
func (c *checker) makesClaim(claim string) bool {
	if c.podName() == "" {
		return false
	}
	volume, ok := strings.CutPrefix(claim, c.podName()+"-")
	if !ok {
		return false
	}
	for i := range c.spec.Volumes {
		if v := &c.spec.Volumes[i]; v.Ephemeral != nil && v.Name == volume {
			return true
		}
	}
	return false
}

// validateDownward checks what a volume shows of its pod.
func validateDownward(items []v1.DownwardAPIVolumeFile, at *field.Path) (errs field.ErrorList) {
	for i := range items {
		item := &items[i]
		errs = append(errs, required(item.Path, at, "path")...)
		errs = append(errs, validateFile(item.Path, at, "path")...)
		switch {
		case item.FieldRef != nil:
			errs = append(errs, validateFieldRef(item.FieldRef, volumeFields, at.Child("fieldRef"))...)
			if item.ResourceFieldRef != nil {
				errs = append(errs, field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
			}
		case item.ResourceFieldRef != nil:
			errs = append(errs, validateResourceRef(item.ResourceFieldRef, true, at.Child("resourceFieldRef"))...)
		default:
			errs = append(errs, field.Required(at, "one of fieldRef and resourceFieldRef is required"))
		}
		errs = append(errs, validateMode(item.Mode, at, "mode")...)
	}
	return errs
}

// projection checks the sources that are projected into one folder.
type projection struct {
	at    *field.Path
	files sets.Set[string]
	errs  field.ErrorList
}

func (p *projection) add(errs field.ErrorList) { p.errs = append(p.errs, errs...) }

// file is projected by the object called owner, or by the source itself.
func (p *projection) file(path string, owner any) {
	if path == "" {
		return
	}
	if p.files.Has(path) {
		p.errs = append(p.errs, field.Invalid(p.at, owner, "conflicting duplicate paths"))
	}
	p.files.Insert(path)
}

// object is a secret or config map, whose keys become files.
func (p *projection) object(name string, items []v1.KeyToPath, at *field.Path, child string) {
	p.add(required(name, at, child, "name"))
	p.add(validateItems(items, at, child, "items"))
	for i := range items {
		p.file(items[i].Path, name)
	}
}

func validateProjected(s *v1.ProjectedVolumeSource, at *field.Path) field.ErrorList {
	p := projection{at: at, files: sets.New[string]()}
	p.add(validateMode(s.DefaultMode, at, "defaultMode"))
	for i := range s.Sources {
		s, at := &s.Sources[i], at.Child("sources").Index(i)
		n := 0
		if s.Secret != nil {
			n++
			p.object(s.Secret.Name, s.Secret.Items, at, "secret")
		}
		if s.ConfigMap != nil {
			n++
			p.object(s.ConfigMap.Name, s.ConfigMap.Items, at, "configMap")
		}
		if d := s.DownwardAPI; d != nil {
			n++
			p.add(validateDownward(d.Items, at.Child("downwardAPI")))
			for i := range d.Items {
				p.file(d.Items[i].Path, d.Items[i].Path)
			}
		}
		if s.ServiceAccountToken != nil {
			n++
			p.token(s.ServiceAccountToken, at.Child("serviceAccountToken"))
		}
		if s.ClusterTrustBundle != nil {
			n++
			p.trustBundle(s.ClusterTrustBundle, at.Child("clusterTrustBundle"))
		}
		if s.PodCertificate != nil {
			n++
			p.certificate(s.PodCertificate, at.Child("podCertificate"))
		}
		if n > 1 {
			p.errs = append(p.errs, field.Forbidden(at, "may not specify more than 1 volume type per source"))
		}
	}
	return p.errs
}

// token checks the projection of a token. Errors in its path are reported at
// the volume, not at the source.
func (p *projection) token(t *v1.ServiceAccountTokenProjection, at *field.Path) {
	if e := t.ExpirationSeconds; e != nil && *e < 10*60 {
		p.errs = append(p.errs, field.Invalid(at.Child("expirationSeconds"), *e, "may not specify a duration less than 10 minutes"))
	} else if e != nil && *e > 1<<32 {
		p.errs = append(p.errs, field.Invalid(at.Child("expirationSeconds"), *e, "may not specify a duration larger than 2^32 seconds"))
	}
	p.add(required(t.Path, p.at, "path"))
	p.add(validateFile(t.Path, p.at, "path"))
}

func (p *projection) trustBundle(b *v1.ClusterTrustBundleProjection, at *field.Path) {
	switch {
	case b.Name != nil && b.SignerName != nil:
		p.errs = append(p.errs, field.Invalid(at, b, "only one of name and signerName may be used"))
	case b.Name != nil:
		if *b.Name == "" {
			p.errs = append(p.errs, field.Required(at.Child("name"), "must be a valid object name"))
		}
		// The signer's name, if any, is what comes before the last colon.
		for _, msg := range validation.IsDNS1123Subdomain((*b.Name)[strings.LastIndex(*b.Name, ":")+1:]) {
			p.errs = append(p.errs, field.Invalid(at.Child("name"), *b.Name, fmt.Sprintf("not a valid clustertrustbundlename: %v", msg)))
		}
		if b.LabelSelector != nil {
			p.errs = append(p.errs, field.Invalid(at.Child("labelSelector"), b.LabelSelector, "labelSelector must be unset if name is specified"))
		}
	case b.SignerName != nil:
		if *b.SignerName == "" {
			p.errs = append(p.errs, field.Required(at.Child("signerName"), "must be a valid signer name"))
		}
		p.add(signername.Validate(*b.SignerName, at.Child("signerName")))
		p.add(unversionedvalidation.ValidateLabelSelector(b.LabelSelector, unversionedvalidation.LabelSelectorValidationOptions{}, at.Child("labelSelector")))
	default:
		p.errs = append(p.errs, field.Required(at, "either name or signerName must be specified"))
	}
	p.add(required(b.Path, at, "path"))
	p.add(validateFile(b.Path, at, "path"))
	p.file(b.Path, b.Path)
}

// The keys that a node can make for a pod's certificate, and the life that may
// be asked for it.
var certificateKeys = []string{"RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"}

const (
	minCertificateLife = 60 * 60
	maxCertificateLife = 91 * 24 * 60 * 60
)

func (p *projection) certificate(s *v1.PodCertificateProjection, at *field.Path) {
	p.add(signername.Validate(s.SignerName, at.Child("signerName")))
	p.add(among(s.KeyType, certificateKeys, at, "keyType"))
	if life := s.MaxExpirationSeconds; life != nil && *life < minCertificateLife {
		p.errs = append(p.errs, field.Invalid(at.Child("maxExpirationSeconds"), *life, fmt.Sprintf("if provided, maxExpirationSeconds must be >= %d", minCertificateLife)))
	} else if life != nil && *life > maxCertificateLife {
		p.errs = append(p.errs, field.Invalid(at.Child("maxExpirationSeconds"), *life, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", maxCertificateLife)))
	}
	if s.CredentialBundlePath == "" && s.KeyPath == "" && s.CertificateChainPath == "" {
		p.errs = append(p.errs, field.Required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
	for _, f := range [...]struct{ name, path string }{{"credentialBundlePath", s.CredentialBundlePath}, {"keyPath", s.KeyPath}, {"certificateChainPath", s.CertificateChainPath}} {
		p.add(validateFile(f.path, at, f.name))
		p.file(f.path, f.path)
	}
}

// validateItems checks the items at a child of at.
func validateItems(items []v1.KeyToPath, at *field.Path, name string, more ...string) (errs field.ErrorList) {
	for i := range items {
		item, at := &items[i], at.Child(name, more...).Index(i)
		errs = append(errs, required(item.Key, at, "key")...)
		errs = append(errs, required(item.Path, at, "path")...)
		errs = append(errs, validateFile(item.Path, at, "path")...)
		errs = append(errs, validateMode(item.Mode, at, "mode")...)
	}
	return errs
}

func validateMode(mode *int32, at *field.Path, name string, more ...string) field.ErrorList {
	if mode != nil && (*mode > 0o777 || *mode < 0) {
		return field.ErrorList{field.Invalid(at.Child(name, more...), *mode, "must be a number between 0 and 0777 (octal), both inclusive")}
	}
	return nil
}
