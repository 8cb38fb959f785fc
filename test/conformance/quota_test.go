package conformance

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

func amounts(pairs ...string) v1.ResourceList {
	out := v1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[v1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func (t *T) quota(name string, hard v1.ResourceList, scopes ...v1.ResourceQuotaScope) *v1.ResourceQuota {
	t.Helper()
	return got[*v1.ResourceQuota](t)(t.Client.CoreV1().ResourceQuotas(t.NS).Create(t.Context(),
		&v1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ResourceQuotaSpec{Hard: hard, Scopes: scopes}}, create))
}

// uses waits until the quota's status has that usage.
func (t *T) uses(name string, used v1.ResourceList) {
	t.Helper()
	t.until("the use of quota "+name, func(ctx context.Context) (bool, error) {
		q, err := t.Client.CoreV1().ResourceQuotas(t.NS).Get(ctx, name, get)
		if err != nil {
			return false, err
		}
		for k, want := range used {
			if has, ok := q.Status.Used[k]; !ok || has.Cmp(want) != 0 {
				return false, nil
			}
		}
		return true, nil
	})
}

func requesting(name string, requests v1.ResourceList) *v1.Pod {
	p := pod(name, nil)
	p.Spec.Containers[0].Resources.Requests = requests
	return p
}

func (t *T) forbidden(err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Errorf("got %v, want Forbidden", err)
	}
}

func (t *T) makePod(p *v1.Pod) *v1.Pod {
	t.Helper()
	return got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Create(t.Context(), p, create))
}

func (t *T) deletePod(name string) {
	t.Helper()
	t.must(t.Client.CoreV1().Pods(t.NS).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
}

var _ = It("[sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated.", func(t *T) {
	t.quota("q", amounts("pods", "5", "services", "2", "cpu", "1"))
	t.uses("q", amounts("pods", "0", "services", "0", "cpu", "0"))
})

var _ = It("[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service.", func(t *T) {
	t.quota("q", amounts("services", "3", "services.nodeports", "1", "services.loadbalancers", "1"))
	t.uses("q", amounts("services", "0"))
	make := func(name string, kind v1.ServiceType) (*v1.Service, error) {
		return t.Client.CoreV1().Services(t.NS).Create(t.Context(), &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceSpec{Type: kind, Ports: []v1.ServicePort{{Port: 80}},
			AllocateLoadBalancerNodePorts: map[bool]*bool{true: ptr.To(false)}[kind == v1.ServiceTypeLoadBalancer]}}, create)
	}
	got[*v1.Service](t)(make("a", v1.ServiceTypeClusterIP))
	got[*v1.Service](t)(make("b", v1.ServiceTypeNodePort))
	t.uses("q", amounts("services", "2", "services.nodeports", "1", "services.loadbalancers", "0"))
	_, err := make("c", v1.ServiceTypeNodePort)
	t.forbidden(err)
	got[*v1.Service](t)(make("d", v1.ServiceTypeLoadBalancer))
	t.uses("q", amounts("services", "3", "services.nodeports", "1", "services.loadbalancers", "1"))
	_, err = make("e", v1.ServiceTypeClusterIP)
	t.forbidden(err)
	for _, n := range []string{"a", "b", "d"} {
		t.must(t.Client.CoreV1().Services(t.NS).Delete(t.Context(), n, remove))
	}
	t.uses("q", amounts("services", "0", "services.nodeports", "0", "services.loadbalancers", "0"))
})

var _ = It("[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret.", func(t *T) {
	t.quota("q", amounts("secrets", "1"))
	t.uses("q", amounts("secrets", "0"))
	s := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Data: map[string][]byte{"k": []byte("v")}}
	got[*v1.Secret](t)(t.Client.CoreV1().Secrets(t.NS).Create(t.Context(), s, create))
	t.uses("q", amounts("secrets", "1"))
	s.Name = "more"
	_, err := t.Client.CoreV1().Secrets(t.NS).Create(t.Context(), s, create)
	t.forbidden(err)
	t.must(t.Client.CoreV1().Secrets(t.NS).Delete(t.Context(), "s", remove))
	t.uses("q", amounts("secrets", "0"))
})

