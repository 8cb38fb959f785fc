package admission

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
)

// environment has informers that hold objs.
func environment(t *testing.T, objs ...runtime.Object) *Environment {
	t.Helper()
	f := informers.NewSharedInformerFactory(nil, 0)
	for _, o := range objs {
		var inf cache.SharedIndexInformer
		switch o.(type) {
		case *storagev1.StorageClass:
			inf = f.Storage().V1().StorageClasses().Informer()
		case *networkingv1.IngressClass:
			inf = f.Networking().V1().IngressClasses().Informer()
		case *nodev1.RuntimeClass:
			inf = f.Node().V1().RuntimeClasses().Informer()
		case *v1.Node:
			inf = f.Core().V1().Nodes().Informer()
		default:
			t.Fatalf("no informer for %T", o)
		}
		if err := inf.GetIndexer().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	rows := catalogue.New(catalogue.Builtin())
	s, err := embedded.Open(embedded.Options{Codec: store.NewCodec(catalogue.Scheme)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &Environment{Informers: f, Store: s, Catalogue: rows}
}

func request(gvr schema.GroupVersionResource, sub string, op admission.Operation, obj, old runtime.Object) admission.Attributes {
	return admission.NewAttributesRecord(obj, old, schema.GroupVersionKind{}, "ns", "o", gvr, sub, op, nil, false, &user.DefaultInfo{Name: "u"})
}

// made returns the plug-in of that name.
func made(t *testing.T, e *Environment, name string) admission.Interface {
	t.Helper()
	i := slices.IndexFunc(table, func(p plugin) bool { return p.name == name })
	if i < 0 {
		t.Fatalf("there is no plug-in %s", name)
	}
	p, err := table[i].make(e)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// admit runs both phases of a plug-in.
func admit(p admission.Interface, a admission.Attributes) error {
	if !p.Handles(a.GetOperation()) {
		return nil
	}
	if m, ok := p.(admission.MutationInterface); ok {
		if err := m.Admit(context.Background(), a, nil); err != nil {
			return err
		}
	}
	if v, ok := p.(admission.ValidationInterface); ok {
		return v.Validate(context.Background(), a, nil)
	}
	return nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func core(resource string) schema.GroupVersionResource {
	return v1.SchemeGroupVersion.WithResource(resource)
}

func class(name string, age time.Duration, isDefault, grows bool) *storagev1.StorageClass {
	c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1000, 0).Add(-age))}, AllowVolumeExpansion: &grows}
	if isDefault {
		c.Annotations = map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}
	}
	return c
}

func TestDefaultStorageClass(t *testing.T) {
	e := environment(t, class("old", time.Hour, true, false), class("b", time.Minute, true, false), class("a", time.Minute, true, false), class("newest", 0, false, false))
	for given, want := range map[*string]string{nil: "a", ptr.To(""): "", ptr.To("mine"): "mine"} {
		c := &v1.PersistentVolumeClaim{Spec: v1.PersistentVolumeClaimSpec{StorageClassName: given}}
		if err := admit(made(t, e, "DefaultStorageClass"), request(core("persistentvolumeclaims"), "", admission.Create, c, nil)); err != nil || c.Spec.StorageClassName == nil || *c.Spec.StorageClassName != want {
			t.Errorf("given %v: class %v, %v; want %q", given, c.Spec.StorageClassName, err, want)
		}
	}
}

