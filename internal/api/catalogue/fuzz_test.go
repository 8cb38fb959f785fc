package catalogue

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/equality"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/randfill"

	"keelson.dev/keelson/internal/store"
)

// said decodes JSON, without regard to order and to empty values.
func said(t *testing.T, data []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return withoutEmpty(v)
}

func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if v[k] = withoutEmpty(e); v[k] == nil {
				delete(v, k)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = withoutEmpty(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	}
	return v
}

// FuzzKinds has every kind go through every form: as JSON, protobuf, CBOR and in the
// store an object says the same.
func FuzzKinds(f *testing.F) {
	var kinds []schema.GroupVersionKind
	made := map[schema.GroupVersionKind]func() runtime.Object{}
	for _, row := range Builtin() {
		if gvk := row.GVK(); made[gvk] == nil {
			kinds, made[gvk] = append(kinds, gvk), row.New
		}
	}
	for i := range kinds {
		f.Add(uint16(i), []byte{byte(i), 7, 200, 31, byte(3 * i), 99, 4, 250, 17, 8, 120, byte(7 * i)})
	}
	codecs := serializer.NewCodecFactory(Scheme)
	fill := fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs)
	forms := map[string]runtime.Serializer{
		"JSON": kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, Scheme, Scheme, kjson.SerializerOptions{}),
		"CBOR": cbor.NewSerializer(Scheme, Scheme), "protobuf": protobuf.NewSerializer(Scheme, Scheme),
	}
	stored := store.NewCodec(Scheme)
	f.Fuzz(func(t *testing.T, kind uint16, seed []byte) {
		gvk := kinds[int(kind)%len(kinds)]
		obj := made[gvk]()
		randfill.NewFromGoFuzz(seed).NilChance(0.3).NumElements(1, 2).MaxDepth(8).Funcs(fill(codecs)...).Fill(obj)
		obj.GetObjectKind().SetGroupVersionKind(gvk)
		// What JSON cannot say, such as the difference of nil and nothing, is not compared.
		first, err := json.Marshal(obj)
		if err != nil {
			return // JSON cannot say it
		}
		obj = made[gvk]()
		if err := json.Unmarshal(first, obj); err != nil {
			return // JSON cannot say it
		}
		first, err = json.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		for name, s := range forms {
			var b bytes.Buffer
			if err := s.Encode(obj, &b); err != nil {
				t.Errorf("%s as %s: %v", gvk, name, err)
				continue
			}
			back, _, err := s.Decode(b.Bytes(), &gvk, made[gvk]())
			if err != nil {
				t.Errorf("%s from %s: %v", gvk, name, err)
				continue
			}
			back.GetObjectKind().SetGroupVersionKind(gvk)
			again, err := json.Marshal(back)
			if err != nil || !reflect.DeepEqual(said(t, again), said(t, first)) {
				t.Errorf("%s as %s was\n%s and is\n%s, %v", gvk, name, first, again, err)
			}
		}
		value, err := stored.Encode(obj)
		if err != nil {
			return // not every kind is stored
		}
		back, err := stored.Decode(value)
		if err != nil {
			t.Fatalf("%s was stored and cannot be read: %v", gvk, err)
		}
		back.GetObjectKind().SetGroupVersionKind(gvk)
		if !equality.Semantic.DeepEqual(back, obj) {
			t.Errorf("%s in the store was\n%+v and is\n%+v", gvk, obj, back)
		}
	})
}
