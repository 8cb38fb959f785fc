package controlplane

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"keelson.dev/keelson/test/harness"
)

// liveHeap returns the size of the heap in use after a garbage collection, in
// bytes.
func liveHeap() float64 {
	runtime.GC()
	runtime.GC() // the finalizers of the first one let go of more
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return float64(s[0].Value.Uint64())
}

// definition is of a usual size: 50 properties, described and checked.
func definition(n int) string {
	var properties []string
	for p := range 50 {
		properties = append(properties, fmt.Sprintf(`"property%02d":{"type":"string","description":"The %d-th property of the kind, whose description is as long as that of many others.","maxLength":%d}`, p, p, 63+p))
	}
	return fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things%[1]d.group%[2]d.example.com"},"spec":{"group":"group%[2]d.example.com","scope":"Namespaced",
"names":{"plural":"things%[1]d","singular":"thing%[1]d","kind":"Thing%[1]d","listKind":"Thing%[1]dList"},"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},
"additionalPrinterColumns":[{"name":"First","type":"string","jsonPath":".spec.property00"}],
"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{%[3]s}},"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}]}}`, n, n%100, strings.Join(properties, ","))
}

// Benchmark1000CRDs defines 1,000 resources of 100 groups, and waits until each is
// served and in the discovery documents. It reports their cost: the time, the
// memory, the index of the OpenAPI documents, the one document of everything, and
// the time until all are served after a restart.
func Benchmark1000CRDs(b *testing.B) {
	const count = 1000
	for b.Loop() {
		b.StopTimer()
		o := Options{DataDir: b.TempDir(), NoDrain: true}
		c, err := Start(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		before := liveHeap()
		b.StartTimer()
		begin := time.Now()
		var wg sync.WaitGroup
		served := func(c *Instance, n int) {
			harness.Eventually(b, "the definition to be served", func() bool {
				return ask(c, "GET", fmt.Sprintf("/apis/group%d.example.com/v1/things%d", n%100, n), "").Code == http.StatusOK
			})
		}
		for w := range 8 {
			wg.Go(func() {
				for n := w; n < count; n += 8 {
					if r := ask(c, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(n)); r.Code != http.StatusCreated {
						b.Error(r.Body)
						return
					}
				}
				for n := w; n < count; n += 8 {
					served(c, n)
				}
			})
		}
		wg.Wait()
		for n := range 100 {
			path := fmt.Sprintf("/apis/group%d.example.com/v1", n)
			harness.Eventually(b, "the definitions to be served", func() bool {
				return strings.Count(ask(c, "GET", path, "").Body.String(), `"kind":"Thing`) == 2*count/100 // with their status
			})
			if r := ask(c, "GET", "/openapi/v3"+path, ""); r.Code != http.StatusOK {
				b.Error(r.Body)
			}
		}
		b.StopTimer()
		b.ReportMetric(time.Since(begin).Seconds(), "s/1000")
		b.ReportMetric((liveHeap()-before)/1e6, "MB/1000")
		timed := func(unit, path string) {
			begin := time.Now()
			if r := ask(c, "GET", path, ""); r.Code != http.StatusOK || !strings.Contains(r.Body.String(), "group99.example.com/v1") {
				b.Errorf("%s: %d", path, r.Code)
			}
			b.ReportMetric(time.Since(begin).Seconds(), unit)
		}
		timed("s/index", "/openapi/v3")
		timed("s/openapiv2", "/openapi/v2")
		if err := c.Stop(); err != nil {
			b.Error(err)
		}
		begin = time.Now()
		if c, err = Start(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		for n := range count {
			served(c, n)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "s/restart")
		if err := c.Stop(); err != nil {
			b.Error(err)
		}
		b.StartTimer()
	}
}
