package source

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
)

// TrustBundle returns the certificates that a projection names, in PEM, each once and
// without what is beside them; none where there is no such bundle and none is needed
// (https://kep.k8s.io/3257).
func (s *Source) TrustBundle(ctx context.Context, p *v1.ClusterTrustBundleProjection) ([]byte, error) {
	all, err := s.bundles(ctx)
	if err != nil {
		return nil, err
	}
	selected, err := chosen(all, p)
	if err != nil || len(selected) == 0 && ptr.Deref(p.Optional, false) {
		return nil, err
	}
	if len(selected) == 0 {
		if p.Name != nil {
			return nil, apierrors.NewNotFound(certificatesv1.Resource("clustertrustbundle"), *p.Name)
		}
		return nil, errors.New("combination of signerName and labelSelector matched zero ClusterTrustBundles")
	}
	return together(selected), nil
}

// bundles returns all of the cluster's: as the watch for them has them, else as they are
// now.
func (s *Source) bundles(ctx context.Context) (out []*certificatesv1.ClusterTrustBundle, err error) {
	s.mu.Lock()
	o := s.objects[reference{kind: trustBundles}]
	s.mu.Unlock()
	if o != nil && o.informer.HasSynced() {
		for _, b := range o.informer.GetStore().List() {
			out = append(out, b.(*certificatesv1.ClusterTrustBundle))
		}
		return out, nil
	}
	list, err := s.client.CertificatesV1().ClusterTrustBundles().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out, nil
}

// chosen returns the bundles that a projection names, by their names' order.
func chosen(all []*certificatesv1.ClusterTrustBundle, p *v1.ClusterTrustBundleProjection) ([]*certificatesv1.ClusterTrustBundle, error) {
	selector := labels.Nothing()
	if p.LabelSelector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(p.LabelSelector); err != nil {
			return nil, err
		}
	}
	var out []*certificatesv1.ClusterTrustBundle
	for _, b := range all {
		named := p.Name != nil && b.Name == *p.Name
		if named || p.Name == nil && p.SignerName != nil && b.Spec.SignerName == *p.SignerName && selector.Matches(labels.Set(b.Labels)) {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *certificatesv1.ClusterTrustBundle) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// together has the certificates of all bundles, each once.
func together(bundles []*certificatesv1.ClusterTrustBundle) []byte {
	var out bytes.Buffer
	seen := map[string]bool{}
	for _, b := range bundles {
		for rest := []byte(b.Spec.TrustBundle); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if seen[string(block.Bytes)] {
				continue
			}
			seen[string(block.Bytes)] = true
			out.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		}
	}
	return out.Bytes()
}
