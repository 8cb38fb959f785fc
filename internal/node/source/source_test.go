package source

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

// TestTokens: a token is kept for four fifths of its life, and its pod is told of
// then; a change of a config map is told of at once.
func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"}, Spec: v1.PodSpec{ServiceAccountName: "sa"}}
		client := fake.NewClientset(pod, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "n"}})
		made := 0
		client.PrependReactor("create", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) {
			made++
			return true, &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
				Token: fmt.Sprint("token ", made), ExpirationTimestamp: metav1.NewTime(time.Now().Add(10 * time.Minute))}}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		f := informers.NewSharedInformerFactory(client, 0)
		s := New(client, f, clock.RealClock{})
		f.Start(ctx.Done())
		f.WaitForCacheSync(ctx.Done())
		changes := make(chan Change, 10)
		done := make(chan error)
		go func() { done <- s.Run(ctx, func(c Change) { changes <- c }) }()
		if c := <-changes; c.ConfigMap != "c" || c.Namespace != "n" {
			t.Errorf("change: %+v", c)
		}
		want := func(token string) {
			t.Helper()
			got, err := s.Token(ctx, pod, "v/token", &v1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To[int64](600)})
			if err != nil || got != token {
				t.Errorf("%q, %v, want %q", got, err, token)
			}
		}
		want("token 1")
		time.Sleep(7 * time.Minute)
		want("token 1")
		if c := <-changes; c.Pod != "u" {
			t.Errorf("change: %+v", c)
		}
		want("token 2")
		if err := client.CoreV1().Pods("n").Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want("token 3") // of a pod of the same name that comes after it
		cancel()
		f.Shutdown()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
