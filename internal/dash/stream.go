package dash

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/util/flowcontrol"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/dash/page"
	"keelson.dev/keelson/internal/statuserror"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
)

// Path is where an API server has the stream.
const Path = page.Prefix + "stream"

const (
	// gap is the least time between two flushes.
	gap = 50 * time.Millisecond
	// chunk is about how many bytes are written at once.
	chunk = 64 << 10
	// stepsAtOnce is the greatest number of steps between two flushes.
	stepsAtOnce = 200
	// pingPeriod is how often an idle stream says that it is alive.
	pingPeriod = 10 * time.Second
	// statsPeriod is how often the figures are sent while they change.
	statsPeriod = time.Second
	// rightsPeriod is how often the user's rights are looked at again.
	rightsPeriod = 10 * time.Second
	// maxAge is how long a stream lasts: its client connects again, with credentials that
	// are good then.
	maxAge = time.Hour
	// stall is how long a client may leave what was written unread.
	stall = 30 * time.Second
	// lastWords is how long the end of a stream may take to be written.
	lastWords = time.Second
	// maxStreams and maxOfUser bound the streams at one time, all and those of one user.
	maxStreams, maxOfUser = 32, 8
)

// Stream serves the picture of a cluster, as it is and as it changes: ?namespace= shows
// that namespace's objects only, ?at=MOMENT the picture of a moment and no changes, and
// ?nodeLabel=KEY the values of that label of the nodes.
type Stream struct {
	Store     store.Store
	Catalogue *catalogue.Catalogue
	// Trace has what was written by whom; it may be nil.
	Trace *trace.Recorder
	// Authorizer decides what a user sees; nil shows all.
	Authorizer authorizer.Authorizer
	// Moment returns the revision of a moment.
	Moment func(string) (int64, error)
	// Since returns a context in which Authorizer allows what it has allowed without a break
	// since a revision; it may be nil.
	Since func(ctx context.Context, revision int64) context.Context
	// Watches returns the number of watches that are served; it may be nil.
	Watches func() int64

	mu    sync.Mutex
	users map[string]int // the streams of each user
	open  int
}

// The reasons for which a stream ends, which its last line names.
var (
	errRights = errors.New("rights")
	errAge    = errors.New("age")
	errStop   = errors.New("stop")
	errBehind = errors.New("behind")
)

// ServeHTTP implements http.Handler.
func (s *Stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.serve(w, r); err != nil {
		page.Harden(w.Header())
		statuserror.Write(w, err)
	}
}

// serve sends the stream. An error is the answer in place of it.
func (s *Stream) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return apierrors.NewMethodNotSupported(schema.GroupResource{Resource: "dash"}, r.Method)
	}
	q := r.URL.Query()
	t := &session{Stream: s, rights: rights{namespace: q.Get("namespace"), authorizer: s.Authorizer}}
	if t.namespace != "" {
		if msgs := validation.ValidateNamespaceName(t.namespace, false); len(msgs) > 0 {
			return apierrors.NewBadRequest(fmt.Sprintf("namespace %q: %s", t.namespace, msgs[0]))
		}
	}
	label := q.Get("nodeLabel")
	if label != "" {
		if msgs := content.IsLabelKey(label); len(msgs) > 0 {
			return apierrors.NewBadRequest(fmt.Sprintf("nodeLabel %q: %s", label, msgs[0]))
		}
	}
	var ok bool
	if t.user, ok = request.UserFrom(r.Context()); !ok {
		t.user = &user.DefaultInfo{Name: user.Anonymous}
	}
	if at := q.Get("at"); at != "" {
		var err error
		if t.revision, err = s.Moment(at); err != nil {
			return err
		}
		t.past = true
		audit.AddAuditAnnotation(r.Context(), "keelson.dev/at", at)
		if s.Since != nil {
			t.since = func(ctx context.Context) context.Context { return s.Since(ctx, t.revision) }
		}
	}
	all := t.shown(r.Context(), s.Catalogue)
	if len(all) == 0 {
		where := "in all namespaces"
		if t.namespace != "" {
			where = "in namespace " + t.namespace
		}
		if t.past {
			where += ", or may since a moment after the one asked for"
		}
		return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", fmt.Errorf("user %q may list neither nodes nor pods %s: "+
			"bind the ClusterRole view to the user, and one that lists nodes, or name a namespace with ?namespace=", t.user.GetName(), where))
	}
	leave, err := s.enter(t.user.GetName())
	if err != nil {
		return err
	}
	defer leave()
	t.picture = newPicture(all)
	t.label = label
	ctx, cancel := context.WithCancelCause(r.Context())
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel(nil)
	if t.past {
		if err := t.load(ctx, s.Store, t.revision); err != nil {
			return err
		}
	} else {
		watch, err := s.Store.Watch(everything, store.WatchOptions{})
		if err != nil {
			return err
		}
		defer watch.Stop()
		t.revision = watch.Revision()
		t.objects = int64(s.Store.Count(everything))
		if err := t.load(ctx, s.Store, 0); err != nil {
			return err
		}
		beside.Go(func() {
			if errors.Is(t.follow(ctx, watch), store.ErrCompacted) {
				cancel(errBehind)
			}
			cancel(errStop)
		})
		beside.Go(func() { t.watch(ctx, all, func() { cancel(errRights) }) })
		defer time.AfterFunc(maxAge, func() { cancel(errAge) }).Stop()
	}
	flowcontrol.WatchInitialized(r.Context()) // sending the picture needs no turn
	t.start(ctx, w, r)
	return nil
}

