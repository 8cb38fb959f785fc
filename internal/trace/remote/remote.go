// Package remote reports the phases of a component that runs in a process of its own to
// the API server, whose trace they are part of. It may import client-go and package trace.
package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/lru"

	"keelson.dev/keelson/internal/trace"
)

// Path is where an API server takes a Batch by POST.
const Path = "/debug/keelson/trace/steps"

const (
	// waiting is how many steps wait to be sent; more are lost.
	waiting = 1024
	// MostSteps is how many are sent at once, and MostBytes how long a batch may be.
	MostSteps = 256
	MostBytes = 512 << 10
	// pause is the time between two batches.
	pause = 100 * time.Millisecond
	// refusal is how long nothing is sent after the server has said that it takes none:
	// another implementation does not know of them.
	refusal = 10 * time.Minute
	timeout = 10 * time.Second
	// known is how many objects' places in traces are remembered.
	known = 1024
)

// Batch is what is sent.
type Batch struct {
	// Now is the time of the sender: its clock may be another.
	Now   time.Time `json:"now"`
	Steps Steps     `json:"steps"`
	// Lost is how many steps the sender has lost since it last said so, and LostSince the
	// time of the first.
	Lost      uint64    `json:"lost,omitempty"`
	LostSince time.Time `json:"lostSince,omitzero"`
}

// Steps are at most MostSteps.
type Steps []trace.Step

// UnmarshalJSON implements json.Unmarshaler. It makes no more steps than there may be: in
// memory they are many times as large as in JSON.
func (s *Steps) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	switch t, err := dec.Token(); {
	case err != nil:
		return err
	case t == nil: // null
		return nil
	case t != json.Delim('['):
		return fmt.Errorf("steps: want a list, and not %v", t)
	}
	for dec.More() {
		if len(*s) == MostSteps {
			return fmt.Errorf("steps: there are more than %d", MostSteps)
		}
		var one trace.Step
		if err := dec.Decode(&one); err != nil {
			return err
		}
		*s = append(*s, one)
	}
	return nil
}

// skew is how far apart clocks may be without being corrected: a batch is under way that
// long.
const skew = 500 * time.Millisecond

// Shift returns how much later the clock of the receiver is, for which it is now, than the
// sender's; 0 if they are about the same.
func (b *Batch) Shift(now time.Time) time.Duration {
	if d := now.Sub(b.Now); d.Abs() >= skew {
		return d
	}
	return 0
}

// Answer is what comes back.
type Answer struct {
	// Taken is how many of the steps are recorded; the sender may not report the others,
	// or has reported too many.
	Taken int `json:"taken"`
	// Traces are the places of the objects' last writes in distributed traces.
	Traces map[types.UID]trace.Context `json:"traces,omitempty"`
}

// Client sends steps to an API server. It never makes a reporter wait.
type Client struct {
	server      rest.Interface
	actor, node string
	steps       chan trace.Step
	lost        atomic.Uint64
	untold      untold
	traces      *lru.Cache // types.UID → trace.Context
	// Sent, if set, gets each step after the server has, with the place of the object's last
	// write in a trace as far as that is known: it sends them to a collector. It is set before
	// the first step.
	Sent func(trace.Step, trace.Context)
}

// untold is what is lost of which the server has not been told.
type untold struct {
	mu    sync.Mutex
	steps uint64
	since time.Time
}

// lose counts steps that the server does not know of.
func (c *Client) lose(steps int) {
	c.lost.Add(uint64(steps)) //nolint:gosec // it is not negative
	u := &c.untold
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.steps == 0 {
		u.since = time.Now()
	}
	u.steps += uint64(steps) //nolint:gosec // it is not negative
}

// New returns a client of a component on a node, empty if it belongs to none. Run sends.
func New(server rest.Interface, actor, node string) *Client {
	return &Client{server: server, actor: actor, node: node, steps: make(chan trace.Step, waiting), traces: lru.New(known)}
}

// Reporter returns what the component reports to.
func (c *Client) Reporter() *trace.Reporter {
	return &trace.Reporter{Actor: c.actor, Node: c.node, Add: c.add, Of: c.of}
}

func (c *Client) of(uid types.UID) (trace.Context, bool) {
	at, ok := c.traces.Get(uid)
	if !ok {
		return trace.Context{}, false
	}
	return at.(trace.Context), true
}

// Lost is how many steps there was no room for, or that could not be sent.
func (c *Client) Lost() uint64 { return c.lost.Load() }

func (c *Client) add(s trace.Step) {
	s.Sent = c.Sent != nil
	select {
	case c.steps <- s:
	default:
		c.lose(1)
	}
}

// Run sends what is reported until ctx ends.
func (c *Client) Run(ctx context.Context) {
	var refused time.Time // until then nothing is sent
	for {
		var batch []trace.Step
		select {
		case <-ctx.Done():
			return
		case s := <-c.steps:
			batch = append(batch, s)
		}
	more:
		for len(batch) < MostSteps {
			select {
			case s := <-c.steps:
				batch = append(batch, s)
			default:
				break more
			}
		}
		if time.Now().Before(refused) {
			c.lose(len(batch))
		} else if err := c.send(ctx, batch); err != nil && ctx.Err() == nil {
			c.lose(len(batch))
			klog.FromContext(ctx).V(2).Info("Reporting steps for the trace failed", "steps", len(batch), "lost", c.Lost(), "err", err)
			if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsMethodNotSupported(err) {
				refused = time.Now().Add(refusal)
			}
		}
		if c.Sent != nil {
			for _, s := range batch {
				at, _ := c.of(s.UID)
				c.Sent(s, at)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (c *Client) send(ctx context.Context, steps []trace.Step) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	b := Batch{Now: time.Now(), Steps: steps}
	c.untold.mu.Lock()
	b.Lost, b.LostSince = c.untold.steps, c.untold.since
	c.untold.mu.Unlock()
	body, err := json.Marshal(b)
	if err != nil {
		return err
	}
	data, err := c.server.Verb(http.MethodPost).AbsPath(Path).SetHeader("Content-Type", "application/json").Body(body).MaxRetries(0).DoRaw(ctx)
	if err != nil {
		return err
	}
	var a Answer
	if err := json.Unmarshal(data, &a); err != nil {
		return err
	}
	c.lost.Add(uint64(max(0, len(steps)-a.Taken))) // the server knows of these
	c.untold.mu.Lock()
	c.untold.steps -= b.Lost
	c.untold.since = b.Now
	c.untold.mu.Unlock()
	for uid, at := range a.Traces {
		c.traces.Add(uid, at)
	}
	return nil
}
