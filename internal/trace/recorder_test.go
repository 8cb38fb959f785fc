package trace

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// names returns the objects of steps and what was done to them.
func names(steps []Step) string {
	var out []string
	for _, s := range steps {
		out = append(out, s.Name+":"+s.What)
	}
	return strings.Join(out, " ")
}

// TestWay follows what a Deployment caused.
func TestWay(t *testing.T) {
	r := NewRecorder(DefaultLimit)
	add := func(uid, cause, what string) {
		r.Add(Step{UID: types.UID(uid), Name: uid, Resource: "x", CauseUID: types.UID(cause), What: what})
	}
	add("deployment", "", "made")
	add("set", "deployment", "made")
	add("other", "", "made")
	add("deployment", "deployment", "seen")
	add("pod", "set", "made")
	add("pod", "pod", "bound")
	add("set", "other", "touched")
	add("pod", "", "ready")
	for uid, want := range map[string]string{
		"deployment": "deployment:made set:made deployment:seen pod:made pod:bound pod:ready",
		"pod":        "pod:made pod:bound pod:ready",
		"other":      "other:made pod:made pod:bound set:touched pod:ready",
		"none":       "",
	} {
		if got := names(r.Way(types.UID(uid))); got != want {
			t.Errorf("the way of %s is %s, want %s", uid, got, want)
		}
	}
	if got := r.Find("x", "", "pod"); got != "pod" {
		t.Errorf("found %q", got)
	}
	if got := r.Find("y", "", "pod"); got != "" {
		t.Errorf("found %q of another resource", got)
	}
}

// TestBound records more than there is room for.
func TestBound(t *testing.T) {
	const kept = 100
	step := func(i int) Step {
		return Step{UID: types.UID(fmt.Sprintf("object-%05d", i/3)), Name: fmt.Sprintf("%05d", i), CauseUID: types.UID(fmt.Sprintf("object-%05d", i/7))}
	}
	one := step(0)
	r := NewRecorder(kept * one.Size())
	for i := range 10_000 {
		r.Add(step(i))
	}
	if len(r.steps) != kept || r.bytes != kept*one.Size() {
		t.Errorf("%d steps of %d bytes, want %d of %d", len(r.steps), r.bytes, kept, kept*one.Size())
	}
	on, because := map[types.UID][]*Step{}, map[types.UID][]*Step{}
	for _, s := range r.steps {
		on[s.UID] = append(on[s.UID], s)
		if s.UID != s.CauseUID {
			because[s.CauseUID] = append(because[s.CauseUID], s)
		}
	}
	if !reflect.DeepEqual(r.on, on) || !reflect.DeepEqual(r.because, because) {
		t.Error("the indexes have other steps than there are")
	}
}

// TestMemory fills records with steps of each shape, twice over, and finds that they take no
// more memory than they were given, and make use of it.
func TestMemory(t *testing.T) {
	const limit = 16 << 20
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	uid := func(i int) types.UID { return types.UID(fmt.Sprintf("0f6b5b53-0f43-4e63-9c49-%012d", i)) }
	write := func(i int) Step {
		return Step{UID: uid(i), Name: fmt.Sprintf("web-57cb68b45c-%05d", i), Namespace: fmt.Sprintf("namespace-%d", i), Resource: "pods", Verb: "create", ResourceVersion: fmt.Sprint(i)}
	}
	for name, step := range map[string]func(i int) Step{
		"of objects without a cause": write,
		"of the same objects":        func(i int) Step { s := write(i); s.UID = uid(i / 10 * 10); return s },
		"each because of another": func(i int) Step {
			s := write(i)
			s.CauseUID, s.CauseVersion = uid(i-1), fmt.Sprint(i-1)
			return s
		},
		"because of causes that are not recorded": func(i int) Step {
			s := write(i)
			s.CauseUID, s.CauseVersion = uid(-i), fmt.Sprint(i-1)
			return s
		},
		"with parts, about others": func(i int) Step {
			s := write(i)
			s.CauseUID, s.CauseVersion = uid(i-1), fmt.Sprint(i-1)
			s.Parts, s.About = []Part{{Name: fmt.Sprint("webhook ", i), Detail: "allowed it"}}, []types.UID{uid(i + 1), uid(i + 2)}
			return s
		},
		"about many others": func(i int) Step {
			s := write(i)
			for j := range 100 {
				s.About = append(s.About, uid(100*i+j))
			}
			return s
		},
	} {
		before := heap()
		r := NewRecorder(limit)
		n := 0
		for size := 0; size < 2*limit; n++ {
			s := step(n)
			size += s.Size()
			r.Add(s)
		}
		took := heap() - before
		t.Logf("%s: %d steps take %d bytes of %d", name, len(r.steps), took, limit)
		if took > limit || took < limit/3 {
			t.Errorf("steps %s take %d bytes of the limit of %d", name, took, limit)
		}
		if len(r.steps) == n || len(r.on) > len(r.steps) || len(r.because) > len(r.steps) || len(r.about) > 100*len(r.steps) {
			t.Errorf("%d steps %s, and the indexes have %d, %d and %d objects", len(r.steps), name, len(r.on), len(r.because), len(r.about))
		}
		runtime.KeepAlive(r)
	}
}

func BenchmarkAdd(b *testing.B) {
	r := NewRecorder(DefaultLimit)
	steps := make([]Step, 100_000)
	for i := range steps {
		steps[i] = Step{UID: types.UID(fmt.Sprintf("0f6b5b53-0f43-4e63-9c49-%012d", i/4)), Name: "web-57cb68b45c-88gm5", Namespace: "default", CauseUID: types.UID(fmt.Sprintf("0f6b5b53-0f43-4e63-9c49-%012d", i/40))}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Add(steps[i%len(steps)])
	}
}

func BenchmarkWay(b *testing.B) {
	r := NewRecorder(DefaultLimit)
	for i := range 100_000 {
		r.Add(Step{UID: types.UID(fmt.Sprint(i / 4)), CauseUID: types.UID(fmt.Sprint(i / 40))})
	}
	for b.Loop() {
		r.Way("2400")
	}
}
