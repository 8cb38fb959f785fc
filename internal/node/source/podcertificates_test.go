package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"
)

// sign answers each new request until ctx ends: it issues for an hour, or denies.
func sign(ctx context.Context, t *testing.T, client kubernetes.Interface, deny bool) {
	requests := client.CertificatesV1().PodCertificateRequests("n")
	w, err := requests.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	defer w.Stop()
	authority, err := newKey("ED25519")
	if err != nil {
		t.Error(err)
		return
	}
	for {
		select {
		case e := <-w.ResultChan():
			r := e.Object.(*certificatesv1.PodCertificateRequest)
			if len(r.Status.Conditions) > 0 {
				continue
			}
			r = r.DeepCopy()
			if deny {
				r.Status.Conditions = []metav1.Condition{{Type: "Denied", Status: "True", Reason: "UnsupportedKeyType", Message: "not that"}}
			} else {
				stub, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
				if err != nil {
					t.Error(err)
					return
				}
				now := time.Now()
				c := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now, NotAfter: now.Add(time.Hour)}
				der, err := x509.CreateCertificate(nil, c, c, stub.PublicKey, authority)
				if err != nil {
					t.Error(err)
					return
				}
				at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(d)} }
				r.Status = certificatesv1.PodCertificateRequestStatus{NotBefore: at(0), BeginRefreshAt: at(40 * time.Minute), NotAfter: at(time.Hour),
					Conditions:       []metav1.Condition{{Type: "Issued", Status: "True"}},
					CertificateChain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
			}
			if _, err := requests.UpdateStatus(ctx, r, metav1.UpdateOptions{}); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		case <-ctx.Done():
			return
		}
	}
}

func certified(t *testing.T) (*Source, kubernetes.Interface, *v1.Pod) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"}, Spec: v1.PodSpec{ServiceAccountName: "sa", NodeName: "node"}}
	client := fake.NewClientset(pod, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "sa", Namespace: "n", UID: "sau"}}, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", UID: "nu"}})
	return New(client, "node", informers.NewSharedInformerFactory(client, 0).Core().V1().Pods().Informer(), clock.RealClock{}), client, pod
}

// TestPodCertificate checks that a certificate is of the key beside it, is kept until
// its signer wants it renewed, and is waited for.
func TestPodCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client, pod := certified(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		projection := &v1.PodCertificateProjection{SignerName: "example.com/s", KeyType: "ECDSAP256"}
		get := func() ([]byte, error) {
			key, chain, err := s.PodCertificate(ctx, pod, "v/0", projection)
			if err == nil {
				if _, err := tls.X509KeyPair(chain, key); err != nil {
					t.Error(err)
				}
			}
			return chain, err
		}
		if _, err := get(); err == nil || !strings.Contains(err.Error(), "has not answered") {
			t.Errorf("without a signer: %v", err)
		}
		list, err := client.CertificatesV1().PodCertificateRequests("n").List(ctx, metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("%d requests, %v", len(list.Items), err)
		}
		r := list.Items[0]
		if r.Spec.PodUID != "u" || r.Spec.ServiceAccountUID != "sau" || r.Spec.NodeUID != "nu" || len(r.OwnerReferences) != 1 {
			t.Errorf("request %+v", r)
		}
		if err := client.CertificatesV1().PodCertificateRequests("n").Delete(ctx, r.Name, metav1.DeleteOptions{}); err != nil { // the cleaner's
			t.Fatal(err)
		}
		go sign(ctx, t, client, false)
		synctest.Wait()
		first, err := get()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(39 * time.Minute)
		if again, err := get(); err != nil || string(again) != string(first) || len(s.due()) != 0 {
			t.Errorf("before its renewal: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if due := s.due(); len(due) != 1 {
			t.Errorf("due are %v", due)
		}
		if again, err := get(); err != nil || string(again) == string(first) {
			t.Errorf("after its renewal: %v", err)
		}
		cancel()
		synctest.Wait()
	})
}

// TestDenied checks that a denied request is not made again, and says why.
func TestDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client, pod := certified(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go sign(ctx, t, client, true)
		synctest.Wait()
		for range 2 {
			_, _, err := s.PodCertificate(ctx, pod, "v/0", &v1.PodCertificateProjection{SignerName: "example.com/s", KeyType: "ED25519"})
			if err == nil || !strings.Contains(err.Error(), "is Denied: UnsupportedKeyType: not that") {
				t.Errorf("error %v", err)
			}
		}
		list, err := client.CertificatesV1().PodCertificateRequests("n").List(ctx, metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			t.Errorf("%d requests, %v", len(list.Items), err)
		}
		cancel()
		synctest.Wait()
	})
}
