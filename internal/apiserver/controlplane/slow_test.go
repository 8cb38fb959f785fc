package controlplane

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/apiserver/priority"
	"keelson.dev/keelson/internal/apiserver/serving"
	"keelson.dev/keelson/test/harness"
)

// slowServer returns a control plane over TLS that has little patience.
func slowServer(t *testing.T, timeout time.Duration) (*Instance, *rest.Config) {
	t.Helper()
	c := boot(t, Options{Listen: "127.0.0.1:0", NoDrain: true,
		API: API{RequestTimeout: timeout}, stallLimit: 500 * time.Millisecond})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	return c, cfg
}

// conn returns a connection, the administrator's or an anonymous one, over which a
// test writes raw requests.
func conn(t *testing.T, cfg *rest.Config, anonymous bool) net.Conn {
	t.Helper()
	tc, err := rest.TLSConfigFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tc.NextProtos = []string{"http/1.1"}
	if anonymous {
		tc = &tls.Config{RootCAs: tc.RootCAs}
	}
	c, err := tls.Dial("tcp", strings.TrimPrefix(cfg.Host, "https://"), tc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

const configMaps = "/api/v1/namespaces/default/configmaps"

// TestHalfBody sends a part of a body, and no more: the answer comes, upstream's,
// when the request's time is over.
func TestHalfBody(t *testing.T) {
	_, cfg := slowServer(t, 300*time.Millisecond)
	check := func(name string, resp *http.Response) {
		t.Helper()
		defer resp.Body.Close()
		var s metav1.Status
		if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if resp.StatusCode != http.StatusGatewayTimeout || s.Reason != metav1.StatusReasonTimeout || s.Code != http.StatusGatewayTimeout ||
			s.Message != "Timeout: request did not complete within the allotted timeout" {
			t.Errorf("%s: %s %+v", name, resp.Status, s)
		}
	}
	const half = "{\"metadata\":"
	for _, length := range []string{"Content-Length: 1000\r\n\r\n" + half, "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"met\r\n"} {
		c := conn(t, cfg, false)
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n%s", configMaps, length)
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		check("HTTP/1", resp)
		if _, err := r.ReadByte(); err == nil {
			t.Error("HTTP/1: the connection goes on")
		}
	}
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"", "?timeout=100ms", "?timeout=1h"} {
		body, w := io.Pipe()
		go func() { _, _ = io.WriteString(w, half) }()
		req, err := http.NewRequestWithContext(t.Context(), "POST", cfg.Host+configMaps+query, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.ProtoMajor != 2 {
			t.Fatal(resp.Proto)
		}
		check("HTTP/2"+query, resp)
		w.Close()
	}
	// The server waits no longer for a client without the permission, nor for a
	// long-running request.
	for _, path := range []string{configMaps, configMaps + "?watch=true", "/api/v1/namespaces/default/pods/p/proxy/"} {
		c := conn(t, cfg, true)
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n%s", path, half)
		b, err := io.ReadAll(c)
		if err != nil || !bytes.Contains(b, []byte("HTTP/1.1 403")) {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	resp, err := hc.Get(cfg.Host + configMaps + "?timeout=soon")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusBadRequest || !bytes.Contains(b, []byte("invalid timeout specified in the request URL - time: invalid duration")) {
		t.Errorf("timeout=soon: %s %s, %v", resp.Status, b, err)
	}
}

// narrow returns a client over HTTP/1 or 2 with small buffers for unread data.
func narrow(t *testing.T, cfg *rest.Config, http2 bool) *http.Client {
	t.Helper()
	c, err := rest.TLSConfigFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return harness.SlowClient(t, c, http2, 16<<10)
}

// gauge adds up a metric over all labels that have want in their values.
func gauge(t *testing.T, c *Instance, name, want string) (sum float64) {
	t.Helper()
	families, err := c.Server.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == want {
					sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
					break
				}
			}
		}
	}
	return sum
}

// inUse returns the size of the heap in use, in bytes.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestStuckClients starts watches and lists that are not read, and writes a lot: the
// server ends them, holds no more of them than a little each meanwhile, and nothing
// afterwards; and neither writers nor other watchers notice.
func TestStuckClients(t *testing.T) {
	const stuck, objects, rounds = 40, 50, 40
	c, cfg := slowServer(t, 5*time.Second)
	client, ctx := kubernetes.NewForConfigOrDie(cfg), t.Context()
	big := strings.Repeat("x", 40<<10)
	write := func(round int) {
		t.Helper()
		for i := range objects {
			m := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m" + strconv.Itoa(i)}, Data: map[string]string{"round": strconv.Itoa(round), "big": big}}
			var err error
			if round == 0 {
				_, err = client.CoreV1().ConfigMaps("default").Create(ctx, m, metav1.CreateOptions{})
			} else {
				_, err = client.CoreV1().ConfigMaps("default").Update(ctx, m, metav1.UpdateOptions{})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	write(0)
	var seen, again atomic.Int64
	var reading sync.WaitGroup
	readable, stopReading := context.WithCancel(ctx)
	defer stopReading()
	from := strconv.FormatInt(c.Store.Revision(), 10)
	reading.Go(func() {
		// A machine that is busy may not let the reader read for longer than the server waits:
		// like any client it goes on from where it was.
		for ; readable.Err() == nil; again.Add(1) {
			w, err := client.CoreV1().ConfigMaps("default").Watch(readable, metav1.ListOptions{ResourceVersion: from})
			if err != nil {
				if readable.Err() == nil {
					t.Error(err)
				}
				return
			}
			for e := range w.ResultChan() {
				if m, ok := e.Object.(*v1.ConfigMap); ok {
					seen.Add(1)
					from = m.ResourceVersion
				}
			}
		}
	})
	harness.Eventually(t, "the reader watches", func() bool { return gauge(t, c, "apiserver_longrunning_requests", "configmaps") == 1 })
	forget := func() {
		if err := c.Store.Compact(ctx, c.Store.Revision()); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	before, goroutines := inUse(), runtime.NumGoroutine()
	var bodies []io.Closer
	var clients []*http.Client
	for i := range stuck {
		hc := narrow(t, cfg, i%2 == 0)
		clients = append(clients, hc)
		for _, path := range []string{configMaps + "?watch=true", configMaps, configMaps + "?watch=true&labelSelector=!a"} {
			resp, err := hc.Get(cfg.Host + path)
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, resp.Body)
		}
	}
	most := int64(0)
	for round := 1; round < rounds; round++ {
		write(round)
		if round%10 == 0 {
			most = max(most, inUse())
		}
	}
	harness.Eventually(t, "the reader has seen everything", func() bool { return seen.Load() == objects*(rounds-1) })
	harness.Eventually(t, "only the reader watches", func() bool { return gauge(t, c, "apiserver_longrunning_requests", "configmaps") == 1 })
	harness.Eventually(t, "the lists have ended", func() bool { return gauge(t, c, "apiserver_current_inflight_requests", "readOnly") < 10 })
	if n := gauge(t, c, "apiserver_terminated_watchers_total", "configmaps"); n < 2*stuck || n > float64(2*stuck+again.Load()) {
		t.Errorf("%v watchers were ended, want %d, and the reader's %d at most", n, 2*stuck, again.Load())
	}
	for _, b := range bodies {
		b.Close()
	}
	for _, hc := range clients {
		hc.CloseIdleConnections()
	}
	forget()
	harness.Eventually(t, "their goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines+20 })
	after := inUse()
	t.Logf("%d MB in use before, %d MB at most, %d MB after", before>>20, most>>20, after>>20)
	// A version of all objects is 4 MB with what was encoded, and the history is of 40.
	if most > before+400<<20 {
		t.Errorf("%d MB in use while clients were stuck", most>>20)
	}
	if after > before+30<<20 {
		t.Errorf("%d MB in use after the clients, %d before", after>>20, before>>20)
	}
	stopReading()
	reading.Wait()
}

// TestWatchError checks that the client of a watch gets an error for an object that
// cannot be encoded.
func TestWatchError(t *testing.T) {
	c, cfg := slowServer(t, 0)
	if w := ask(c, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", fishDefinition); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	const fish = "/apis/bench.example.com/v1/namespaces/default/fish"
	harness.Eventually(t, "the definition to be served", func() bool { return ask(c, "GET", fish, "").Code == http.StatusOK })
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := hc.Get(cfg.Host + fish + "?watch=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, o := range []struct {
		name string
		spec any
	}{{"good", map[string]any{"colour": "red"}}, {"bad", func() {}}} {
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "bench.example.com/v1", "kind": "Fish",
			"metadata": map[string]any{"name": o.name, "namespace": "default"}, "spec": o.spec}}
		if _, err := c.Store.Create(t.Context(), "/registry/bench.example.com/fish/default/"+o.name, u, 0); err != nil {
			t.Fatal(err)
		}
	}
	var events []metav1.WatchEvent
	d := json.NewDecoder(resp.Body)
	for {
		var e metav1.WatchEvent
		if err := d.Decode(&e); err != nil {
			if err != io.EOF { //nolint:errorlint // io.EOF is never wrapped here
				t.Error(err)
			}
			break
		}
		events = append(events, e)
	}
	if len(events) != 2 || events[0].Type != "ADDED" || events[1].Type != "ERROR" {
		t.Fatalf("%+v", events)
	}
	var s metav1.Status
	if err := json.Unmarshal(events[1].Object.Raw, &s); err != nil || s.Kind != "Status" || s.Code != http.StatusInternalServerError ||
		s.Reason != metav1.StatusReasonInternalError || !strings.Contains(s.Message, "unable to encode watch object *unstructured.Unstructured") {
		t.Errorf("%s, %v", events[1].Object.Raw, err)
	}
}

// TestWatchTimeout checks that a watch lasts from the least time to twice that.
func TestWatchTimeout(t *testing.T) {
	c := boot(t, Options{Listen: "127.0.0.1:0", NoDrain: true, API: API{MinRequestTimeout: time.Second}})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, query := range []string{"", "&timeoutSeconds=0"} {
		for range 5 {
			wg.Go(func() {
				begin := time.Now()
				resp, err := hc.Get(cfg.Host + configMaps + "?watch=true" + query)
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if b, err := io.ReadAll(resp.Body); err != nil {
					t.Errorf("%s: %v", b, err)
				}
				if took := time.Since(begin); took < time.Second {
					t.Errorf("a watch ended after %v", took)
				}
			})
		}
	}
	wg.Wait()
}

// TestRetryAfter checks that a server that stops with requests in flight says so
// to new ones, and takes no others.
func TestRetryAfter(t *testing.T) {
	c, err := Start(t.Context(), Options{Listen: "127.0.0.1:0", Serving: serving.Selection{SendRetryAfter: true}})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// The server asks for the body when the handler reads it: from then on the request is in flight.
	asked := make(chan struct{})
	trace := &httptrace.ClientTrace{Got100Continue: func() { close(asked) }}
	body, w := io.Pipe()
	type answer struct {
		code int
		err  error
	}
	inFlight := make(chan answer, 1)
	go func() {
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", cfg.Host+configMaps, body)
		if err != nil {
			inFlight <- answer{err: err}
			return
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Expect", "100-continue")
		resp, err := hc.Do(req)
		if err != nil {
			inFlight <- answer{err: err}
			return
		}
		resp.Body.Close()
		inFlight <- answer{code: resp.StatusCode}
	}()
	if _, err := io.WriteString(w, `{"metadata":`); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case a := <-inFlight:
		t.Fatalf("answered before it was whole: %d, %v", a.code, a.err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- c.Stop() }()
	refused := false
	for !refused {
		resp, err := hc.Get(cfg.Host + configMaps)
		if err != nil {
			t.Fatal(err) // it has to listen as long as there is a request
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		switch resp.StatusCode {
		case http.StatusOK:
		case http.StatusTooManyRequests:
			refused = true
			if resp.Header.Get("Retry-After") != "5" || string(b) != "The apiserver is shutting down, please try again later.\n" {
				t.Errorf("%v %q", resp.Header, b)
			}
		default:
			t.Fatalf("%s %s", resp.Status, b)
		}
	}
	resp, err := hc.Get(cfg.Host + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("/livez: %s", resp.Status)
	}
	if _, err := io.WriteString(w, `{"name":"last"}}`); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if a := <-inFlight; a.err != nil || a.code != http.StatusCreated {
		t.Errorf("the request in flight: %d, %v", a.code, a.err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestMaxInFlight checks that without priority and fairness, requests beyond
// the limit are refused.
func TestMaxInFlight(t *testing.T) {
	c := boot(t, Options{Listen: "127.0.0.1:0", NoDrain: true, Fairness: priority.Selection{Off: true, InFlight: 1, MutatingInFlight: 1}})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	// Not as the administrator, whose requests are always answered.
	grant := `{"metadata":{"name":"u"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"u"}]}`
	if w := ask(c, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", grant); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	pair, err := c.Certs.ClientCert("u", nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.CertData, cfg.KeyData = pair.Cert, pair.Key
	client := kubernetes.NewForConfigOrDie(cfg).CoreV1().ConfigMaps("default")
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for { // until the binding has taken effect
		if _, err := client.List(t.Context(), metav1.ListOptions{}); err == nil {
			break
		} else if !apierrors.IsForbidden(err) {
			t.Fatal(err)
		}
	}
	body, w := io.Pipe()
	defer w.Close()
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), "POST", cfg.Host+configMaps, body)
		if err != nil {
			return
		}
		req.Header.Set("Content-Type", "application/json")
		if resp, err := hc.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	if _, err := io.WriteString(w, `{"metadata":`); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the first request to be at work", func() bool { return gauge(t, c, "apiserver_current_inflight_requests", "mutating") > 0 })
	resp, err := hc.Post(cfg.Host+configMaps, "application/json", strings.NewReader(`{"metadata":{"name":"second"}}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a second write: %s %v", resp.Status, resp.Header)
	}
	if _, err := client.List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("a read: %v", err)
	}
	if w := ask(c, "POST", configMaps, `{"metadata":{"name":"third"}}`); w.Code != http.StatusCreated {
		t.Errorf("the administrator: %d", w.Code)
	}
}

// TestEventTTL checks that events are kept as long as is said.
func TestEventTTL(t *testing.T) {
	c := boot(t, Options{API: API{EventTTL: 50 * time.Millisecond}})
	const events = "/api/v1/namespaces/default/events"
	if w := ask(c, "POST", events, `{"metadata":{"name":"e","namespace":"default"},"involvedObject":{"kind":"Pod","namespace":"default","name":"p"}}`); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	if w := ask(c, "POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", `{"metadata":{"name":"l"}}`); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	harness.Eventually(t, "the event to go", func() bool { return ask(c, "GET", events+"/e", "").Code == http.StatusNotFound })
}