var _ = It("[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap.", func(t *T) {
	t.until("the namespace's own config map", func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().ConfigMaps(t.NS).Get(ctx, "kube-root-ca.crt", get)
		return err == nil, nil
	})
	t.quota("q", amounts("configmaps", "2"))
	t.uses("q", amounts("configmaps", "1"))
	got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(t.NS).Create(t.Context(), configMap("a", nil), create))
	t.uses("q", amounts("configmaps", "2"))
	_, err := t.Client.CoreV1().ConfigMaps(t.NS).Create(t.Context(), configMap("b", nil), create)
	t.forbidden(err)
	t.must(t.Client.CoreV1().ConfigMaps(t.NS).Delete(t.Context(), "a", remove))
	t.uses("q", amounts("configmaps", "1"))
})

var _ = It("[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod.", func(t *T) {
	t.quota("q", amounts("pods", "5", "cpu", "1", "memory", "500Mi", "ephemeral-storage", "50Gi", "requests.example.com/dongle", "3"))
	t.uses("q", amounts("pods", "0"))
	request := func(cpu, memory, dongles string) (v1.ResourceList, v1.ResourceList) {
		return amounts("cpu", cpu, "memory", memory, "ephemeral-storage", "30Gi", "example.com/dongle", dongles), amounts("example.com/dongle", dongles)
	}
	fits := pod("fits", nil)
	fits.Spec.Containers[0].Resources.Requests, fits.Spec.Containers[0].Resources.Limits = request("500m", "252Mi", "2")
	t.makePod(fits)
	used := amounts("pods", "1", "cpu", "500m", "memory", "252Mi", "ephemeral-storage", "30Gi", "requests.example.com/dongle", "2")
	t.uses("q", used)
	for _, r := range [][3]string{{"600m", "100Mi", "0"}, {"100m", "100Mi", "2"}} {
		p := pod("more", nil)
		p.Spec.Containers[0].Resources.Requests, p.Spec.Containers[0].Resources.Limits = request(r[0], r[1], r[2])
		_, err := t.Client.CoreV1().Pods(t.NS).Create(t.Context(), p, create)
		t.forbidden(err)
	}
	_, err := t.Client.CoreV1().Pods(t.NS).Create(t.Context(), pod("unspecified", nil), create)
	t.forbidden(err)
	// An update of fields that are not charged succeeds.
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), "fits", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}))
	t.uses("q", used)
	t.deletePod("fits")
	t.uses("q", amounts("pods", "0", "cpu", "0", "memory", "0", "ephemeral-storage", "0", "requests.example.com/dongle", "0"))
})

func (t *T) rc(name string, replicas int32) *v1.ReplicationController {
	labels := map[string]string{"rc": name}
	return &v1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ReplicationControllerSpec{Replicas: &replicas, Selector: labels,
		Template: &v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod("x", nil).Spec}}}
}

var _ = It("[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller.", func(t *T) {
	t.quota("q", amounts("replicationcontrollers", "1"))
	t.uses("q", amounts("replicationcontrollers", "0"))
	got[*v1.ReplicationController](t)(t.Client.CoreV1().ReplicationControllers(t.NS).Create(t.Context(), t.rc("a", 0), create))
	t.uses("q", amounts("replicationcontrollers", "1"))
	_, err := t.Client.CoreV1().ReplicationControllers(t.NS).Create(t.Context(), t.rc("b", 0), create)
	t.forbidden(err)
	t.must(t.Client.CoreV1().ReplicationControllers(t.NS).Delete(t.Context(), "a", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}))
	t.uses("q", amounts("replicationcontrollers", "0"))
})

var _ = It("[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set.", func(t *T) {
	t.quota("q", amounts("count/replicasets.apps", "1"))
	t.uses("q", amounts("count/replicasets.apps", "0"))
	labels := map[string]string{"rs": "x"}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](0), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod("x", nil).Spec}}}
	got[*appsv1.ReplicaSet](t)(t.Client.AppsV1().ReplicaSets(t.NS).Create(t.Context(), rs, create))
	t.uses("q", amounts("count/replicasets.apps", "1"))
	t.must(t.Client.AppsV1().ReplicaSets(t.NS).Delete(t.Context(), "a", remove))
	t.uses("q", amounts("count/replicasets.apps", "0"))
})

var _ = It("[sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes.", func(t *T) {
	t.quota("ending", amounts("pods", "5", "requests.cpu", "1"), v1.ResourceQuotaScopeTerminating)
	t.quota("endless", amounts("pods", "5", "requests.cpu", "1"), v1.ResourceQuotaScopeNotTerminating)
	t.uses("ending", amounts("pods", "0"))
	t.uses("endless", amounts("pods", "0"))
	t.makePod(requesting("long", amounts("cpu", "500m")))
	t.uses("endless", amounts("pods", "1", "requests.cpu", "500m"))
	t.uses("ending", amounts("pods", "0", "requests.cpu", "0"))
	t.deletePod("long")
	t.uses("endless", amounts("pods", "0", "requests.cpu", "0"))
	short := requesting("short", amounts("cpu", "500m"))
	short.Spec.ActiveDeadlineSeconds = ptr.To[int64](3600)
	t.makePod(short)
	t.uses("ending", amounts("pods", "1", "requests.cpu", "500m"))
	t.uses("endless", amounts("pods", "0"))
	t.deletePod("short")
	t.uses("ending", amounts("pods", "0"))
})

