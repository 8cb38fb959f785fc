package objectjson

import (
	"encoding/json"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"
)

var inputs = []string{
	`{}`, `{"a":null}`, ` { "a" : [ ] , "b" : [ 1 , 2.5 , -3 , 0 , 1e3 , -1E-7 , 123456789012 ] , "c" : { } } `,
	`{"kind":"Fish","metadata":{"name":"a","labels":{"x":"y"},"annotations":{"q":"{\"a\":\"b\\n\"}\n"}},"t":true,"f":false}`,
	`{"a":"<b>&\u003c\u2028\u00e9é\/\b\f\r\t"}`, `{"a":1.0,"b":1e21,"c":1e-9,"d":100000000000000000000}`, `{"a":9223372036854775807,"b":-9223372036854775808}`,
	`{"a":9223372036854775808}`, `{"a":-0}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":1,"a":2}`, `{"a":1}x`, `{"a":1}{}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1]`, `1`, ``,
	`{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, "{\"a\":\"\xff\"}", "{\"a\":\"\x01\"}", `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"`, `{"a":[1,]}`, `{"a":tru}`, `{"a":nul`, `{"A":1,"a":2}`,
}

// check compares with the libraries: they accept everything that Decode
// accepts, with the same result, and what it gives is written as they write it.
func check(t *testing.T, data []byte) bool {
	t.Helper()
	got, ok := Decode(data)
	if !ok {
		return false
	}
	var want map[string]any
	if strict, err := kjson.UnmarshalStrict(data, &want); err != nil || len(strict) > 0 {
		t.Fatalf("%q is taken, where the library says: %v %v", data, err, strict)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q is %v, want %v", data, got, want)
	}
	b, err := Marshal(got)
	if err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	wanted, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != string(wanted) {
		t.Fatalf("%q is written as\n%s, want\n%s", data, b, wanted)
	}
	return true
}

func TestDecode(t *testing.T) {
	taken := 0
	for _, in := range inputs {
		if check(t, []byte(in)) {
			taken++
		}
	}
	if taken != 7 {
		t.Errorf("%d inputs are taken", taken)
	}
}

func TestMarshal(t *testing.T) {
	for _, v := range []any{map[string]any(nil), []any(nil), "\xff\u2029\x7f\x00", map[string]any{"a": []any{nil, true, int64(1), 1e-7, 1e20, 1e21, -1.5e-300, 0.1}}} {
		got, err := Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := json.Marshal(v)
		if string(got) != string(want) {
			t.Errorf("%v is written as %s, want %s", v, got, want)
		}
	}
	if _, err := Marshal(map[string]any{"a": []string{"b"}}); err == nil {
		t.Error("a slice of strings is written")
	}
}

func FuzzDecode(f *testing.F) {
	for _, in := range inputs {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data) })
}

var fish = []byte(`{"apiVersion":"bench.example.com/v1","kind":"Fish","metadata":{"name":"a","labels":{"app":"bench"}},"spec":{"colour":"silver","length":42,"tags":["a","b","c"]}}`)

func BenchmarkDecode(b *testing.B) {
	b.Run("objectjson", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := Decode(fish); !ok {
				b.Fatal("not taken")
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var m map[string]any
			if _, err := kjson.UnmarshalStrict(fish, &m); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkMarshal(b *testing.B) {
	m, _ := Decode(fish)
	b.Run("objectjson", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Marshal(m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := (&unstructured.Unstructured{Object: m}).MarshalJSON(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func decoded(t *testing.T, s string) map[string]any {
	t.Helper()
	m, ok := Decode([]byte(s))
	if !ok {
		t.Fatalf("%s is not taken", s)
	}
	return m
}

func TestSameShape(t *testing.T) {
	const one = `{"a":"x","b":{"c":1,"d":[{"e":"f","g":[true,null,1.5]}]},"n":null,"t":true}`
	for in, want := range map[string]bool{
		one: true,
		`{"a":"y","b":{"c":2,"d":[{"e":"f","g":[true,null,1.5]}]},"n":null,"t":false}`:       true,
		`{"a":"y","b":{"c":2,"d":[{"e":"F","g":[true,null,1.5]}]},"n":null,"t":false}`:       false,
		`{"a":"y","b":{"c":2,"d":[{"e":"f","g":[true,null,1.5,2]}]},"n":null,"t":false}`:     false,
		`{"a":"y","b":{"c":2,"d":[{"e":"f","g":[true,null,2.5]}]},"n":null,"t":false}`:       false,
		`{"a":"y","b":{"c":2.5,"d":[{"e":"f","g":[true,null,1.5]}]},"n":null,"t":false}`:     false,
		`{"a":"y","b":{"c":2,"d":[{"e":"f","g":[true,null,1.5]}]},"n":"","t":false}`:         false,
		`{"a":"y","b":{"c":2,"d":[{"e":"f","g":[true,null,1.5]}]},"t":false}`:                false,
		`{"a":"y","b":{"c":2,"d":[{"e":"f","g":[true,null,1.5]}]},"n":null,"t":1}`:           false,
		`{"a":"y","b":{"c":2,"d":[{"e":"f","g":[true,null,1.5]}]},"n":null,"t":true,"u":{}}`: false,
	} {
		m := decoded(t, in)
		if got := SameShape(decoded(t, one), m); got != want {
			t.Errorf("%s: %v", in, got)
		}
		if !SameShape(Shape(m), m) {
			t.Errorf("%s: not of its own shape", in)
		}
	}
}

func TestShare(t *testing.T) {
	const object = `{"metadata":{"managedFields":[{"manager":"m","fieldsV1":{"f:spec":{"f:a":{}}}},{"manager":"n"}]}}`
	a, b := decoded(t, object), decoded(t, object)
	ShareManagedFields(a)
	ShareManagedFields(b)
	set := func(m map[string]any) map[string]any {
		return m["metadata"].(map[string]any)["managedFields"].([]any)[0].(map[string]any)["fieldsV1"].(map[string]any)
	}
	if reflect.ValueOf(set(a)).Pointer() != reflect.ValueOf(set(b)).Pointer() {
		t.Error("two equal sets are not shared")
	}
	for i := range 2 * shares {
		Share(map[string]any{"n": int64(i)})
	}
	if n := shared.used.Len(); n != shares || len(shared.byJSON) != shares {
		t.Errorf("%d and %d maps are known", n, len(shared.byJSON))
	}
}
