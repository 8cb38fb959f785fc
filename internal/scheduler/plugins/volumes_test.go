package plugins

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

func indexer[T any](t *testing.T, objects []any) cache.Indexer {
	t.Helper()
	i := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for _, o := range objects {
		if x, ok := o.(*T); ok {
			if err := i.Add(x); err != nil {
				t.Fatal(err)
			}
		}
	}
	return i
}

func storageOf(t *testing.T, objects ...any) *Volumes {
	return &Volumes{
		Claims:   corelisters.NewPersistentVolumeClaimLister(indexer[v1.PersistentVolumeClaim](t, objects)),
		Volumes:  corelisters.NewPersistentVolumeLister(indexer[v1.PersistentVolume](t, objects)),
		Classes:  storagelisters.NewStorageClassLister(indexer[storagev1.StorageClass](t, objects)),
		CSINodes: storagelisters.NewCSINodeLister(indexer[storagev1.CSINode](t, objects)),
		Drivers:  storagelisters.NewCSIDriverLister(indexer[storagev1.CSIDriver](t, objects)), Capacities: storagelisters.NewCSIStorageCapacityLister(indexer[storagev1.CSIStorageCapacity](t, objects)),
	}
}

// claimOf makes a claim, bound to the volume if one is named.
func claimOf(name, class, volume string, modes ...v1.PersistentVolumeAccessMode) *v1.PersistentVolumeClaim {
	c := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: v1.PersistentVolumeClaimSpec{StorageClassName: &class, VolumeName: volume, AccessModes: modes, Resources: v1.VolumeResourceRequirements{Requests: quantities([]string{"storage", "1Gi"})}}}
	if volume != "" {
		c.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
	}
	return c
}

func volumeOf(name, class string, change func(*v1.PersistentVolume)) *v1.PersistentVolume {
	pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PersistentVolumeSpec{StorageClassName: class, Capacity: quantities([]string{"storage", "1Gi"}),
		PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: "disk", VolumeHandle: name}}}, Status: v1.PersistentVolumeStatus{Phase: v1.VolumeAvailable}}
	if change != nil {
		change(pv)
	}
	return pv
}

func onHost(name string) func(*v1.PersistentVolume) {
	return func(pv *v1.PersistentVolume) {
		pv.Spec.NodeAffinity = &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{
			{MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{name}}}}}}}
	}
}

func uses(claims ...string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		for _, c := range claims {
			p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: c, VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: c}}})
		}
	}
}

