package controlplane

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"keelson.dev/keelson/test/harness"
)

const fishDefinition = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"fish.bench.example.com"},"spec":{"group":"bench.example.com","scope":"Namespaced",
"names":{"plural":"fish","singular":"fish","kind":"Fish","listKind":"FishList"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{
"spec":{"type":"object","properties":{"colour":{"type":"string"},"length":{"type":"integer"},"tags":{"type":"array","items":{"type":"string"}}}}}}}}]}}`

// BenchmarkCreate measures a creation in the API server: decoding, admission,
// validation, managed fields, the store in memory and the answer.
func BenchmarkCreate(b *testing.B) {
	const custom = "/apis/bench.example.com/v1/namespaces/default/fish"
	for _, kind := range []struct{ name, path, body string }{
		{"CustomResource", custom, `{"apiVersion":"bench.example.com/v1","kind":"Fish","metadata":{"name":%q,"labels":{"app":"bench"}},"spec":{"colour":"silver","length":42,"tags":["a","b","c"]}}`},
		{"ConfigMap", "/api/v1/namespaces/default/configmaps", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"labels":{"app":"bench"}},"data":{"a":"b"}}`},
		{"Pod", "/api/v1/namespaces/default/pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"labels":{"app":"bench"}},"spec":{"schedulerName":"none","containers":[{"name":"c","image":"example.com/app:1","env":[{"name":"A","value":"B"}],"resources":{"requests":{"cpu":"10m","memory":"16Mi"}}}]}}`},
	} {
		b.Run(kind.name, func(b *testing.B) {
			c := boot(b, Options{NoDrain: true})
			if w := ask(c, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", fishDefinition); w.Code != http.StatusCreated {
				b.Fatal(w.Body)
			}
			harness.Eventually(b, "the definition to be served", func() bool { return ask(c, "GET", custom, "").Code == http.StatusOK })
			if w := ask(c, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"default"}}`); w.Code != http.StatusCreated { // no controllers run
				b.Fatal(w.Body)
			}
			var n atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if w := ask(c, "POST", kind.path, fmt.Sprintf(kind.body, fmt.Sprintf("o-%d", n.Add(1)))); w.Code != http.StatusCreated {
						b.Error(w.Body)
						return
					}
				}
			})
		})
	}
}

// BenchmarkGet measures a read of one object, in JSON.
func BenchmarkGet(b *testing.B) {
	c := boot(b, Options{NoDrain: true})
	if w := ask(c, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"a"},"data":{"a":"b"}}`); w.Code != http.StatusCreated {
		b.Fatal(w.Body)
	}
	b.ReportAllocs()
	for b.Loop() {
		if w := ask(c, "GET", "/api/v1/namespaces/default/configmaps/a", ""); w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
