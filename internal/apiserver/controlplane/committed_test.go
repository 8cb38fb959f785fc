package controlplane

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
)

// late records the writes of an object only once it is told to.
type late struct {
	apiserver.Tracer
	uid  func(types.UID) bool
	wait <-chan struct{}
}

func (l *late) Record(ctx context.Context, w apiserver.Write) {
	if acc, err := meta.Accessor(w.Object); err == nil && w.Resource.Resource != "secrets" && l.uid(acc.GetUID()) {
		<-l.wait
	}
	l.Tracer.Record(ctx, w)
}

// TestWrittenBeforeRecorded has a component see each kind of write, and write because of it,
// before the request records its step: what it writes is of the request's trace all the same.
func TestWrittenBeforeRecorded(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	tracer := c.Server.Tracer
	client := c.Client(inprocess.Admin)
	if _, err := client.CoreV1().ServiceAccounts("default").Create(t.Context(), &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	maps, pods, deployments := client.CoreV1().ConfigMaps("default"), client.CoreV1().Pods("default"), client.AppsV1().Deployments("default")
	configMap := func(ctx context.Context, name string) (runtime.Object, error) {
		return maps.Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	}
	finalized := func(ctx context.Context, name string) (runtime.Object, error) {
		return maps.Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{"example.com/f"}}}, metav1.CreateOptions{})
	}
	spec := v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}
	pod := func(ctx context.Context, name string) (runtime.Object, error) {
		return pods.Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, Spec: spec}, metav1.CreateOptions{})
	}
	bind := func(ctx context.Context, name string) error {
		return pods.Bind(ctx, &v1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name}, Target: v1.ObjectReference{Kind: "Node", Name: "n"}}, metav1.CreateOptions{})
	}
	bound := func(ctx context.Context, name string) (runtime.Object, error) {
		if _, err := pod(ctx, name); err != nil {
			return nil, err
		}
		if err := bind(ctx, name); err != nil {
			return nil, err
		}
		return pods.Get(ctx, name, metav1.GetOptions{})
	}
	update := func(ctx context.Context, name string) error {
		m, err := maps.Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			m.Data = map[string]string{"key": "new"}
			_, err = maps.Update(ctx, m, metav1.UpdateOptions{})
		}
		return err
	}
	for _, w := range []struct {
		name string
		make func(ctx context.Context, name string) (runtime.Object, error) // nil makes none before
		do   func(ctx context.Context, name string) error
	}{
		{"create", nil, func(ctx context.Context, name string) error { _, err := configMap(ctx, name); return err }},
		{"update", configMap, update},
		{"patch", configMap, func(ctx context.Context, name string) error {
			_, err := maps.Patch(ctx, name, types.MergePatchType, []byte(`{"data":{"key":"new"}}`), metav1.PatchOptions{})
			return err
		}},
		{"apply", configMap, func(ctx context.Context, name string) error {
			_, err := maps.Apply(ctx, corev1ac.ConfigMap(name, "default").WithData(map[string]string{"key": "new"}), metav1.ApplyOptions{FieldManager: "test"})
			return err
		}},
		{"apply-new", nil, func(ctx context.Context, name string) error {
			_, err := maps.Apply(ctx, corev1ac.ConfigMap(name, "default").WithData(map[string]string{"key": "new"}), metav1.ApplyOptions{FieldManager: "test"})
			return err
		}},
		{"delete", configMap, func(ctx context.Context, name string) error { return maps.Delete(ctx, name, metav1.DeleteOptions{}) }},
		{"delete-finalized", finalized, func(ctx context.Context, name string) error { return maps.Delete(ctx, name, metav1.DeleteOptions{}) }},
		{"delete-graceful", bound, func(ctx context.Context, name string) error { return pods.Delete(ctx, name, metav1.DeleteOptions{}) }},
		{"delete-collection", pod, func(ctx context.Context, name string) error {
			return pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "name=" + name})
		}},
		{"status", pod, func(ctx context.Context, name string) error {
			p, err := pods.Get(ctx, name, metav1.GetOptions{})
			if err == nil {
				p.Status.Message = "new"
				_, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{})
			}
			return err
		}},
		{"binding", pod, bind},
		{"eviction", pod, func(ctx context.Context, name string) error {
			return pods.EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}},
		{"scale", func(ctx context.Context, name string) (runtime.Object, error) {
			labels := map[string]string{"name": name}
			return deployments.Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
				Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec}}}, metav1.CreateOptions{})
		}, func(ctx context.Context, name string) error {
			s := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: autoscalingv1.ScaleSpec{Replicas: 3}}
			_, err := deployments.UpdateScale(ctx, name, s, metav1.UpdateOptions{})
			return err
		}},
	} {
		for _, by := range []string{"client", "controller"} {
			t.Run(w.name+" by a "+by, func(t *testing.T) {
				name := w.name + "-" + by
				c.Server.Tracer = tracer
				want := trace.NewContext()
				ctx := trace.WithContext(t.Context(), want)
				if by == "controller" {
					root, err := configMap(ctx, name+"-root")
					if err != nil {
						t.Fatal(err)
					}
					ctx = trace.WithCause(t.Context(), root)
				}
				var before types.UID
				if w.make != nil {
					obj, err := w.make(t.Context(), name)
					if err != nil {
						t.Fatal(err)
					}
					before = obj.(metav1.Object).GetUID()
				}
				watcher, err := c.Store.Watch("/registry/", store.WatchOptions{Revision: c.Store.Revision()})
				if err != nil {
					t.Fatal(err)
				}
				defer watcher.Stop()
				wait := make(chan struct{})
				c.Server.Tracer = &late{Tracer: tracer, wait: wait, uid: func(uid types.UID) bool { return before == "" || uid == before }}
				done := make(chan error, 1)
				go func() { done <- w.do(ctx, name) }()
				effect := follow(t, client, watcher, name)
				close(wait)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				steps := c.Trace.Way(effect)
				if len(steps) != 1 || steps[0].TraceID != want.TraceID {
					t.Errorf("what was written because of it is in another trace than %s: %+v", want.TraceID, steps)
				}
			})
		}
	}
}

// follow waits for a change of the object of that name, writes because of it, and returns
// what it has written.
func follow(t *testing.T, client kubernetes.Interface, watcher store.Watcher, name string) types.UID {
	t.Helper()
	for {
		events, err := watcher.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range events {
			acc, err := meta.Accessor(events[i].Entry.Object())
			if err != nil || acc.GetName() != name {
				continue
			}
			// Secrets are not held up.
			s, err := client.CoreV1().Secrets("default").Create(trace.WithCause(t.Context(), events[i].Entry.Object()), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name + "-effect"}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return s.UID
		}
	}
}
