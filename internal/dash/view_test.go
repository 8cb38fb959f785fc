package dash

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
)

// view is what a client of a stream has of the cluster.
type view struct {
	t     testing.TB
	names [classes]map[float64]string // by number
	// lines are what is shown of each object, with names in place of numbers.
	lines map[string]string
	// others are the other lines, by kind; steps are counted.
	hello map[string]any
	ready bool
	bye   string
	stats map[string]any
	steps [][]any
}

func newView(t testing.TB) *view {
	v := &view{t: t, lines: map[string]string{}}
	for c := range v.names {
		v.names[c] = map[float64]string{}
	}
	return v
}

// name returns the name of a number that a line refers to.
func (v *view) name(c class, id any) string {
	n, ok := id.(float64)
	if !ok {
		v.t.Errorf("%v is no number", id)
	}
	if n == 0 {
		return "-"
	}
	name, ok := v.names[c][n]
	if !ok {
		v.t.Errorf("%s %v is referred to, and there is none", c, n)
	}
	return name
}

// read takes lines.
func (v *view) read(lines string) {
	for line := range strings.Lines(lines) {
		v.line(line)
	}
}

func (v *view) line(line string) {
	var l []any
	if err := json.Unmarshal([]byte(line), &l); err != nil || len(l) == 0 {
		v.t.Fatalf("%q: %v", line, err)
	}
	show := func(c class, name, what string) {
		if was, ok := v.names[c][l[1].(float64)]; ok && was != name {
			v.t.Errorf("%s %v is %s, and is to be %s, too", c, l[1], was, name)
		}
		v.names[c][l[1].(float64)] = name
		v.lines[c.String()+" "+name] = what
	}
	switch l[0] {
	case "hello":
		v.hello = l[1].(map[string]any)
	case "node":
		show(node, l[2].(string), fmt.Sprintf("%v %v %s", l[3], l[4], l[5]))
	case "owner":
		name := fmt.Sprintf("%s/%s/%s", l[2], l[3], l[4])
		show(owner, name, fmt.Sprintf("%v %v %s", l[5], l[6], v.name(owner, l[7])))
	case "pod":
		show(pod, fmt.Sprintf("%s/%s", l[2], l[3]), fmt.Sprintf("%s %v %v %s %v", v.name(node, l[4]), l[5], l[6], v.name(owner, l[7]), l[8]))
	case "gone":
		for c := range classes {
			if c.String() == l[1] {
				delete(v.lines, c.String()+" "+v.name(c, l[2]))
				delete(v.names[c], l[2].(float64))
			}
		}
	case "ready":
		v.ready = true
	case "bye":
		v.bye = l[1].(string)
	case "stats":
		v.stats = l[1].(map[string]any)
	case "steps":
		for _, s := range l[1].([]any) {
			v.steps = append(v.steps, s.([]any))
		}
	case "dropped", "ping":
	default:
		v.t.Errorf("unknown line %s", line)
	}
}

// state returns what is shown, in order.
func (v *view) state() string {
	b, err := json.MarshalIndent(v.lines, "", " ")
	if err != nil {
		v.t.Fatal(err)
	}
	return string(b)
}

// world is a store that a test writes to.
type world struct {
	t     testing.TB
	store store.Store
	cat   *catalogue.Catalogue
}

func newWorld(t testing.TB) *world {
	st, err := embedded.Open(embedded.Options{Codec: store.NewCodec(catalogue.Scheme)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t, st, catalogue.New(catalogue.Builtin())}
}

// key returns the key of an object.
func (w *world) key(o runtime.Object) string {
	m, err := meta.Accessor(o)
	if err != nil {
		w.t.Fatal(err)
	}
	group, resource := "", ""
	switch o.(type) {
	case *v1.Node:
		resource = "nodes"
	case *v1.Pod:
		resource = "pods"
	case *v1.Secret:
		resource = "secrets"
	case *appsv1.Deployment:
		group, resource = "apps", "deployments"
	case *appsv1.ReplicaSet:
		group, resource = "apps", "replicasets"
	default:
		w.t.Fatalf("no resource for %T", o)
	}
	return w.cat.Must(group, "v1", resource).Key(m.GetNamespace(), m.GetName())
}

// put creates or replaces an object.
func (w *world) put(o runtime.Object) {
	key := w.key(o)
	e, err := w.store.Get(w.t.Context(), key)
	switch {
	case err != nil:
	case e == nil:
		_, err = w.store.Create(w.t.Context(), key, o, 0)
	default:
		_, err = w.store.Update(w.t.Context(), key, e.ModRevision, o, 0)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// remove deletes an object, if it is there.
func (w *world) remove(o runtime.Object) {
	key := w.key(o)
	e, err := w.store.Get(w.t.Context(), key)
	if err == nil && e != nil {
		_, err = w.store.Delete(w.t.Context(), key, e.ModRevision)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}
