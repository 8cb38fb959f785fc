package trace

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Header carries a cause over HTTP, for a component that runs in a process of
// its own. Its value is Cause.String().
const Header = "Keelson-Cause"

// Cause names the version of an object that a write is made for.
type Cause struct {
	UID             types.UID
	ResourceVersion string
}

// String returns "uid@resourceVersion", the form in the Keelson-Cause header.
func (c Cause) String() string { return string(c.UID) + "@" + c.ResourceVersion }

// maxCause bounds a cause in bytes: UIDs have 36, revisions at most 19.
const maxCause = 128

// ParseCause reads the form that String gives.
func ParseCause(s string) (Cause, error) {
	uid, rv, ok := strings.Cut(s, "@")
	if !ok || uid == "" || len(s) > maxCause {
		return Cause{}, fmt.Errorf("invalid %s header %q: want <uid>@<resourceVersion>", Header, s)
	}
	return Cause{UID: types.UID(uid), ResourceVersion: rv}, nil
}

type causeKey struct{}

// woken is a cause, and when a component began to look at it.
type woken struct {
	Cause
	at time.Time
}

// WokeHeader carries how many microseconds before a request its component began to look
// at the cause: clocks of machines differ.
const WokeHeader = "Keelson-Woke"

// WithCause returns a context whose API writes are recorded as caused by obj
// at its resourceVersion. An object without metadata or without a UID leaves
// ctx unchanged.
func WithCause(ctx context.Context, obj runtime.Object) context.Context {
	m, err := meta.Accessor(obj)
	if err != nil || m.GetUID() == "" {
		return ctx
	}
	return context.WithValue(ctx, causeKey{}, woken{Cause{UID: m.GetUID(), ResourceVersion: m.GetResourceVersion()}, time.Now()})
}

// WithoutCause returns a context without the cause that ctx carries.
func WithoutCause(ctx context.Context) context.Context {
	return context.WithValue(ctx, causeKey{}, nil)
}

// CauseFrom returns the cause that ctx carries.
func CauseFrom(ctx context.Context) (Cause, bool) {
	c, ok := ctx.Value(causeKey{}).(woken)
	return c.Cause, ok
}

// WokenBy returns the cause that ctx carries, and for how long the component has looked at
// it; 0 is unknown.
func WokenBy(ctx context.Context) (c Cause, ago time.Duration, ok bool) {
	w, ok := ctx.Value(causeKey{}).(woken)
	if ok && !w.at.IsZero() {
		ago = max(0, time.Since(w.at))
	}
	return w.Cause, ago, ok
}

// Handler gives next the cause that a request names in its header, so that the
// writes of a component with a process of its own are recorded as those of one
// in the server's, and its traceparent. A header that is not a cause is passed over.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := r.Header.Get(Header); h != "" {
			if c, err := ParseCause(h); err == nil {
				w := woken{Cause: c}
				if us, err := strconv.ParseUint(r.Header.Get(WokeHeader), 10, 32); err == nil {
					w.at = time.Now().Add(-time.Duration(us) * time.Microsecond)
				}
				r = r.WithContext(context.WithValue(r.Context(), causeKey{}, w))
			}
		}
		if c, ok := Parent(r.Header); ok {
			r = r.WithContext(WithContext(r.Context(), c))
		}
		next.ServeHTTP(w, r)
	})
}

// Transport sends the cause that a request's context carries in its header, and its
// place in a distributed trace as traceparent: a rest.Config takes it by Wrap.
func Transport(next http.RoundTripper) http.RoundTripper { return transport{next} }

type transport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if c, ago, ok := WokenBy(r.Context()); ok {
		r = r.Clone(r.Context())
		r.Header.Set(Header, c.String())
		if ago > 0 {
			r.Header.Set(WokeHeader, strconv.FormatInt(ago.Microseconds(), 10))
		}
	}
	if c, ok := ContextOf(r.Context()); ok {
		r = r.Clone(r.Context())
		Inject(c, r.Header)
	}
	return t.next.RoundTrip(r)
}

// WrappedRoundTripper implements k8s.io/apimachinery/pkg/util/net.RoundTripperWrapper.
func (t transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// Propagate sends the place in a distributed trace that a request's context carries as its
// traceparent, to a server that is told no causes.
func Propagate(next http.RoundTripper) http.RoundTripper { return propagate{next} }

type propagate struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t propagate) RoundTrip(r *http.Request) (*http.Response, error) {
	if c, ok := ContextOf(r.Context()); ok {
		r = r.Clone(r.Context())
		Inject(c, r.Header)
	}
	return t.next.RoundTrip(r)
}

// WrappedRoundTripper implements k8s.io/apimachinery/pkg/util/net.RoundTripperWrapper.
func (t propagate) WrappedRoundTripper() http.RoundTripper { return t.next }
