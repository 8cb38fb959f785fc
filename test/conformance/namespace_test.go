package conformance

import (
	"context"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
)

// template returns a function that makes an object with a name from YAML.
func (t *T) template(yaml string) func(string) *unstructured.Unstructured {
	return func(name string) *unstructured.Unstructured {
		u := t.object("%s", yaml)
		u.SetName(name)
		return u
	}
}

func (t *T) namespace() *v1.Namespace {
	t.Helper()
	return got[*v1.Namespace](t)(t.Client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "conformance-other-" + rand.String(6)}}, create))
}

func (t *T) endOf(ns string) {
	t.Helper()
	t.must(t.Client.CoreV1().Namespaces().Delete(t.Context(), ns, remove))
	t.until("the end of namespace "+ns, func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().Namespaces().Get(ctx, ns, get)
		return apierrors.IsNotFound(err), nil
	})
}

// again creates the namespace again, and deletes it after the test.
func (t *T) again(ns string) {
	t.Helper()
	got[*v1.Namespace](t)(t.Client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, create))
	t.Cleanup(func() { _ = t.Client.CoreV1().Namespaces().Delete(context.Background(), ns, remove) })
}

var _ = It("[sig-api-machinery] Namespaces should ensure that all pods are removed when a namespace is deleted", func(t *T) {
	ns := t.namespace().Name
	t.until("the service account", func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().ServiceAccounts(ns).Get(ctx, "default", get)
		return err == nil, nil
	})
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(ns).Create(t.Context(), pod("p", nil), create))
	t.until("the pod to run", func(ctx context.Context) (bool, error) {
		p, err := t.Client.CoreV1().Pods(ns).Get(ctx, "p", get)
		return err == nil && p.Status.Phase == v1.PodRunning, err
	})
	t.endOf(ns)
	t.again(ns)
	if _, err := t.Client.CoreV1().Pods(ns).Get(t.Context(), "p", get); !apierrors.IsNotFound(err) {
		t.Errorf("the pod is there again: %v", err)
	}
})

var _ = It("[sig-api-machinery] Namespaces should ensure that all services are removed when a namespace is deleted", func(t *T) {
	ns := t.namespace().Name
	got[*v1.Service](t)(t.Client.CoreV1().Services(ns).Create(t.Context(), &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: v1.ServiceSpec{Ports: []v1.ServicePort{{Port: 80}}}}, create))
	t.endOf(ns)
	t.again(ns)
	if _, err := t.Client.CoreV1().Services(ns).Get(t.Context(), "s", get); !apierrors.IsNotFound(err) {
		t.Errorf("the service is there again: %v", err)
	}
})

