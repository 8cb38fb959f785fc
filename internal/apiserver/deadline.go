package apiserver

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// lastWords is how long a request whose time is over may take to say so.
	lastWords = 5 * time.Second
	// stallLimit is how long the client of a watch may leave unread what it was sent.
	stallLimit = 30 * time.Second
)

// past is a deadline that is over.
var past = time.Unix(1, 0)

// connection has the methods of net/http's writers that bound a client that is too
// slow. The writers of requests within the process lack them, and need none.
type connection interface {
	SetReadDeadline(deadline time.Time) error
	SetWriteDeadline(deadline time.Time) error
}

// limit ends the request when its time is over: what it waits for ends by its
// context, reading its body at once, and its answer soon. The caller calls end when
// the request is answered.
func (r *call) limit(ctx context.Context, d time.Duration) (limited context.Context, end func()) {
	limited, cancel := context.WithTimeout(ctx, d)
	conn := r.conn
	if conn == nil {
		return limited, cancel
	}
	if r.hasUnboundBody() {
		_ = conn.SetReadDeadline(time.Now().Add(d))
	}
	over := make(chan struct{})
	http2 := r.req.ProtoMajor > 1
	stop := context.AfterFunc(limited, func() {
		defer close(over)
		if !errors.Is(limited.Err(), context.DeadlineExceeded) {
			return // the client has gone
		}
		if http2 {
			_ = conn.SetReadDeadline(past)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(lastWords))
	})
	return limited, func() {
		if !stop() {
			<-over // net/http's writer is not to be used after the handler's end
		}
		cancel()
	}
}

// hasUnboundBody reports whether net/http waits for the rest of the body as long as it
// takes, even when the handler has ended without it. Over HTTP/2 it does not.
func (r *call) hasUnboundBody() bool {
	return r.conn != nil && r.req.ProtoMajor == 1 && r.req.ContentLength != 0
}

// guard ends the stream of a client that leaves unread what it was sent. A nil
// guard does nothing.
type guard struct {
	conn    connection
	limit   time.Duration
	stalled func() // is called once, when it ends the stream
	timer   *time.Timer

	mu   sync.Mutex
	over bool
}

func newGuard(conn connection, limit time.Duration, stalled func()) *guard {
	if conn == nil {
		return nil
	}
	g := &guard{conn: conn, limit: limit, stalled: stalled}
	g.timer = time.AfterFunc(limit, g.end)
	return g
}

func (g *guard) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.over {
		g.over = true
		_ = g.conn.SetWriteDeadline(past)
		g.stalled()
	}
}

// writing notes that a write has begun, written that it has ended.
func (g *guard) writing() {
	if g != nil {
		g.timer.Reset(g.limit)
	}
}

func (g *guard) written() {
	if g != nil {
		g.timer.Stop()
	}
}

// stop is called at the end of the handler, after which net/http's writer is not to
// be used.
func (g *guard) stop() {
	if g == nil {
		return
	}
	g.timer.Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
}