// everything is the prefix of all keys.
const everything = "/registry/"

// enter counts a stream, unless there are too many.
func (s *Stream) enter(name string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open >= maxStreams:
		return nil, apierrors.NewTooManyRequests(fmt.Sprintf("this server has %d streams, which is the most: close one", s.open), 10)
	case s.users[name] >= maxOfUser:
		return nil, apierrors.NewTooManyRequests(fmt.Sprintf("user %q has %d streams, which is the most: close one", name, s.users[name]), 10)
	}
	if s.users == nil {
		s.users = map[string]int{}
	}
	s.open++
	s.users[name]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
		if s.users[name]--; s.users[name] == 0 {
			delete(s.users, name)
		}
	}, nil
}

// session is a stream that is being served.
type session struct {
	*Stream
	rights
	*picture
	past     bool  // it shows a moment of the past
	revision int64 // of the first picture

	w       io.Writer
	flush   func() error
	timeout func(time.Time) error

	buf       []byte
	steps     *trace.Follower // nil if there are none
	pinged    time.Time
	statsAt   time.Time
	statsSent int64 // the revision then
	idle      bool  // the figures that were sent last say that nothing is written
}

// start answers, and sends until ctx is done or the client goes.
func (t *session) start(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("Cache-Control", "no-store")
	page.Harden(h)
	rc := http.NewResponseController(w)
	t.timeout = rc.SetWriteDeadline
	t.w, t.flush = w, rc.Flush
	// On this machine the way is faster than the compression.
	if page.Accepts(r.Header.Get("Accept-Encoding"), "gzip") && !local(r.RemoteAddr) {
		h.Set("Content-Encoding", "gzip")
		h.Set("Vary", "Accept-Encoding")
		z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			return // the level exists
		}
		defer z.Close()
		t.w, t.flush = z, func() error { return errors.Join(z.Flush(), rc.Flush()) }
	}
	w.WriteHeader(http.StatusOK)
	// What is being written when the stream is to end has a moment to go. The writer must
	// not be used after the handler's end.
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		_ = t.timeout(time.Now().Add(lastWords))
	})
	defer func() {
		if !stop() {
			<-over
		}
	}()
	if err := t.send(ctx); err != nil || ctx.Err() == nil {
		return // the client has gone, or has all that it asked for
	}
	reason := errStop
	for _, e := range []error{errRights, errAge, errBehind} {
		if errors.Is(context.Cause(ctx), e) {
			reason = e
		}
	}
	t.buf = append(appendField(append(t.buf[:0], `["bye"`...), reason.Error()), end...)
	if t.write() == nil {
		_ = t.flush()
	}
}

