package source

import (
	"encoding/pem"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

func block(content string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(content)}))
}

func TestTrustBundle(t *testing.T) {
	bundle := func(name, signer, text string, labels map[string]string) *certificatesv1.ClusterTrustBundle {
		return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: text}}
	}
	client := fake.NewClientset(
		bundle("plain", "", "a comment\n"+block("one"), nil),
		bundle("example.com:s:a", "example.com/s", block("two")+block("one"), map[string]string{"live": "yes"}),
		bundle("example.com:s:b", "example.com/s", block("two")+block("three"), nil),
		bundle("example.com:other:a", "example.com/other", block("other"), map[string]string{"live": "yes"}),
	)
	s := New(client, "node", informers.NewSharedInformerFactory(client, 0).Core().V1().Pods().Informer(), clock.RealClock{})
	for what, c := range map[string]struct {
		p    v1.ClusterTrustBundleProjection
		want string
		err  string
	}{
		"by name":                     {v1.ClusterTrustBundleProjection{Name: ptr.To("plain")}, block("one"), ""},
		"by a name that is not there": {v1.ClusterTrustBundleProjection{Name: ptr.To("none")}, "", `clustertrustbundle.certificates.k8s.io "none" not found`},
		"that need not be there":      {v1.ClusterTrustBundleProjection{Name: ptr.To("none"), Optional: ptr.To(true)}, "", ""},
		"by signer, each once":        {v1.ClusterTrustBundleProjection{SignerName: ptr.To("example.com/s"), LabelSelector: &metav1.LabelSelector{}}, block("two") + block("one") + block("three"), ""},
		"by signer and label":         {v1.ClusterTrustBundleProjection{SignerName: ptr.To("example.com/s"), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"live": "yes"}}}, block("two") + block("one"), ""},
		"by signer without selector":  {v1.ClusterTrustBundleProjection{SignerName: ptr.To("example.com/s")}, "", "matched zero ClusterTrustBundles"},
	} {
		got, err := s.TrustBundle(t.Context(), &c.p)
		if string(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}
