package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"

	v1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	nodesGroup = "system:nodes"
	nodePrefix = "system:node:"
)

// parse reads the request in PEM.
func parse(csr *v1.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

func condition(csr *v1.CertificateSigningRequest, t v1.RequestConditionType) *v1.CertificateSigningRequestCondition {
	for i := range csr.Status.Conditions {
		if csr.Status.Conditions[i].Type == t {
			return &csr.Status.Conditions[i]
		}
	}
	return nil
}

func has(csr *v1.CertificateSigningRequest, t v1.RequestConditionType) bool {
	return condition(csr, t) != nil
}

// usages reports whether the request asks for all of required, and beyond them for
// nothing but optional.
func usages(csr *v1.CertificateSigningRequest, required []v1.KeyUsage, optional ...v1.KeyUsage) bool {
	have := sets.New(csr.Spec.Usages...)
	return have.HasAll(required...) && have.Difference(sets.New(required...)).Difference(sets.New(optional...)).Len() == 0
}

// kubeletClient returns an error for a request that is not a kubelet's for a
// client certificate.
func kubeletClient(r *x509.CertificateRequest, csr *v1.CertificateSigningRequest) error {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{nodesGroup}):
		return errors.New("subject organization is not system:nodes")
	case len(r.DNSNames) > 0:
		return errors.New("DNS subjectAltNames are not allowed")
	case len(r.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed")
	case len(r.IPAddresses) > 0:
		return errors.New("IP subjectAltNames are not allowed")
	case len(r.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	case !strings.HasPrefix(r.Subject.CommonName, nodePrefix):
		return errors.New("subject common name does not begin with system:node:")
	case !usages(csr, []v1.KeyUsage{v1.UsageDigitalSignature, v1.UsageClientAuth}, v1.UsageKeyEncipherment):
		return errors.New("usages did not match [client auth digital signature key encipherment] or [client auth digital signature]")
	}
	return nil
}

// kubeletServing returns an error for a request that is not a kubelet's for a
// serving certificate.
func kubeletServing(r *x509.CertificateRequest, csr *v1.CertificateSigningRequest) error {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{nodesGroup}):
		return errors.New("subject organization is not system:nodes")
	case len(r.DNSNames) == 0 && len(r.IPAddresses) == 0:
		return errors.New("DNS or IP subjectAltName is required")
	case len(r.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed")
	case len(r.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	case !strings.HasPrefix(r.Subject.CommonName, nodePrefix):
		return errors.New("subject common name does not begin with system:node:")
	case !usages(csr, []v1.KeyUsage{v1.UsageDigitalSignature, v1.UsageServerAuth}, v1.UsageKeyEncipherment):
		return errors.New("usages did not match [digital signature key encipherment server auth] or [digital signature server auth]")
	}
	return nil
}

// each makes a controller that sees each request.
func each(c controllers.Context, queueName string, sync func(context.Context, *v1.CertificateSigningRequest) error) (reconcile.Run, error) {
	informer := c.Informers.Certificates().V1().CertificateSigningRequests().Informer()
	queue := c.Queue(queueName)
	reconcile.Handle(informer, reconcile.Enqueue[*v1.CertificateSigningRequest](queue), nil, reconcile.Ignore)
	return reconcile.Loop[*v1.CertificateSigningRequest]{
		Queue: queue, For: informer,
		Reconcile: func(ctx context.Context, csr *v1.CertificateSigningRequest) (reconcile.Result, error) {
			return reconcile.Result{}, sync(ctx, csr)
		},
	}.Run, nil
}