var _ = It("[sig-api-machinery] Namespaces should patch a Namespace", func(t *T) {
	n := got[*v1.Namespace](t)(t.Client.CoreV1().Namespaces().Patch(t.Context(), t.NS, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"testLabel":"testValue"}}}`), metav1.PatchOptions{}))
	if n.Labels["testLabel"] != "testValue" {
		t.Errorf("labels: %v", n.Labels)
	}
	if n = got[*v1.Namespace](t)(t.Client.CoreV1().Namespaces().Get(t.Context(), t.NS, get)); n.Labels["testLabel"] != "testValue" {
		t.Errorf("labels: %v", n.Labels)
	}
})

func (t *T) changeNamespace(f func(*v1.Namespace), write func(context.Context, *v1.Namespace) (*v1.Namespace, error)) *v1.Namespace {
	t.Helper()
	var out *v1.Namespace
	t.until("the change of the namespace", func(ctx context.Context) (bool, error) {
		n, err := t.Client.CoreV1().Namespaces().Get(ctx, t.NS, get)
		if err != nil {
			return false, err
		}
		f(n)
		out, err = write(ctx, n)
		if apierrors.IsConflict(err) {
			return false, nil
		}
		return err == nil, err
	})
	return out
}

var _ = It("[sig-api-machinery] Namespaces should apply an update to a Namespace", func(t *T) {
	n := t.changeNamespace(func(n *v1.Namespace) { n.Labels["updated"] = "true" }, func(ctx context.Context, n *v1.Namespace) (*v1.Namespace, error) {
		return t.Client.CoreV1().Namespaces().Update(ctx, n, update)
	})
	if n.Labels["updated"] != "true" {
		t.Errorf("labels: %v", n.Labels)
	}
})

var _ = It("[sig-api-machinery] Namespaces should apply changes to a namespace status", func(t *T) {
	n := got[*v1.Namespace](t)(t.Client.CoreV1().Namespaces().Patch(t.Context(), t.NS, types.StrategicMergePatchType,
		[]byte(`{"metadata":{"annotations":{"e2e":"patched"}},"status":{"conditions":[{"type":"StatusPatch","status":"True"}]}}`), metav1.PatchOptions{}, "status"))
	if n.Annotations["e2e"] != "patched" || len(n.Status.Conditions) != 1 {
		t.Errorf("after the patch: %+v", n)
	}
	n = t.changeNamespace(func(n *v1.Namespace) {
		n.Status.Conditions = append(n.Status.Conditions, v1.NamespaceCondition{Type: "StatusUpdate", Status: v1.ConditionTrue, Reason: "E2E"})
	}, func(ctx context.Context, n *v1.Namespace) (*v1.Namespace, error) {
		return t.Client.CoreV1().Namespaces().UpdateStatus(ctx, n, update)
	})
	if len(n.Status.Conditions) != 2 {
		t.Errorf("after the update: %+v", n.Status)
	}
})

var _ = It("[sig-api-machinery] Namespaces should apply a finalizer to a Namespace", func(t *T) {
	const finalizer = "e2e.example.com/fakeFinalizer"
	finalize := func(ctx context.Context, n *v1.Namespace) (*v1.Namespace, error) {
		return t.Client.CoreV1().Namespaces().Finalize(ctx, n, update)
	}
	n := t.changeNamespace(func(n *v1.Namespace) { n.Spec.Finalizers = append(n.Spec.Finalizers, finalizer) }, finalize)
	if len(n.Spec.Finalizers) != 2 {
		t.Errorf("finalizers: %v", n.Spec.Finalizers)
	}
	n = t.changeNamespace(func(n *v1.Namespace) { n.Spec.Finalizers = n.Spec.Finalizers[:1] }, finalize)
	if len(n.Spec.Finalizers) != 1 {
		t.Errorf("finalizers: %v", n.Spec.Finalizers)
	}
})

var _ = It("[sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first", func(t *T) {
	ns := t.namespace().Name
	t.until("the service account", func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().ServiceAccounts(ns).Get(ctx, "default", get)
		return err == nil, nil
	})
	const finalizer = "e2e.example.com/finalizer"
	p := pod("p", nil)
	p.Finalizers = []string{finalizer}
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(ns).Create(t.Context(), p, create))
	got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap("cm", nil), create))
	t.must(t.Client.CoreV1().Namespaces().Delete(t.Context(), ns, remove))
	t.until("the namespace to wait for the pod", func(ctx context.Context) (bool, error) {
		n, err := t.Client.CoreV1().Namespaces().Get(ctx, ns, get)
		if err != nil {
			return false, err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == v1.NamespaceFinalizersRemaining && c.Status == v1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
	if p := got[*v1.Pod](t)(t.Client.CoreV1().Pods(ns).Get(t.Context(), "p", get)); p.DeletionTimestamp == nil {
		t.Error("the pod is not being deleted")
	}
	if cm := got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(ns).Get(t.Context(), "cm", get)); cm.DeletionTimestamp != nil {
		t.Error("the config map is deleted before the pod")
	}
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(ns).Patch(t.Context(), "p", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}))
	t.until("the end of the namespace", func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().Namespaces().Get(ctx, ns, get)
		return apierrors.IsNotFound(err), nil
	})
})
