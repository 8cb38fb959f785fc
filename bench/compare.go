package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const allFigures = "create,get,list,pods,watch,start,memory"

// crd is of a small resource: a schema, and no more.
const crd = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"fish.bench.example.com"},"spec":{"group":"bench.example.com","scope":"Namespaced",
"names":{"plural":"fish","singular":"fish","kind":"Fish","listKind":"FishList"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{
"spec":{"type":"object","properties":{"colour":{"type":"string"},"length":{"type":"integer"},"tags":{"type":"array","items":{"type":"string"}}}}}}}}]}}`

const collection = "/apis/bench.example.com/v1/namespaces/default/fish"

func fish(name string) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"bench.example.com/v1","kind":"Fish","metadata":{"name":%q,"labels":{"app":"bench"}},"spec":{"colour":"silver","length":42,"tags":["a","b","c"]}}`, name)
}

func pod(name string) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"namespace":"pods","labels":{"app":"bench"}},"spec":{"schedulerName":"none","containers":[{"name":"c","image":"example.com/app:1","env":[{"name":"A","value":"B"}],"resources":{"requests":{"cpu":"10m","memory":"16Mi"}}}]}}`, name)
}

// comparison is one run.
type comparison struct {
	settings
	keelson, peer, limit *process
}

func (c *comparison) wants(figure string) bool {
	return c.only == "" || slices.Contains(strings.Split(c.only, ","), figure)
}

func compare(ctx context.Context, o settings) (err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	}
	c := &comparison{settings: o}
	fmt.Printf("%-34s %12s %12s %12s %9s %9s\n", "figure", "keelson", "peer", "limit", "× peer", "of limit")
	if c.wants("start") {
		if err := c.starts(ctx); err != nil {
			return err
		}
	}
	procs, stop, err := c.startAll(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	c.keelson, c.peer, c.limit = procs[0], procs[1], procs[2]
	if err := c.prepare(ctx); err != nil {
		return err
	}
	for _, m := range []struct {
		figure string
		f      func(context.Context) error
	}{{"create", c.create}, {"get", c.get}, {"list", c.list}, {"memory", c.memory}, {"pods", c.pods}, {"watch", c.watch}} {
		if !c.wants(m.figure) {
			continue
		}
		if err := m.f(ctx); err != nil {
			return fmt.Errorf("%s: %w", m.figure, err)
		}
	}
	return nil
}

// startAll starts the three servers, and returns a function that stops them.
func (c *comparison) startAll(ctx context.Context) ([]*process, func() error, error) {
	var procs []*process
	stop := func() error {
		var errs []error
		for _, p := range procs {
			errs = append(errs, p.stop())
		}
		return errors.Join(errs...)
	}
	for name, f := range map[int]func(dir string) (*process, error){
		0: func(dir string) (*process, error) { return startKeelson(ctx, c.settings, dir) },
		1: func(dir string) (*process, error) { return startPeer(ctx, c.settings, dir) },
		2: func(dir string) (*process, error) { return startLimit(ctx, dir) },
	} {
		dir, err := os.MkdirTemp(c.dir, "run-")
		if err != nil {
			return procs, stop, err
		}
		p, err := f(dir)
		if p != nil {
			procs = append(procs, p)
		}
		if err != nil {
			return procs, stop, err
		}
		_ = name
	}
	slices.SortFunc(procs, func(a, b *process) int { return strings.Compare(order(a), order(b)) })
	return procs, stop, nil
}

func order(p *process) string {
	return map[string]string{"keelson": "0", "peer": "1", "limit": "2"}[p.name]
}

// starts measures from the start of the process to ready.
func (c *comparison) starts(ctx context.Context) error {
	var k, p []float64
	for range c.rounds {
		for _, f := range []func(dir string) (*process, error){
			func(dir string) (*process, error) { return startKeelson(ctx, c.settings, dir) },
			func(dir string) (*process, error) { return startPeer(ctx, c.settings, dir) },
		} {
			dir, err := os.MkdirTemp(c.dir, "start-")
			if err != nil {
				return err
			}
			proc, err := f(dir)
			if err != nil {
				return err
			}
			if err := proc.stop(); err != nil {
				return err
			}
			if proc.name == "keelson" {
				k = append(k, proc.ready.Seconds()*1000)
			} else {
				p = append(p, proc.ready.Seconds()*1000)
			}
		}
	}
	lower("start to ready, ms", median(k), median(p), 0)
	return nil
}

// prepare defines the resource on Keelson and the peer, and waits until it is served.
func (c *comparison) prepare(ctx context.Context) error {
	for _, p := range []*process{c.keelson, c.peer} {
		p.collection = p.url + collection
		if _, err := p.client.must(ctx, "POST", p.url+"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "", []byte(crd)); err != nil {
			return err
		}
		for {
			code, _, err := p.client.do(ctx, "GET", p.collection, "", nil)
			if err != nil {
				return err
			}
			if code == http.StatusOK {
				break
			}
			time.Sleep(5 * time.Millisecond) // the peer does not report when it is ready
		}
	}
	c.limit.collection = c.limit.url + collection
	return nil
}

// constant makes the limit answer with the bytes that Keelson does.
func (c *comparison) constant(ctx context.Context, path string, body []byte) error {
	_, err := c.limit.client.must(ctx, "PUT", c.limit.url+path, "", body)
	return err
}

// measure measures each of procs once a round, and returns the medians.
func (c *comparison) measure(figure string, procs []*process, f func(p *process, round int) (float64, error)) ([]float64, error) {
	all := make([][]float64, len(procs))
	for round := range c.rounds {
		for i, p := range procs {
			profiled := c.profiled(figure, p, round)
			v, err := f(p, round)
			if err := errors.Join(err, profiled()); err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			all[i] = append(all[i], v)
		}
	}
	out := make([]float64, len(procs))
	for i := range all {
		out[i] = median(all[i])
	}
	return out, nil
}

// profiled takes a profile of Keelson's processor time in the first round, if
// one is wanted; the function that it returns waits for it.
func (c *comparison) profiled(figure string, p *process, round int) func() error {
	if c.profile == "" || p != c.keelson || round > 0 {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		url := fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", p.url, max(1, int(c.window.Seconds())))
		b, err := p.client.must(context.Background(), "GET", url, "*/*", nil)
		if err == nil {
			err = os.WriteFile(filepath.Join(c.profile, figure+".pprof"), b, 0o644)
		}
		done <- err
	}()
	return func() error { return <-done }
}

// measureRate measures how often a second each of the three answers, and what
// processor time an answer costs its servers: the first varies with what else
// the machine does, the second hardly.
func (c *comparison) measureRate(ctx context.Context, figure string, f func(ctx context.Context, p *process, round, client, n int) error) error {
	cost := map[*process][]float64{}
	v, err := c.measure(figure, c.all(), func(p *process, round int) (float64, error) {
		before, err := p.cpu()
		if err != nil {
			return 0, err
		}
		r, err := rate(ctx, c.clients, c.window, func(ctx context.Context, client, n int) error { return f(ctx, p, round, client, n) })
		if err != nil {
			return 0, err
		}
		after, err := p.cpu()
		cost[p] = append(cost[p], (after-before).Seconds()*1e6/(r*c.window.Seconds()))
		return r, err
	})
	if err != nil {
		return err
	}
	higher(figure+"/s", v[0], v[1], v[2])
	lower(figure+", CPU µs", median(cost[c.keelson]), median(cost[c.peer]), median(cost[c.limit]))
	return nil
}

func (c *comparison) all() []*process { return []*process{c.keelson, c.peer, c.limit} }

func (c *comparison) create(ctx context.Context) error {
	b, err := c.keelson.client.must(ctx, "POST", c.keelson.collection, "", fish("one"))
	if err != nil {
		return err
	}
	if _, err := c.peer.client.must(ctx, "POST", c.peer.collection, "", fish("one")); err != nil {
		return err
	}
	if err := c.constant(ctx, collection, b); err != nil {
		return err
	}
	err = c.measureRate(ctx, "create", func(ctx context.Context, p *process, round, client, n int) error {
		code, _, err := p.client.drain(ctx, "POST", p.collection, "", fish(fmt.Sprintf("c-%d-%d-%d", round, client, n)))
		if err == nil && code != http.StatusCreated {
			err = fmt.Errorf("create answered %d", code)
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.empty(ctx)
}

// empty removes what create has made.
func (c *comparison) empty(ctx context.Context) error {
	for _, p := range []*process{c.keelson, c.peer} {
		if _, err := p.client.must(ctx, "DELETE", p.collection+"?labelSelector=app%3Dbench", "", nil); err != nil {
			return err
		}
	}
	return nil
}

// ensure has each of procs hold the object, and the limit its bytes.
func (c *comparison) ensure(ctx context.Context, name string) error {
	var body []byte
	for _, p := range []*process{c.peer, c.keelson} {
		if code, _, err := p.client.do(ctx, "POST", p.collection, "", fish(name)); err != nil || code != http.StatusCreated && code != http.StatusConflict {
			return fmt.Errorf("creating %s on %s: %d, %w", name, p.name, code, err)
		}
		var err error
		if body, err = p.client.must(ctx, "GET", p.collection+"/"+name, "", nil); err != nil {
			return err
		}
	}
	return c.constant(ctx, collection+"/"+name, body)
}

func (c *comparison) get(ctx context.Context) error {
	if err := c.ensure(ctx, "one"); err != nil {
		return err
	}
	return c.measureRate(ctx, "get", func(ctx context.Context, p *process, _, _, _ int) error {
		code, _, err := p.client.drain(ctx, "GET", p.collection+"/one", "", nil)
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("get answered %d", code)
		}
		return err
	})
}

// fill makes the objects that lists have.
func (c *comparison) fill(ctx context.Context, p *process, url string, make func(name string) []byte) error {
	var next atomic.Int64
	errs := failures(c.clients)
	var wg sync.WaitGroup
	for w := range c.clients {
		wg.Go(func() {
			for errs[w] == nil {
				n := next.Add(1)
				if n > int64(c.objects) {
					return
				}
				code, b, err := p.client.do(ctx, "POST", url, "", make(fmt.Sprintf("l-%06d", n)))
				if err == nil && code != http.StatusCreated && code != http.StatusConflict {
					err = fmt.Errorf("filling %s: %d: %.200s", url, code, b)
				}
				errs[w] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func failures(n int) []error { return make([]error, n) }

// duration is how long one list takes, in ms.
func (p *process) duration(ctx context.Context, url, accept string, least int64) (float64, error) {
	begin := time.Now()
	code, n, err := p.client.drain(ctx, "GET", url, accept, nil)
	if err == nil && (code != http.StatusOK || n < least) {
		err = fmt.Errorf("list answered %d with %d bytes", code, n)
	}
	return time.Since(begin).Seconds() * 1000, err
}

func (c *comparison) list(ctx context.Context) error {
	for _, p := range []*process{c.keelson, c.peer} {
		if err := c.fill(ctx, p, p.collection, fish); err != nil {
			return err
		}
	}
	body, err := c.keelson.client.must(ctx, "GET", c.keelson.collection, "", nil)
	if err != nil {
		return err
	}
	if err := c.constant(ctx, collection+"-list", body); err != nil {
		return err
	}
	least := int64(c.objects * 100)
	cached := *c.peer
	cached.name = "peer, cached"
	urls := map[string]string{"keelson": c.keelson.collection, "peer": c.peer.collection, "peer, cached": c.peer.collection + "?resourceVersion=0", "limit": c.limit.collection + "-list"}
	v, err := c.measure("list", []*process{c.keelson, c.peer, &cached, c.limit}, func(p *process, _ int) (float64, error) {
		best := 0.0
		for i := range 3 {
			d, err := p.duration(ctx, urls[p.name], "", least)
			if err != nil {
				return 0, err
			}
			if i == 0 || d < best {
				best = d
			}
		}
		return best, nil
	})
	if err != nil {
		return err
	}
	n := fmt.Sprintf("list of %d, JSON, ms", c.objects)
	lower(n+" (peer cached)", v[0], v[2], v[3])
	lower(n+" (consistent)", v[0], v[1], v[3])
	return nil
}

func (c *comparison) memory(ctx context.Context) error {
	for _, p := range []*process{c.keelson, c.peer} {
		if err := c.fill(ctx, p, p.collection, fish); err != nil {
			return err
		}
	}
	k, err := c.keelson.memory()
	if err != nil {
		return err
	}
	p, err := c.peer.memory()
	if err != nil {
		return err
	}
	lower(fmt.Sprintf("resident, %d objects, MB", c.objects), k, p, 0)
	return nil
}

const protobuf = "application/vnd.kubernetes.protobuf"

func (c *comparison) pods(ctx context.Context) error {
	k := c.keelson
	if code, b, err := k.client.do(ctx, "POST", k.url+"/api/v1/namespaces", "", []byte(`{"metadata":{"name":"pods"}}`)); err != nil || code != 201 && code != 409 {
		return fmt.Errorf("the namespace: %d %s %w", code, b, err)
	}
	const path = "/api/v1/namespaces/pods/pods"
	if err := c.fill(ctx, k, k.url+path, pod); err != nil {
		return err
	}
	body, err := k.client.must(ctx, "GET", k.url+path, protobuf, nil)
	if err != nil {
		return err
	}
	if err := c.constant(ctx, path, body); err != nil {
		return err
	}
	v, err := c.measure("pods", []*process{k, c.limit}, func(p *process, _ int) (float64, error) {
		best := 0.0
		for i := range 3 {
			d, err := p.duration(ctx, p.url+path, protobuf, int64(len(body)))
			if err != nil {
				return 0, err
			}
			if i == 0 || d < best {
				best = d
			}
		}
		return best, nil
	})
	if err != nil {
		return err
	}
	lower(fmt.Sprintf("list of %d Pods, protobuf, ms", c.objects), v[0], 0, v[1])
	return nil
}

// watch sends the watchers events at a steady rate, and measures the servers' processor time for each that is seen.
func (c *comparison) watch(ctx context.Context) error {
	v, err := c.measure("watch", []*process{c.keelson, c.peer}, func(p *process, round int) (float64, error) {
		return c.watched(ctx, p, round)
	})
	if err != nil {
		return err
	}
	lower(fmt.Sprintf("%d watchers, %d/s, CPU µs an event", c.watchers, c.events), v[0], v[1], 0)
	return nil
}

func (c *comparison) watched(ctx context.Context, p *process, round int) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b, err := p.client.must(ctx, "GET", p.collection+"?limit=1", "", nil)
	if err != nil {
		return 0, err
	}
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return 0, err
	}
	var seen atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, c.watchers)
	opened := make(chan struct{}, c.watchers)
	for range c.watchers {
		wg.Go(func() {
			resp, err := p.client.open(ctx, "GET", p.collection+"?watch=true&resourceVersion="+list.Metadata.ResourceVersion, "", nil)
			opened <- struct{}{}
			if err != nil {
				failed <- err
				return
			}
			defer resp.Body.Close()
			r := bufio.NewReaderSize(resp.Body, 4096)
			for {
				if _, err := r.ReadSlice('\n'); err == nil {
					seen.Add(1)
				} else if !errors.Is(err, bufio.ErrBufferFull) {
					return
				}
			}
		})
	}
	for range c.watchers {
		<-opened
	}
	// Each writer has an object of its own: writes to one object at once conflict.
	const writers = 8
	name := func(w int) string { return fmt.Sprintf("w-%d-%d", round, w) }
	for w := range writers {
		if _, err := p.client.must(ctx, "POST", p.collection, "", fish(name(w))); err != nil {
			return 0, err
		}
	}
	begin, err := p.cpu()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	seconds := c.window.Seconds()
	total := int(float64(c.events) * seconds)
	var next atomic.Int64
	errs := failures(writers)
	var written sync.WaitGroup
	for w := range errs {
		written.Go(func() {
			for errs[w] == nil {
				n := int(next.Add(1))
				if n > total {
					return
				}
				// The n-th event is due then: the load is a rate, not as much as fits.
				time.Sleep(time.Until(start.Add(time.Duration(float64(n) / float64(c.events) * float64(time.Second)))))
				_, errs[w] = p.client.must(ctx, "PATCH", p.collection+"/"+name(w), "", fmt.Appendf(nil, `{"spec":{"length":%d}}`, n))
			}
		})
	}
	written.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	want := int64(c.watchers) * int64(total+writers)
	// A server may end the watches of clients that are too slow for it.
	last, moved := int64(0), time.Now()
	for ; seen.Load() < want && time.Since(moved) < 3*time.Second; time.Sleep(5 * time.Millisecond) {
		if n := seen.Load(); n > last {
			last, moved = n, time.Now()
		}
		select {
		case err := <-failed:
			return 0, err
		default:
		}
	}
	end, err := p.cpu()
	if err != nil {
		return 0, err
	}
	cancel()
	wg.Wait()
	if got := seen.Load(); got < want {
		fmt.Printf("  %s ended watches: %d of %d events were seen\n", p.name, got, want)
	}
	return (end - begin).Seconds() * 1e6 / float64(max(1, seen.Load())), nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// higher prints a figure of which more is better; 0 is not measured.
func higher(name string, k, peer, limit float64) { print(name, k, peer, limit, k/peer, k/limit) }

// lower prints a figure of which less is better.
func lower(name string, k, peer, limit float64) { print(name, k, peer, limit, peer/k, limit/k) }

func print(name string, k, peer, limit, toPeer, toLimit float64) {
	cell := func(v float64, shown bool, format string) string {
		if !shown {
			return "-"
		}
		return fmt.Sprintf(format, v)
	}
	fmt.Printf("%-34s %12s %12s %12s %9s %9s\n", name, cell(k, true, "%.4g"), cell(peer, peer > 0, "%.4g"), cell(limit, limit > 0, "%.4g"),
		cell(toPeer, peer > 0, "%.2f"), cell(100*toLimit, limit > 0, "%.0f %%"))
}