var _ = It("[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope.", func(t *T) {
	t.quota("best", amounts("pods", "5"), v1.ResourceQuotaScopeBestEffort)
	t.quota("other", amounts("pods", "5"), v1.ResourceQuotaScopeNotBestEffort)
	t.uses("best", amounts("pods", "0"))
	t.uses("other", amounts("pods", "0"))
	t.makePod(pod("a", nil))
	t.uses("best", amounts("pods", "1"))
	t.uses("other", amounts("pods", "0"))
	t.deletePod("a")
	t.uses("best", amounts("pods", "0"))
	t.makePod(requesting("b", amounts("cpu", "100m", "memory", "1Mi")))
	t.uses("other", amounts("pods", "1"))
	t.uses("best", amounts("pods", "0"))
	t.deletePod("b")
	t.uses("other", amounts("pods", "0"))
})

var _ = It("[sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota.", func(t *T) {
	quotas := t.Client.CoreV1().ResourceQuotas(t.NS)
	t.quota("q", amounts("cpu", "1", "memory", "500Mi"))
	t.until("the update", func(ctx context.Context) (bool, error) {
		q, err := quotas.Get(ctx, "q", get)
		if err != nil {
			return false, err
		}
		q.Spec.Hard = amounts("cpu", "2", "memory", "1Gi")
		_, err = quotas.Update(ctx, q, update)
		if apierrors.IsConflict(err) {
			return false, nil
		}
		return err == nil, err
	})
	q := got[*v1.ResourceQuota](t)(quotas.Get(t.Context(), "q", get))
	if c := q.Spec.Hard[v1.ResourceCPU]; c.String() != "2" {
		t.Errorf("cpu is %s", c.String())
	}
	t.must(quotas.Delete(t.Context(), "q", remove))
	if _, err := quotas.Get(t.Context(), "q", get); !apierrors.IsNotFound(err) {
		t.Errorf("after the deletion: %v", err)
	}
})

var _ = It("[sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota", func(t *T) {
	t.operate(operations{gvr: v1.SchemeGroupVersion.WithResource("resourcequotas"), one: t.template("{apiVersion: v1, kind: ResourceQuota, spec: {hard: {cpu: '1', memory: 500Mi}}}")})
})

var _ = It("[sig-api-machinery] ResourceQuota should apply changes to a resourcequota status", func(t *T) {
	quotas := t.Client.CoreV1().ResourceQuotas(t.NS)
	t.quota("q", amounts("cpu", "500m", "memory", "500Mi"))
	t.uses("q", amounts("cpu", "0"))
	w := got[watch.Interface](t)(quotas.Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=q"}))
	defer w.Stop()
	for sub, set := range map[string]string{"": `{"spec":{"hard":{"cpu":"600m"}}}`, "status": `{"status":{"hard":{"memory":"1Gi"}}}`} {
		var subs []string
		if sub != "" {
			subs = []string{sub}
		}
		q := got[*v1.ResourceQuota](t)(quotas.Patch(t.Context(), "q", types.MergePatchType, []byte(set), metav1.PatchOptions{}, subs...))
		if cpu, m := q.Spec.Hard[v1.ResourceCPU], q.Status.Hard[v1.ResourceMemory]; sub == "" && cpu.String() != "600m" || sub != "" && m.String() != "1Gi" {
			t.Errorf("after the patch of %q: %+v", sub, q)
		}
		t.event(w, watch.Modified, nil)
	}
	got[*v1.ResourceQuota](t)(quotas.Get(t.Context(), "q", get))
	// The controller corrects the status.
	t.until("the status to follow the spec", func(ctx context.Context) (bool, error) {
		q, err := quotas.Get(ctx, "q", get)
		if err != nil {
			return false, err
		}
		cpu, memory := q.Status.Hard[v1.ResourceCPU], q.Status.Hard[v1.ResourceMemory]
		return cpu.String() == "600m" && memory.String() == "500Mi", nil
	})
})