func TestClaimResize(t *testing.T) {
	e := environment(t, class("grows", 0, false, true), class("stays", 0, false, false))
	claim := func(class, size string, phase v1.PersistentVolumeClaimPhase) *v1.PersistentVolumeClaim {
		return &v1.PersistentVolumeClaim{Spec: v1.PersistentVolumeClaimSpec{StorageClassName: &class, Resources: v1.VolumeResourceRequirements{
			Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse(size)}}}, Status: v1.PersistentVolumeClaimStatus{Phase: phase}}
	}
	const refused = `persistentvolumeclaims "o" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize`
	for _, c := range []struct {
		class, size string
		phase       v1.PersistentVolumeClaimPhase
		want        string
	}{
		{"grows", "2Gi", v1.ClaimBound, ""}, {"stays", "1Gi", v1.ClaimBound, ""}, {"stays", "2Gi", v1.ClaimBound, refused}, {"", "2Gi", v1.ClaimBound, refused},
		{"grows", "2Gi", v1.ClaimPending, `persistentvolumeclaims "o" is forbidden: Only bound persistent volume claims can be expanded`},
	} {
		a := request(core("persistentvolumeclaims"), "", admission.Update, claim(c.class, c.size, c.phase), claim(c.class, "1Gi", c.phase))
		if got := text(admit(made(t, e, "PersistentVolumeClaimResize"), a)); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

func TestDefaultIngressClass(t *testing.T) {
	e := environment(t, &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "d", Annotations: map[string]string{"ingressclass.kubernetes.io/is-default-class": "true"}}},
		&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
	plain, annotated := &networkingv1.Ingress{}, &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"kubernetes.io/ingress.class": "x"}}}
	for _, i := range []*networkingv1.Ingress{plain, annotated} {
		if err := admit(made(t, e, "DefaultIngressClass"), request(networkingv1.SchemeGroupVersion.WithResource("ingresses"), "", admission.Create, i, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if plain.Spec.IngressClassName == nil || *plain.Spec.IngressClassName != "d" || annotated.Spec.IngressClassName != nil {
		t.Errorf("classes %v, %v", plain.Spec.IngressClassName, annotated.Spec.IngressClassName)
	}
}

func TestRuntimeClass(t *testing.T) {
	cpu := v1.ResourceList{v1.ResourceCPU: resource.MustParse("250m")}
	e := environment(t, &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "vm"}, Overhead: &nodev1.Overhead{PodFixed: cpu},
		Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"vm": "yes"}, Tolerations: []v1.Toleration{{Key: "vm", Operator: v1.TolerationOpExists}}}})
	for _, c := range []struct {
		name string
		spec v1.PodSpec
		want string
	}{
		{"none", v1.PodSpec{}, ""},
		{"vm", v1.PodSpec{RuntimeClassName: ptr.To("vm")}, ""},
		{"missing", v1.PodSpec{RuntimeClassName: ptr.To("x")}, `pods "o" is forbidden: pod rejected: RuntimeClass "x" not found`},
		{"overhead alone", v1.PodSpec{Overhead: cpu}, `pods "o" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead`},
		{"other place", v1.PodSpec{RuntimeClassName: ptr.To("vm"), NodeSelector: map[string]string{"vm": "no"}},
			`pods "o" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no`},
	} {
		pod := &v1.Pod{Spec: c.spec}
		if got := text(admit(made(t, e, "RuntimeClass"), request(core("pods"), "", admission.Create, pod, nil))); got != c.want {
			t.Errorf("%s: got %q", c.name, got)
		}
		if c.name == "vm" && (pod.Spec.Overhead.Cpu().String() != "250m" || pod.Spec.NodeSelector["vm"] != "yes" || len(pod.Spec.Tolerations) != 1) {
			t.Errorf("vm: %+v", pod.Spec)
		}
	}
}