func TestVolumeFilters(t *testing.T) {
	late := func(provisioner string, zones ...string) *storagev1.StorageClass {
		c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Provisioner: provisioner, VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)}
		if len(zones) > 0 {
			c.AllowedTopologies = []v1.TopologySelectorTerm{{MatchLabelExpressions: []v1.TopologySelectorLabelRequirement{{Key: zoneLabel, Values: zones}}}}
		}
		return c
	}
	deleted := claimOf("c", "", "")
	deleted.DeletionTimestamp = &metav1.Time{}
	lost := claimOf("c", "", "pv")
	lost.Status.Phase = v1.ClaimLost
	selected := claimOf("c", "late", "")
	selected.Annotations = map[string]string{"volume.kubernetes.io/selected-node": "b"}
	limit := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "disk", Allocatable: &storagev1.VolumeNodeResources{Count: ptr.To[int32](1)}}}}}
	nodes := view{node("a", label(zoneLabel, "1")), node("b", label(zoneLabel, "2"))}
	const none = "node(s) didn't find available persistent volumes to bind!"
	for _, c := range []struct {
		name    string
		plugin  func(*Volumes, view) fw.FilterPlugin
		objects []any
		pod     *v1.Pod
		nodes   view
		want    []string
	}{
		{"no claim", nil, nil, pod("p"), nodes, []string{"", ""}},
		{"no such claim", nil, nil, pod("p", uses("c")), nodes, []string{`all: persistentvolumeclaim "c" not found!`}},
		{"a claim being deleted", nil, []any{deleted}, pod("p", uses("c")), nodes, []string{`all: persistentvolumeclaim "c" is being deleted!`}},
		{"a claim that lost its volume", nil, []any{lost}, pod("p", uses("c")), nodes, []string{`all: persistentvolumeclaim "c" bound to non-existent persistentvolume "pv"!`}},
		{"an unbound claim", nil, []any{claimOf("c", "", "")}, pod("p", uses("c")), nodes, []string{"all: pod has unbound immediate PersistentVolumeClaims!"}},
		{"a claim of an ephemeral volume to come", nil, nil, pod("p", func(p *v1.Pod) {
			p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{}}}}
		}), nodes, []string{`all: waiting for ephemeral volume controller to create the persistentvolumeclaim "p-v"!`}},
		{"bound", nil, []any{claimOf("c", "", "pv"), volumeOf("pv", "", onHost("b"))}, pod("p", uses("c")), nodes, []string{"node(s) didn't match PersistentVolume's node affinity!", ""}},
		{"bound to nothing", nil, []any{claimOf("c", "", "pv")}, pod("p", uses("c")), view{node("a", nil)}, []string{"node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)!"}},
		{"a volume waits on one node", nil, []any{claimOf("c", "late", ""), late("kubernetes.io/no-provisioner"), volumeOf("pv", "late", onHost("b"))}, pod("p", uses("c")), nodes, []string{none, ""}},
		{"one volume for two claims", nil, []any{claimOf("c", "late", ""), claimOf("d", "late", ""), late("kubernetes.io/no-provisioner"), volumeOf("pv", "late", onHost("b"))}, pod("p", uses("c", "d")), nodes, []string{none, none}},
		{"to be provisioned in some zones", nil, []any{claimOf("c", "late", ""), late("disk", "2", "3")}, pod("p", uses("c")), nodes, []string{none, ""}},
		{"being provisioned for a node", nil, []any{selected, late("disk")}, pod("p", uses("c")), nodes, []string{none, ""}},
		{"the volume's zone", func(v *Volumes, _ view) fw.FilterPlugin { return VolumeZone{v} },
			[]any{claimOf("c", "", "pv"), volumeOf("pv", "", func(pv *v1.PersistentVolume) { pv.Labels = map[string]string{zoneLabel: "2__3"} })}, pod("p", uses("c")), append(nodes, node("c", nil)),
			[]string{"node(s) had no available volume zone!", "", ""}},
		{"as many volumes as can be", func(v *Volumes, _ view) fw.FilterPlugin { return NodeVolumeLimits{v} },
			[]any{claimOf("c", "", "pv"), claimOf("d", "", "pv2"), volumeOf("pv", "", nil), volumeOf("pv2", "", nil), limit}, pod("p", uses("c")),
			view{node("a", nil, pod("x", uses("d"))), node("b", nil, pod("x", uses("d")))}, []string{"node(s) exceed max volume count", ""}},
		{"the same volume counts once", func(v *Volumes, _ view) fw.FilterPlugin { return NodeVolumeLimits{v} },
			[]any{claimOf("c", "", "pv"), volumeOf("pv", "", nil), limit}, pod("p", uses("c")), view{node("a", nil, pod("x", uses("c")))}, []string{""}},
		{"for one pod only", func(v *Volumes, n view) fw.FilterPlugin { return VolumeRestrictions{Volumes: v, View: n} },
			[]any{claimOf("c", "", "pv", v1.ReadWriteOncePod)}, pod("p", uses("c")), view{node("a", nil), node("b", nil, pod("x", uses("c")))},
			slices.Repeat([]string{"node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"}, 2)},
		{"for many", func(v *Volumes, n view) fw.FilterPlugin { return VolumeRestrictions{Volumes: v, View: n} },
			[]any{claimOf("c", "", "pv", v1.ReadWriteMany)}, pod("p", uses("c")), view{node("b", nil, pod("x", uses("c")))}, []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := storageOf(t, c.objects...)
			var p fw.FilterPlugin = VolumeBinding{v}
			if c.plugin != nil {
				p = c.plugin(v, c.nodes)
			}
			if got := filter(t, p, c.pod, c.nodes); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestReservedVolume checks that a volume chosen for one pod is not given to
// another, before the API server knows.
func TestReservedVolume(t *testing.T) {
	v := storageOf(t, claimOf("c", "late", ""), claimOf("d", "late", ""), volumeOf("pv", "late", nil),
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)})
	p, nodes := VolumeBinding{v}, view{node("a", nil)}
	first, state := pod("first", uses("c")), fw.NewCycleState()
	if _, st := p.PreFilter(t.Context(), state, first); !st.IsSuccess() {
		t.Fatal(st.Message())
	}
	if st := p.Filter(t.Context(), state, first, nodes[0]); !st.IsSuccess() {
		t.Fatal(st.Message())
	}
	p.Reserve(t.Context(), state, first, "a")
	second := pod("second", uses("d"))
	if got := filter(t, p, second, nodes)[0]; got == "" {
		t.Error("the volume is given twice")
	}
	p.Unreserve(t.Context(), state, first, "a")
	if got := filter(t, p, second, nodes)[0]; got != "" {
		t.Errorf("the volume is not given back: %s", got)
	}
}

// TestCapacity checks that a driver that publishes its capacity provisions only
// where the capacity is sufficient.
func TestCapacity(t *testing.T) {
	late := storagev1.VolumeBindingWaitForFirstConsumer
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Provisioner: "disk", VolumeBindingMode: &late}
	driver := func(publishes bool) *storagev1.CSIDriver {
		return &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "disk"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: &publishes}}
	}
	capacity := func(class, zone, size, most string) *storagev1.CSIStorageCapacity {
		c := &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Name: class + zone + size, Namespace: "default"}, StorageClassName: class,
			NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{"zone": zone}}}
		have := resource.MustParse(size)
		c.Capacity = &have
		if most != "" {
			m := resource.MustParse(most)
			c.MaximumVolumeSize = &m
		}
		return c
	}
	for name, c := range map[string]struct {
		objects []any
		ok      bool
	}{
		"publishes none":     {[]any{driver(false)}, true},
		"no driver":          {nil, true},
		"nothing published":  {[]any{driver(true)}, false},
		"enough":             {[]any{driver(true), capacity("late", "a", "1Gi", "")}, true},
		"too little":         {[]any{driver(true), capacity("late", "a", "1Mi", "")}, false},
		"elsewhere":          {[]any{driver(true), capacity("late", "b", "1Gi", "")}, false},
		"of another class":   {[]any{driver(true), capacity("other", "a", "1Gi", "")}, false},
		"volumes are small":  {[]any{driver(true), capacity("late", "a", "9Gi", "1Mi")}, false},
		"volumes are larger": {[]any{driver(true), capacity("late", "a", "1Mi", "9Gi")}, true},
	} {
		p := VolumeBinding{Volumes: storageOf(t, append(c.objects, class)...)}
		node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"zone": "a"}}}
		b, why, err := p.satisfy([]*v1.PersistentVolumeClaim{claimOf("c", "late", "")}, node)
		if err != nil || (why == "") != c.ok || !c.ok && why != noSpace || c.ok && len(b.provision) != 1 {
			t.Errorf("%s: %q %v %v", name, why, b, err)
		}
	}
}
