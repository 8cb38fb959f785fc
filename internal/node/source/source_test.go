package source

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

// TestTokens checks that a token is kept for four fifths of its life, and its pod
// is then reported as changed; the pods of a changed config map are reported at
// once.
func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"}, Spec: v1.PodSpec{ServiceAccountName: "sa", NodeName: "node",
			Volumes: []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "c"}}}}}}}
		client := fake.NewClientset(pod, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "n"}})
		made := 0
		client.PrependReactor("create", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) {
			made++
			return true, &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
				Token: fmt.Sprint("token ", made), ExpirationTimestamp: metav1.NewTime(time.Now().Add(10 * time.Minute))}}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		f := informers.NewSharedInformerFactory(client, 0)
		s := New(client, "node", f.Core().V1().Pods().Informer(), clock.RealClock{})
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

// TestReads checks that an object that pods of the node name is watched by its name
// alone, from when the first pod names it until none does, and an immutable object
// only until it is known.
func TestReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := func(name string) v1.EnvFromSource {
			return v1.EnvFromSource{SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: name}}}
		}
		pod := func(name, node string, secrets ...string) *v1.Pod {
			p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n", UID: types.UID(name)}, Spec: v1.PodSpec{NodeName: node, Containers: []v1.Container{{}}}}
			for _, s := range secrets {
				p.Spec.Containers[0].EnvFrom = append(p.Spec.Containers[0].EnvFrom, from(s))
			}
			return p
		}
		data := func(name, value string) *v1.Secret {
			return &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n", ResourceVersion: value}, Data: map[string][]byte{"k": []byte(value)}}
		}
		fixed := func(value string) *v1.ConfigMap {
			return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "fixed", Namespace: "n", ResourceVersion: value}, Data: map[string]string{"k": value}, Immutable: ptr.To(true)}
		}
		a := pod("a", "node", "s")
		a.Spec.Containers[0].Env = []v1.EnvVar{{Name: "E", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "fixed"}}}}}
		client := fake.NewClientset(data("s", "1"), data("other", "1"), fixed("1"), a, pod("b", "node", "s"), pod("c", "elsewhere", "other"))
		ctx, cancel := context.WithCancel(t.Context())
		f := informers.NewSharedInformerFactory(client, 0)
		s := New(client, "node", f.Core().V1().Pods().Informer(), clock.RealClock{})
		f.Start(ctx.Done())
		done := make(chan error)
		go func() { done <- s.Run(ctx, func(Change) {}) }()
		// reads gives the verbs by which secrets are read, and fails for more than one.
		reads := func() (out []string) {
			for _, a := range client.Actions() {
				if a.GetResource().Resource != "secrets" {
					continue
				}
				var of fields.Selector
				switch a := a.(type) {
				case clienttesting.ListAction:
					of = a.GetListRestrictions().Fields
				case clienttesting.WatchAction:
					of = a.GetWatchRestrictions().Fields
				}
				if of != nil {
					if name, ok := of.RequiresExactMatch("metadata.name"); !ok || a.GetNamespace() != "n" || name == "other" {
						t.Errorf("%s of secrets %q in %q", a.GetVerb(), of, a.GetNamespace())
					}
				}
				out = append(out, a.GetVerb())
			}
			client.ClearActions()
			return out
		}
		want := func(name, value string, verbs ...string) {
			t.Helper()
			synctest.Wait()
			got, err := s.Secret(ctx, "n", name)
			if err != nil || string(got.Data["k"]) != value {
				t.Errorf("%s: %+v, %v, want %q", name, got, err, value)
			}
			if did := reads(); !slices.Equal(did, verbs) {
				t.Errorf("%s was read by %v, want %v", name, did, verbs)
			}
		}
		synctest.Wait()
		if len(s.objects) != 2 {
			t.Errorf("%d objects are watched", len(s.objects))
		}
		reads()
		want("s", "1")
		wantFixed := func(value string) {
			t.Helper()
			synctest.Wait()
			if got, err := s.ConfigMap(ctx, "n", "fixed"); err != nil || got.Data["k"] != value {
				t.Errorf("fixed: %+v, %v, want %q", got, err, value)
			}
		}
		wantFixed("1")
		update := func(resource string, now runtime.Object) {
			t.Helper()
			if err := client.Tracker().Update(v1.SchemeGroupVersion.WithResource(resource), now, "n"); err != nil {
				t.Fatal(err)
			}
		}
		update("secrets", data("s", "2"))
		update("configmaps", fixed("2"))
		want("s", "2")
		wantFixed("1")
		want("other", "1", "get")
		if err := client.Tracker().Delete(v1.SchemeGroupVersion.WithResource("pods"), "n", "a"); err != nil {
			t.Fatal(err)
		}
		want("s", "2")
		wantFixed("2")
		ended := pod("b", "node", "s")
		ended.Status.Phase = v1.PodSucceeded
		update("pods", ended)
		want("s", "2", "get")
		cancel()
		f.Shutdown()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
