package catalogue

import (
	"slices"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson.dev/keelson/internal/api"
)

func rowOf(group, version, resource, kind string) *api.Resource {
	return &api.Resource{
		GroupVersionResource: schema.GroupVersionResource{Group: group, Version: version, Resource: resource},
		Kind:                 kind,
	}
}

func groupNames(c *Catalogue) []string {
	var names []string
	for _, g := range c.Groups() {
		names = append(names, g.Name)
	}
	return names
}

func TestLookup(t *testing.T) {
	pods, widgets := rowOf("", "v1", "pods", "Pod"), rowOf("example.com", "v1beta1", "widgets", "Widget")
	c := New([]*api.Resource{pods, widgets})
	if got := c.Lookup("", "v1", "pods"); got != pods {
		t.Errorf("Lookup of pods gave %v", got)
	}
	if got := c.Lookup("", "v2", "pods"); got != nil {
		t.Errorf("Lookup of an unknown version gave %v", got)
	}
	if got := c.ForKind(schema.GroupVersionKind{Group: "example.com", Version: "v1beta1", Kind: "Widget"}); got != widgets {
		t.Errorf("ForKind of Widget gave %v", got)
	}
	group, version, resource := "example.com", "v1beta1", "widgets"
	if n := testing.AllocsPerRun(100, func() { c.Lookup(group, version, resource) }); n != 0 {
		t.Errorf("Lookup allocates %v times", n)
	}
}

func TestAddAndRemove(t *testing.T) {
	c := New([]*api.Resource{rowOf("", "v1", "pods", "Pod")})
	first := c.Generation()
	before := c.Rows()

	c.Add(rowOf("example.com", "v1", "widgets", "Widget"), rowOf("example.com", "v2alpha1", "widgets", "Widget"))
	second := c.Generation()
	if second == first {
		t.Error("Add left the generation as it was")
	}
	if len(before) != 1 {
		t.Error("Add changed a slice that Rows gave before")
	}
	replaced := rowOf("", "v1", "pods", "Pod")
	c.Add(replaced)
	if c.Rows()[0] != replaced || len(c.Rows()) != 3 {
		t.Errorf("Add of a known resource did not take its place: %v", c.Rows())
	}
	if want := (Group{Name: "example.com", Versions: []string{"v1", "v2alpha1"}}); !slices.Equal(c.Groups()[1].Versions, want.Versions) {
		t.Errorf("groups are %v, want %v second", c.Groups(), want)
	}

	c.Remove(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"},
		schema.GroupVersionResource{Group: "example.com", Version: "v2alpha1", Resource: "widgets"},
		schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "unknown"})
	if c.Generation() == second {
		t.Error("Remove left the generation as it was")
	}
	if got := groupNames(c); !slices.Equal(got, []string{""}) {
		t.Errorf("after Remove the groups are %q", got)
	}
	if c.ForKind(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"}) != nil {
		t.Error("Remove left the kind")
	}
}

func TestGroupOrder(t *testing.T) {
	var rows []*api.Resource
	for _, g := range []string{
		"zoo.example.com", "resource.k8s.io", "storage.k8s.io", "apiextensions.k8s.io", "admissionregistration.k8s.io", "apps", "",
		"flowcontrol.apiserver.k8s.io", "apiregistration.k8s.io", "ant.example.com", "events.k8s.io", "autoscaling",
	} {
		rows = append(rows, rowOf(g, "v1", "things", "Thing"))
	}
	rows = append(rows, rowOf("autoscaling", "v2", "things", "Thing"))
	c := New(rows)
	want := []string{
		"", "apiregistration.k8s.io", "apps", "events.k8s.io", "autoscaling", "storage.k8s.io", "admissionregistration.k8s.io",
		"apiextensions.k8s.io", "flowcontrol.apiserver.k8s.io", "resource.k8s.io", "ant.example.com", "zoo.example.com",
	}
	if got := groupNames(c); !slices.Equal(got, want) {
		t.Errorf("groups are\n%q, want\n%q", got, want)
	}
	if got := c.Groups()[4].Versions; !slices.Equal(got, []string{"v2", "v1"}) {
		t.Errorf("versions of autoscaling are %q, want the preferred one first", got)
	}
}

// Readers and writers at once: a reader sees all rows of an Add or none.
func TestConcurrentUse(t *testing.T) {
	c := New([]*api.Resource{rowOf("", "v1", "pods", "Pod")})
	a, b := rowOf("example.com", "v1", "as", "A"), rowOf("example.com", "v1", "bs", "B")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if n := len(c.Rows()); n != 1 && n != 3 {
					t.Errorf("a reader sees %d rows", n)
				}
				if c.Lookup("", "v1", "pods") == nil {
					t.Error("pods are gone")
				}
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			c.Add(a, b)
			c.Remove(a.GroupVersionResource, b.GroupVersionResource)
		}
	})
	wg.Wait()
}

// TestForKey finds the resource of each row by a key of its objects.
func TestForKey(t *testing.T) {
	c := New(Builtin())
	for _, row := range Builtin() {
		if row.NotStored || row.Hub != nil {
			continue
		}
		ns := ""
		if row.Namespaced {
			ns = "ns"
		}
		if got, namespace, name := c.ForKey(row.Key(ns, "x")); got != row || namespace != ns || name != "x" {
			t.Errorf("at %s is %v %s/%s, want %v", row.Key(ns, "x"), got, namespace, name, row)
		}
	}
	const key = "/registry/example.com/widgets/ns/x"
	if row, _, _ := c.ForKey(key); row != nil {
		t.Errorf("there is %v already", row)
	}
	widgets := rowOf("example.com", "v1", "widgets", "Widget")
	widgets.StoragePrefix, widgets.Namespaced = "example.com/widgets", true
	c.Add(widgets)
	if row, namespace, name := c.ForKey(key); row != widgets || namespace != "ns" || name != "x" {
		t.Errorf("at %s is %v %s/%s", key, row, namespace, name)
	}
	c.Remove(widgets.GroupVersionResource)
	for _, key := range []string{key, "/registry/keelson/x", "/registry/services/x", "/registry/", "/other/pods/ns/x", ""} {
		if row, _, _ := c.ForKey(key); row != nil {
			t.Errorf("at %q is %v", key, row)
		}
	}
}

func BenchmarkForKey(b *testing.B) {
	c := New(Builtin())
	for b.Loop() {
		if row, _, _ := c.ForKey("/registry/services/specs/default/kubernetes"); row == nil {
			b.Fatal("there is none")
		}
	}
}
