package trace

import (
	"context"
	"fmt"
	"net/http"
	"strings"

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

// String gives "uid@resourceVersion", the form in the Keelson-Cause header.
func (c Cause) String() string { return string(c.UID) + "@" + c.ResourceVersion }

// ParseCause reads the form that String gives.
func ParseCause(s string) (Cause, error) {
	uid, rv, ok := strings.Cut(s, "@")
	if !ok || uid == "" {
		return Cause{}, fmt.Errorf("invalid %s header %q: want <uid>@<resourceVersion>", Header, s)
	}
	return Cause{UID: types.UID(uid), ResourceVersion: rv}, nil
}

type causeKey struct{}

// WithCause returns a context whose API writes are recorded as caused by obj
// at its resourceVersion. An object without metadata or without a UID leaves
// ctx unchanged.
func WithCause(ctx context.Context, obj runtime.Object) context.Context {
	m, err := meta.Accessor(obj)
	if err != nil || m.GetUID() == "" {
		return ctx
	}
	return context.WithValue(ctx, causeKey{}, Cause{UID: m.GetUID(), ResourceVersion: m.GetResourceVersion()})
}

// CauseFrom gives the cause that ctx carries.
func CauseFrom(ctx context.Context) (Cause, bool) {
	c, ok := ctx.Value(causeKey{}).(Cause)
	return c, ok
}

// CauseOfRequest gives the cause of an API request: the one in its context
// (a component of this process) or else the one in its header.
func CauseOfRequest(r *http.Request) (Cause, bool) {
	if c, ok := CauseFrom(r.Context()); ok {
		return c, true
	}
	if h := r.Header.Get(Header); h != "" {
		c, err := ParseCause(h)
		return c, err == nil
	}
	return Cause{}, false
}
