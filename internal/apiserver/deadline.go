package apiserver

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// lastWords is how long the answer to a request that timed out may take to be
	// written.
	lastWords = 5 * time.Second
	// stallLimit is how long the client of a watch may leave events unread.
	stallLimit = 30 * time.Second
)

// past is a deadline that is over.
var past = time.Unix(1, 0)

// connection has the methods of net/http's writers that set deadlines for slow
// clients. The writers of requests within the process have none, and need none.
type connection interface {
	SetReadDeadline(deadline time.Time) error
	SetWriteDeadline(deadline time.Time) error
}

// limit ends the request after d: its context is cancelled, reads of its body fail
// at once, and writes of its answer after lastWords. The caller calls end when the
// request is answered.
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
			<-over // net/http's writer must not be used after the handler's end
		}
		cancel()
	}
}

// hasUnboundBody reports whether net/http waits without a limit for the rest of the
// body after the handler has returned. Over HTTP/2 it does not.
func (r *call) hasUnboundBody() bool {
	return r.conn != nil && r.req.ProtoMajor == 1 && r.req.ContentLength != 0
}

// guard ends the stream of a client that stops reading. A nil guard does
// nothing.
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

// writing records that a write has begun, written that it has ended.
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

// stop is called at the end of the handler, after which net/http's writer must not
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
