package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/dash"
	"keelson.dev/keelson/test/harness"
)

// BenchmarkDash measures writes while a page of keelson dash is open and while none is, by
// turns, so that both find the machine in the same state: statuses of 2,000 pods are
// written by four clients, as fast as they can.
func BenchmarkDash(b *testing.B) {
	c := boot(b, Options{NoDrain: true})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.Server.ServeHTTP(w, r.WithContext(apiserver.WithUser(r.Context(), inprocess.Admin)))
	}))
	defer server.Close()
	const pods = 2000
	if w := ask(c, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"default"}}`); w.Code != http.StatusCreated { // no controllers run
		b.Fatal(w.Body)
	}
	for i := range pods {
		if w := ask(c, "POST", "/api/v1/namespaces/default/pods", fmt.Sprintf(`{"metadata":{"name":"p-%d"},"spec":{"schedulerName":"none","containers":[{"name":"c","image":"example.com/app:1"}]}}`, i)); w.Code != http.StatusCreated {
			b.Fatal(w.Body)
		}
	}
	open := func() (shut func()) {
		ctx, cancel := context.WithCancel(b.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+dash.Path, nil)
		if err != nil {
			b.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		var mu sync.Mutex
		var n, beginning int64
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			buf := make([]byte, 64<<10)
			for {
				k, err := resp.Body.Read(buf)
				mu.Lock()
				n += int64(k)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		}()
		size := func() int64 { mu.Lock(); defer mu.Unlock(); return n }
		harness.Eventually(b, "the first picture is there", func() bool { beginning = size(); return beginning > pods*30 })
		return func() {
			if size() == beginning {
				b.Error("the stream says nothing")
			}
			cancel()
			<-ended
			resp.Body.Close()
		}
	}
	round := 0
	const writers = 4
	write := func() (took, work time.Duration) {
		round++
		began, before := time.Now(), processorTime(b, 0)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := w; i < pods; i += writers {
					body := fmt.Sprintf(`{"status":{"containerStatuses":[{"name":"c","image":"","imageID":"","ready":true,"restartCount":%d}]}}`, round)
					req := httptest.NewRequest(http.MethodPatch, fmt.Sprintf("/api/v1/namespaces/default/pods/p-%d/status", i), strings.NewReader(body))
					req.Header.Set("Content-Type", "application/merge-patch+json")
					w := httptest.NewRecorder()
					if c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), inprocess.Admin))); w.Code != http.StatusOK {
						b.Error(w.Body)
						return
					}
				}
			})
		}
		wg.Wait()
		return time.Since(began), processorTime(b, 0) - before
	}
	write() // warm
	var took, work [2]time.Duration
	n := 0
	for b.Loop() {
		n++
		for _, with := range [][2]int{{0, 1}, {1, 0}}[n%2] {
			shut := func() {}
			if with == 1 {
				shut = open()
			}
			t, p := write()
			took[with] += t
			work[with] += p
			shut()
		}
	}
	writes := float64(n * pods)
	b.ReportMetric(0, "ns/op")
	for with, name := range []string{"off", "on"} {
		b.ReportMetric(writes/took[with].Seconds(), "writes/s-"+name)
		b.ReportMetric(float64(work[with].Microseconds())/writes, "cpu-µs/write-"+name)
	}
}

// processorTime returns the processor time of a process; 0 is this one. Its clock is that
// of clock_getcpuclockid(3).
func processorTime(b *testing.B, pid int) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|2, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
