package certificates

import (
	"time"

	v1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of certificates.k8s.io/v1.
func Resources() []*api.Resource {
	spec, status := v1.CertificateSigningRequestSpec{}.SwaggerDoc(), v1.CertificateSigningRequestStatus{}.SwaggerDoc()
	r := api.Resource{
		ShortNames: []string{"csr"},
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.Age(),
			row.String("SignerName", spec["signerName"]),
			row.String("Requestor", spec["request"]),
			row.String("RequestedDuration", spec["expirationSeconds"]),
			row.String("Condition", status["conditions"]),
		},
	}
	r.ValidateName = row.ValidatePathSegment
	r.FieldLabels = []string{"spec.signerName"}
	return []*api.Resource{trustBundles(), podRequests(), row.New[v1.CertificateSigningRequestList](v1.SchemeGroupVersion, r, row.Kind[*v1.CertificateSigningRequest]{
		Spec:   func(c *v1.CertificateSigningRequest) any { return &c.Spec },
		Status: func(c *v1.CertificateSigningRequest) any { return &c.Status },
		Updates: map[string]row.Update[*v1.CertificateSigningRequest]{"approval": {
			Prepare: prepareApproval,
			Validate: func(c, old *v1.CertificateSigningRequest) field.ErrorList {
				return validateUpdate(c, old, approvalRules)
			},
		}},
		PrepareForRequest: func(req api.Request, c *v1.CertificateSigningRequest) { setRequester(c, req.User()) },
		// What was asked for never changes: an update is one of the metadata.
		PrepareForUpdate:    func(c, old *v1.CertificateSigningRequest) { c.Spec = old.Spec },
		PrepareStatusUpdate: prepareStatus,
		Validate:            func(c *v1.CertificateSigningRequest) field.ErrorList { return validate(c, nil) },
		ValidateUpdate: func(c, old *v1.CertificateSigningRequest) field.ErrorList {
			return validateUpdate(c, old, mainRules)
		},
		ValidateStatusUpdate: func(c, old *v1.CertificateSigningRequest) field.ErrorList {
			return validateUpdate(c, old, statusRules)
		},
		Fields: func(c *v1.CertificateSigningRequest) fields.Set {
			return fields.Set{"spec.signerName": c.Spec.SignerName}
		},
		Cells: func(c *v1.CertificateSigningRequest, now time.Time) []any {
			signer, life := "<none>", "<none>"
			if c.Spec.SignerName != "" {
				signer = c.Spec.SignerName
			}
			if c.Spec.ExpirationSeconds != nil {
				life = duration.HumanDuration(time.Duration(*c.Spec.ExpirationSeconds) * time.Second)
			}
			return []any{c.Name, row.Created(c, now), signer, c.Spec.Username, life, summary(c)}
		},
	})}
}

// setRequester records in c the user that requests the certificate.
func setRequester(c *v1.CertificateSigningRequest, u user.Info) {
	c.Spec.Username, c.Spec.UID, c.Spec.Groups, c.Spec.Extra = u.GetName(), u.GetUID(), u.GetGroups(), nil
	if extra := u.GetExtra(); len(extra) > 0 {
		c.Spec.Extra = make(map[string]v1.ExtraValue, len(extra))
		for k, v := range extra {
			c.Spec.Extra[k] = v
		}
	}
}

func has(c *v1.CertificateSigningRequest, t v1.RequestConditionType) bool {
	for i := range c.Status.Conditions {
		if c.Status.Conditions[i].Type == t {
			return true
		}
	}
	return false
}

func summary(c *v1.CertificateSigningRequest) string {
	out := "Pending"
	switch {
	case has(c, v1.CertificateDenied):
		out = "Denied"
	case has(c, v1.CertificateApproved):
		out = "Approved"
	}
	if has(c, v1.CertificateFailed) {
		out += ",Failed"
	}
	if len(c.Status.Certificate) > 0 {
		out += ",Issued"
	}
	return out
}

// prepareApproval lets only the conditions through.
func prepareApproval(c, old *v1.CertificateSigningRequest) {
	conditions := c.Status.Conditions
	c.Spec, c.Status = old.Spec, old.Status
	c.Status.Conditions = conditions
	c.Generation = old.Generation
	stamp(c, old)
}

// prepareStatus keeps the approval as it was; whether this update tried to
// add or remove one is for the validation to say.
func prepareStatus(c, old *v1.CertificateSigningRequest) {
	for _, t := range []v1.RequestConditionType{v1.CertificateApproved, v1.CertificateDenied} {
		is, was := indexes(c, t), indexes(old, t)
		if len(is) != len(was) {
			continue
		}
		for i := range is {
			c.Status.Conditions[is[i]] = old.Status.Conditions[was[i]]
		}
	}
	stamp(c, old)
}

func indexes(c *v1.CertificateSigningRequest, t v1.RequestConditionType) []int {
	var list []int
	for i := range c.Status.Conditions {
		if c.Status.Conditions[i].Type == t {
			list = append(list, i)
		}
	}
	return list
}

// stamp gives the conditions that have no times theirs.
func stamp(c, old *v1.CertificateSigningRequest) {
	now := metav1.Now()
	for i := range c.Status.Conditions {
		n := &c.Status.Conditions[i]
		if n.LastUpdateTime.IsZero() {
			n.LastUpdateTime = now
		}
		if !n.LastTransitionTime.IsZero() {
			continue
		}
		n.LastTransitionTime = now
		for _, was := range old.Status.Conditions {
			if was.Type == n.Type && was.Status == n.Status && !was.LastTransitionTime.IsZero() {
				n.LastTransitionTime = was.LastTransitionTime
				break
			}
		}
	}
}