func TestNodesAndTheirLabels(t *testing.T) {
	n := &v1.Node{}
	for range 2 { // the taint comes once
		if err := admit(made(t, nil, "TaintNodesByCondition"), request(core("nodes"), "", admission.Create, n, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if len(n.Spec.Taints) != 1 || n.Spec.Taints[0] != (v1.Taint{Key: "node.kubernetes.io/not-ready", Effect: v1.TaintEffectNoSchedule}) {
		t.Errorf("taints %v", n.Spec.Taints)
	}
	e := environment(t, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{v1.LabelTopologyZone: "z", "other": "x"}}})
	b := &v1.Binding{Target: v1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := admit(made(t, e, "PodTopologyLabels"), request(core("pods"), "binding", admission.Create, b, nil)); err != nil || len(b.Labels) != 1 || b.Labels[v1.LabelTopologyZone] != "z" {
		t.Errorf("labels %v, %v", b.Labels, err)
	}
}

func TestOptional(t *testing.T) {
	hostname, zone := v1.PodAffinityTerm{TopologyKey: v1.LabelHostname}, v1.PodAffinityTerm{TopologyKey: "zone"}
	apart := func(term v1.PodAffinityTerm) *v1.Pod {
		return &v1.Pod{Spec: v1.PodSpec{Affinity: &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{term}}}}}
	}
	external := func(ips ...string) *v1.Service { return &v1.Service{Spec: v1.ServiceSpec{ExternalIPs: ips}} }
	for _, c := range []struct {
		name string
		p    string
		a    admission.Attributes
		want string
	}{
		{"AlwaysAdmit", "AlwaysAdmit", request(core("pods"), "", admission.Delete, nil, nil), ""},
		{"AlwaysDeny", "AlwaysDeny", request(core("pods"), "", admission.Delete, nil, nil), `pods "o" is forbidden: admission control is denying all modifications`},
		{"apart on a node", "LimitPodHardAntiAffinityTopology", request(core("pods"), "", admission.Create, apart(hostname), nil), ""},
		{"apart in a zone", "LimitPodHardAntiAffinityTopology", request(core("pods"), "", admission.Create, apart(zone), nil),
			`pods is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed`},
		{"new external address", "DenyServiceExternalIPs", request(core("services"), "", admission.Create, external("1.1.1.1"), nil), `services "o" is forbidden: Use of external IPs is denied by admission control.`},
		{"old external address", "DenyServiceExternalIPs", request(core("services"), "", admission.Update, external("1.1.1.1"), external("1.1.1.1", "2.2.2.2")), ""},
	} {
		if got := text(admit(made(t, nil, c.p), c.a)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i", ImagePullPolicy: v1.PullNever,
		Resources: v1.ResourceRequirements{Requests: v1.ResourceList{"example.com/gpu": resource.MustParse("1"), v1.ResourceCPU: resource.MustParse("1")}}}}}}
	for _, p := range []string{"AlwaysPullImages", "ExtendedResourceToleration"} {
		if err := admit(made(t, nil, p), request(core("pods"), "", admission.Create, pod, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if pod.Spec.Containers[0].ImagePullPolicy != v1.PullAlways || len(pod.Spec.Tolerations) != 1 || pod.Spec.Tolerations[0].Key != "example.com/gpu" {
		t.Errorf("%+v", pod.Spec)
	}
}

// TestBehind asks for what is in the store and not yet in the informers.
func TestBehind(t *testing.T) {
	e := environment(t)
	put := func(group, resource, name string, obj runtime.Object) {
		t.Helper()
		if _, err := e.Store.Create(t.Context(), e.Catalogue.Must(group, "v1", resource).Key("", name), obj, 0); err != nil {
			t.Fatal(err)
		}
	}
	meta := metav1.ObjectMeta{Name: "new"}
	put("scheduling.k8s.io", "priorityclasses", "new", &schedulingv1.PriorityClass{ObjectMeta: meta, Value: 7})
	put("node.k8s.io", "runtimeclasses", "new", &nodev1.RuntimeClass{ObjectMeta: meta, Handler: "h", Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"a": "b"}}})
	put("", "nodes", "new", &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "new", Labels: map[string]string{v1.LabelTopologyZone: "z"}}})
	put("storage.k8s.io", "storageclasses", "new", &storagev1.StorageClass{ObjectMeta: meta, AllowVolumeExpansion: new(true)})

	pods := v1.SchemeGroupVersion.WithResource("pods")
	pod := &v1.Pod{Spec: v1.PodSpec{PriorityClassName: "new", RuntimeClassName: new("new"), NodeName: "new"}}
	for _, name := range []string{"Priority", "RuntimeClass", "PodTopologyLabels"} {
		if err := made(t, e, name).(admission.MutationInterface).Admit(t.Context(), request(pods, "", admission.Create, pod, nil), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if pod.Spec.Priority == nil || *pod.Spec.Priority != 7 || pod.Spec.NodeSelector["a"] != "b" || pod.Labels[v1.LabelTopologyZone] != "z" {
		t.Errorf("the pod has the priority %v, the node selector %v and the labels %v", pod.Spec.Priority, pod.Spec.NodeSelector, pod.Labels)
	}
	claim := &v1.PersistentVolumeClaim{Spec: v1.PersistentVolumeClaimSpec{StorageClassName: new("new")}, Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound}}
	larger := claim.DeepCopy()
	larger.Spec.Resources.Requests = v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}
	if err := made(t, e, "PersistentVolumeClaimResize").(admission.ValidationInterface).Validate(t.Context(), request(v1.SchemeGroupVersion.WithResource("persistentvolumeclaims"), "", admission.Update, larger, claim), nil); err != nil {
		t.Error(err)
	}
	pod = &v1.Pod{Spec: v1.PodSpec{PriorityClassName: "none"}}
	err := made(t, e, "Priority").(admission.MutationInterface).Admit(t.Context(), request(pods, "", admission.Create, pod, nil), nil)
	if err == nil || !strings.Contains(err.Error(), "no PriorityClass with name none was found") {
		t.Errorf("a class that is nowhere: %v", err)
	}
}