// local reports whether a client is on this machine.
func local(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// write writes buf.
func (t *session) write() error {
	_, err := t.w.Write(t.buf)
	return err
}

// send sends the picture, and then what changes, until ctx is done or the client has gone,
// which is an error.
func (t *session) send(ctx context.Context) error {
	var recorded <-chan struct{}
	if t.Trace != nil && !t.past {
		t.steps = t.Trace.Follow()
		defer t.steps.Close()
		recorded = t.steps.Wake()
	}
	if err := t.hello(); err != nil {
		return err
	}
	for first := t.pending(); !t.reached(first); {
		if ctx.Err() != nil {
			return nil
		}
		t.limit(ctx)
		if t.buf = t.drain(t.buf[:0], chunk); len(t.buf) > 0 {
			if err := t.write(); err != nil {
				return err
			}
		}
	}
	t.buf = append(t.buf[:0], `["ready"]`+"\n"...)
	if err := t.write(); err != nil {
		return err
	}
	if err := t.flush(); err != nil || t.past {
		return err
	}
	now := time.Now()
	t.pinged, t.statsAt, t.statsSent = now, now, t.revision
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		t.limit(ctx)
		sent, err := t.changes(ctx, time.Now())
		if err != nil {
			return err
		}
		if sent {
			timer.Reset(gap)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			continue
		}
		next := t.pinged.Add(pingPeriod)
		if !t.idle {
			next = t.statsAt.Add(statsPeriod)
		}
		timer.Reset(max(gap, time.Until(next)))
		select {
		case <-ctx.Done():
		case <-t.changed:
		case <-recorded:
		case <-timer.C:
		}
	}
	return nil
}

// limit sets the time that the client has for what is written next.
func (t *session) limit(ctx context.Context) {
	_ = t.timeout(time.Now().Add(stall))
	if ctx.Err() != nil {
		_ = t.timeout(time.Now().Add(lastWords))
	}
}

// hello sends the first line.
func (t *session) hello() error {
	may := map[string]bool{"trace": t.Trace != nil, "nodes": false, "pods": false}
	for i := range workloads {
		may[workloads[i].resource] = false
	}
	for _, of := range t.all {
		may[of.row.Resource] = true
	}
	oldest := int64(0)
	if p, ok := t.Store.(store.Past); ok {
		if _, since, err := p.Oldest(); err == nil {
			oldest = since.UnixMilli()
		}
	}
	b, err := json.Marshal([]any{"hello", map[string]any{"version": 1, "user": t.user.GetName(), "rv": strconv.FormatInt(t.revision, 10),
		"now": time.Now().UnixMilli(), "may": may, "history": oldest}})
	if err != nil {
		return err
	}
	t.buf = append(append(t.buf[:0], b...), '\n')
	return t.write()
}

// changes sends what has changed, and reports whether anything had.
func (t *session) changes(ctx context.Context, now time.Time) (sent bool, err error) {
	for more := true; more; {
		t.buf = t.drain(t.buf[:0], chunk)
		if more = len(t.buf) >= chunk; !more {
			t.buf = t.figures(t.written(ctx, t.buf, now), now)
			if now.Sub(t.pinged) >= pingPeriod {
				t.pinged = now
				t.buf = append(appendInt(append(t.buf, `["ping"`...), now.UnixMilli()), end...)
			}
		}
		if len(t.buf) == 0 {
			break
		}
		sent = true
		if err := t.write(); err != nil {
			return sent, err
		}
	}
	if sent {
		err = t.flush()
	}
	return sent, err
}

// written appends the steps since the last ones.
func (t *session) written(ctx context.Context, b []byte, now time.Time) []byte {
	if t.steps == nil {
		return b
	}
	steps, lost := t.steps.Read(stepsAtOnce)
	lost += t.steps.Skip()
	n := 0
	for _, s := range steps {
		if !t.sees(ctx, s.Resource, s.Namespace, now) {
			continue
		}
		if n++; n == 1 {
			b = append(b, `["steps",[`...)
		} else {
			b = append(b, ',')
		}
		b = appendStep(b, s)
	}
	if n > 0 {
		b = append(b, "]"+end...)
	}
	if lost > 0 {
		b = append(appendInt(append(b, `["dropped"`...), int64(lost)), end...) //nolint:gosec // not that many
	}
	return b
}

// figures appends how much is going on, if it is time.
func (t *session) figures(b []byte, now time.Time) []byte {
	revision := t.Store.Revision()
	writes := revision - t.statsSent
	if t.idle {
		t.idle, t.statsAt = writes == 0, now
		return b
	}
	took := now.Sub(t.statsAt)
	if took < statsPeriod {
		return b
	}
	t.idle, t.statsAt, t.statsSent = writes == 0, now, revision
	watches := int64(0)
	if t.Watches != nil {
		watches = t.Watches()
	}
	return fmt.Appendf(b, `["stats",{"writesPerSecond":%.1f,"watches":%d,"storeObjects":%d,"revision":"%d"}]`+"\n",
		float64(writes)/took.Seconds(), watches, t.count(), revision)
}
