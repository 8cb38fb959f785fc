package source

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/watch"
)

// issuePeriod is how long a request for a certificate is waited for at once. What is
// issued later is found by the next try.
const issuePeriod = 2 * time.Second

// certificateKey names a certificate of a pod by its use.
type certificateKey struct {
	pod types.UID
	use string
}

// certificate is one of a pod, with the state of the request for it, or for the next
// one.
type certificate struct {
	key, chain []byte // in PEM
	renewal    time.Time
	expires    time.Time

	request string // its name; "" if none is under way
	nextKey []byte
	refused error
}

// PodCertificate returns a private key and a chain of certificates, both in PEM, that
// the projection's signer issues to the pod (https://kep.k8s.io/4317), and the next
// ones when it is time for that. use is a name of the caller's. A pod has one call at
// a time.
func (s *Source) PodCertificate(ctx context.Context, p *v1.Pod, use string, pr *v1.PodCertificateProjection) (key, chain []byte, err error) {
	at := certificateKey{p.UID, use}
	s.mu.Lock()
	c := s.certificates[at]
	s.mu.Unlock()
	now := s.clock.Now()
	if c.chain != nil && now.Before(c.renewal) {
		return c.key, c.chain, nil
	}
	err = c.refused
	if err == nil {
		err = s.request(ctx, p, pr, &c)
		s.mu.Lock()
		s.certificates[at] = c
		s.mu.Unlock()
	}
	if err != nil && c.chain != nil && now.Before(c.expires) {
		return c.key, c.chain, nil // the one that there is goes on
	}
	return c.key, c.chain, err
}

// request goes on with the request for a certificate, or makes one.
func (s *Source) request(ctx context.Context, p *v1.Pod, pr *v1.PodCertificateProjection, c *certificate) error {
	requests := s.client.CertificatesV1().PodCertificateRequests(p.Namespace)
	var r *certificatesv1.PodCertificateRequest
	var err error
	if c.request != "" {
		r, err = requests.Get(ctx, c.request, metav1.GetOptions{})
		if apierrors.IsNotFound(err) { // it has had no answer for too long
			c.request = ""
		} else if err != nil {
			return err
		}
	}
	if c.request == "" {
		if r, c.nextKey, err = s.newRequest(ctx, p, pr); err != nil {
			return err
		}
		if r, err = requests.Create(ctx, r, metav1.CreateOptions{}); err != nil {
			return err
		}
		c.request = r.Name
	}
	if r, err = s.answered(ctx, r); err != nil {
		return err
	}
	for _, cond := range r.Status.Conditions {
		switch cond.Type {
		case certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
			c.refused = fmt.Errorf("podcertificaterequest %q is %s: %s: %s", r.Name, cond.Type, cond.Reason, cond.Message)
			return c.refused
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			*c = certificate{key: c.nextKey, chain: []byte(r.Status.CertificateChain), renewal: r.Status.BeginRefreshAt.Time, expires: r.Status.NotAfter.Time}
			return nil
		}
	}
	return fmt.Errorf("the signer %s has not answered podcertificaterequest %q yet", r.Spec.SignerName, r.Name)
}

// newRequest makes a key and the request for its certificate.
func (s *Source) newRequest(ctx context.Context, p *v1.Pod, pr *v1.PodCertificateProjection) (*certificatesv1.PodCertificateRequest, []byte, error) {
	node, err := s.client.CoreV1().Nodes().Get(ctx, s.node, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	account, err := s.client.CoreV1().ServiceAccounts(p.Namespace).Get(ctx, p.Spec.ServiceAccountName, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	signer, err := newKey(pr.KeyType)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, nil, err
	}
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, signer)
	if err != nil {
		return nil, nil, err
	}
	return &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: "req-" + utilrand.String(20),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID}}},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: pr.SignerName, PodName: p.Name, PodUID: p.UID, ServiceAccountName: account.Name, ServiceAccountUID: account.UID,
			NodeName: types.NodeName(node.Name), NodeUID: node.UID, MaxExpirationSeconds: pr.MaxExpirationSeconds, StubPKCS10Request: stub,
			UnverifiedUserAnnotations: pr.UserAnnotations,
		},
	}, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "RSA3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("unknown key type %q", kind)
}

// answered returns the request when its signer has answered, or as it is after
// issuePeriod.
func (s *Source) answered(ctx context.Context, r *certificatesv1.PodCertificateRequest) (*certificatesv1.PodCertificateRequest, error) {
	if len(r.Status.Conditions) > 0 {
		return r, nil
	}
	// A node may watch its own only.
	selector := fields.Set{metav1.ObjectNameField: r.Name, "spec.nodeName": s.node}.AsSelector().String()
	w, err := s.client.CertificatesV1().PodCertificateRequests(r.Namespace).Watch(ctx, metav1.ListOptions{FieldSelector: selector, ResourceVersion: r.ResourceVersion})
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	limit := s.clock.After(issuePeriod)
	for {
		select {
		case e, open := <-w.ResultChan():
			now, ok := e.Object.(*certificatesv1.PodCertificateRequest)
			if !open || !ok || e.Type == watch.Deleted {
				return r, nil
			}
			if now.UID != r.UID || now.Name != r.Name {
				continue
			}
			if r = now; len(r.Status.Conditions) > 0 {
				return r, nil
			}
		case <-limit:
			return r, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
