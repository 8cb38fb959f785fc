package apiserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"keelson.dev/keelson/internal/store"
)

// bookmarkPeriod is how often an idle watch sends a bookmark.
const bookmarkPeriod = time.Minute

// stream sends the events of a watch to a client.
type stream struct {
	*call
	sel       *selection
	form      accepted
	w         store.Watcher
	bookmarks bool
	buf       *bytes.Buffer // of buffers, while there is something to flush
	guard     *guard
	seen      prometheus.Counter
	first     bool // the next table row brings the column definitions
	pause     time.Duration
	socket    *websocket.Conn // nil over plain HTTP
}

// watch streams the changes of the selected objects.
func (r reader) watch() error {
	opts, sel, err := r.listOptions()
	if err != nil {
		return err
	}
	form, err := r.accept(canTransform)
	if err != nil {
		return err
	}
	if form.mediaType == typeYAML {
		return notAcceptable("a stream of YAML")
	}
	rev := int64(0)
	if opts.ResourceVersion != "" {
		if rev, err = strconv.ParseInt(opts.ResourceVersion, 10, 64); err != nil || rev < 0 {
			return badRequest("Invalid value: %q: resourceVersion is not a number", opts.ResourceVersion)
		}
	}
	timeout := time.Duration(0)
	if opts.TimeoutSeconds != nil {
		timeout = time.Duration(*opts.TimeoutSeconds) * time.Second
	}
	if least := r.s.MinRequestTimeout; timeout == 0 && least > 0 {
		timeout = least + time.Duration(rand.Int64N(int64(least))) // random, so that clients do not all reconnect at once
	}
	st := &stream{call: r.call, sel: sel, form: form, bookmarks: opts.AllowWatchBookmarks, seen: r.s.metrics.seen(r.row), first: true}
	initial := opts.SendInitialEvents != nil && *opts.SendInitialEvents ||
		opts.SendInitialEvents == nil && rev == 0
	var list *store.ListResult
	var failed error
	if initial {
		if failed = r.reach(rev); failed == nil {
			lo := store.ListOptions{Index: sel.index, Value: sel.value}
			if !sel.trivial {
				lo.Match = sel.matches
			}
			if list, failed = r.s.Store.List(r.ctx(), sel.prefix, lo); failed == nil {
				rev = list.Revision
			}
		}
	} else if rev > 0 {
		failed = r.reach(rev)
	}
	if failed == nil {
		st.w, failed = r.s.Store.Watch(sel.prefix, store.WatchOptions{Revision: rev, Index: sel.index, Value: sel.value})
	}
	if failed != nil && !errors.Is(failed, store.ErrCompacted) {
		return r.storeError(failed, "")
	}
	ct := form.mediaType
	switch ct {
	case typeCBOR:
		ct = "application/cbor-seq"
	case typeProtobuf:
		ct += ";stream=watch"
	}
	h := r.w.Header()
	h.Set("Content-Type", ct)
	h.Set("Cache-Control", "no-cache, private")
	r.warnings.write(h)
	begin := func() {
		st.guard = newGuard(r.conn, r.s.StallLimit, r.s.metrics.terminated.WithLabelValues(r.row.Group, r.row.Resource).Inc)
		defer st.guard.stop()
		if st.socket == nil {
			st.guard.writing()
			r.w.WriteHeader(http.StatusOK)
		}
		if failed != nil {
			st.sendError(expiredWatch(failed))
			return
		}
		if st.socket == nil {
			flush(r.w)
			st.guard.written()
		}
		flowcontrol.WatchInitialized(r.ctx()) // the list has been read, and sending it needs no turn
		r.s.metrics.watching(r.call, 1)
		defer r.s.metrics.watching(r.call, -1)
		r.s.streams.Add(1)
		defer r.s.streams.Add(-1)
		first := list
		list = nil // frees the list, which this function would refer to as long as the watch lasts
		st.run(first, opts.SendInitialEvents != nil && *opts.SendInitialEvents, timeout)
	}
	if failed == nil {
		defer st.w.Stop()
	}
	if wsstream.IsWebSocketRequest(r.req) {
		st.overSocket(begin)
		return nil
	}
	r.code = http.StatusOK
	begin()
	return nil
}

func expiredWatch(err error) *metav1.Status {
	msg := "The resourceVersion for the provided watch is too old."
	var c *store.CompactedError
	if errors.As(err, &c) {
		msg = "too old resource version: " + formatRevision(c.Asked) + " (" + formatRevision(c.Oldest) + ")"
	}
	s := apierrors.NewResourceExpired(msg).Status()
	return &s
}

// errGone is the error of a client that has gone, or has read too little for
// too long.
var errGone = errors.New("the client has gone")

// run sends the initial list, then the changes, until the client goes, the time
// ends or the server stops. On another error it sends an ERROR event.
func (st *stream) run(list *store.ListResult, endMark bool, timeout time.Duration) {
	ctx, cancel := context.WithCancel(st.ctx())
	defer cancel()
	if timeout > 0 {
		defer time.AfterFunc(timeout, cancel).Stop()
	}
	defer context.AfterFunc(st.s.watches, cancel)()
	err := st.initial(list, endMark)
	for err == nil && ctx.Err() == nil {
		err = st.next(ctx)
	}
	switch {
	case err == nil && st.bookmarks && st.ctx().Err() == nil:
		if err = st.bookmark(st.w.Revision(), false); err == nil {
			_ = st.flush()
		}
	case err == nil, errors.Is(err, errGone), errors.Is(err, store.ErrClosed):
	case errors.Is(err, store.ErrCompacted):
		st.sendError(expiredWatch(err))
	default:
		klog.FromContext(st.ctx()).Error(err, "A watch ended", "resource", st.groupResource(), "namespace", st.info.Namespace)
		s := apierrors.NewInternalError(err).Status()
		st.sendError(&s)
	}
}

// initial sends the initial list.
func (st *stream) initial(list *store.ListResult, endMark bool) error {
	if list == nil {
		return nil
	}
	for _, e := range list.Entries {
		if err := st.send(watch.Added, e); err != nil {
			return err
		}
		if err := st.flushFull(); err != nil {
			return err
		}
	}
	if endMark && st.bookmarks {
		if err := st.bookmark(list.Revision, true); err != nil {
			return err
		}
	}
	return st.flush()
}

// next sends the next changes, or a bookmark after bookmarkPeriod without any.
func (st *stream) next(ctx context.Context) error {
	wait, stop := ctx, context.CancelFunc(func() {})
	if st.bookmarks {
		wait, stop = context.WithTimeout(ctx, bookmarkPeriod)
	}
	events, err := st.w.Next(wait)
	stop()
	switch {
	case err == nil:
		for i := range events {
			if err := st.event(&events[i]); err != nil {
				return err
			}
			if err := st.flushFull(); err != nil {
				return err
			}
		}
		if err := st.flush(); err != nil {
			return err
		}
		st.gather(ctx, len(events))
		return nil
	case ctx.Err() != nil:
		return nil //nolint:nilerr // the watch ends in time: no failure
	case errors.Is(err, context.DeadlineExceeded):
		if err := st.bookmark(st.w.Revision(), false); err != nil {
			return err
		}
		return st.flush()
	}
	return err
}

const (
	// turn is about the time that it takes to send an event.
	turn = 10 * time.Microsecond
	// shortGather and longGather bound the time that an event is delayed because of
	// other watches, where there are few events and where there are many.
	shortGather, longGather = 20 * time.Millisecond, 100 * time.Millisecond
	// crowd is the number of events at once from which gathering takes longer.
	crowd = 4
)

// gather waits a little after n events were sent, so that the events of that
// time are sent in one write. With few watches it does not wait; with many it
// waits for about the time that it takes to send an event to each, and longer
// while there are many events, as network cards moderate their interrupts.
func (st *stream) gather(ctx context.Context, n int) {
	all := time.Duration(st.s.streams.Load()) * turn
	if n >= crowd {
		st.pause = min(2*st.pause, 10*all, longGather)
	} else {
		st.pause /= 2
	}
	st.pause = max(st.pause, min(all, shortGather))
	if st.pause < time.Millisecond {
		return
	}
	t := time.NewTimer(st.pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// flushAt bounds the bytes that a stream gathers, except for a larger object, so
// that a slow client holds little memory.
const flushAt = 64 << 10

// buffers are shared by the streams: few send at a time.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// open makes st.buf collect what is sent.
func (st *stream) open() {
	if st.buf == nil {
		st.buf = buffers.Get().(*bytes.Buffer)
	}
}

func (st *stream) flush() error {
	if st.buf == nil {
		return nil
	}
	st.guard.writing()
	var err error
	if st.socket != nil {
		_, err = st.socket.Write(st.buf.Bytes())
	} else if _, err = st.call.w.Write(st.buf.Bytes()); err == nil {
		flush(st.call.w)
	}
	st.guard.written()
	if err != nil {
		return errGone // the frame may still be read from the buffer, which is therefore not reused
	}
	if st.buf.Reset(); st.buf.Cap() <= 4*flushAt { // a buffer that grew for a big object is not kept
		buffers.Put(st.buf)
	}
	st.buf = nil
	return nil
}

// flushFull flushes what is full: over a socket, each event is a message.
func (st *stream) flushFull() error {
	if st.buf == nil || st.buf.Len() < flushAt && st.socket == nil {
		return nil
	}
	return st.flush()
}

// event sends a change as the selection sees it: an object that enters it is
// ADDED, one that leaves it DELETED.
func (st *stream) event(ev *store.Event) error {
	was := st.sel.matches(ev.Prev)
	is := ev.Type == store.Put && st.sel.matches(ev.Entry)
	switch {
	case is && was:
		return st.send(watch.Modified, ev.Entry)
	case is:
		return st.send(watch.Added, ev.Entry)
	case was && ev.Type == store.Delete:
		return st.send(watch.Deleted, ev.Entry)
	case was:
		// The object left the selection: the client gets its former state, at this
		// revision.
		obj := shallow(ev.Prev.Object())
		setResourceVersion(obj, ev.Revision)
		return st.send(watch.Deleted, store.NewEntry(ev.Prev.Key, ev.Prev.CreateRevision, ev.Revision, store.Value{Object: obj, Form: ev.Prev.Form}))
	}
	return nil
}

func (st *stream) send(t watch.EventType, e *store.Entry) error {
	st.seen.Inc()
	if st.view != nil {
		e = st.view.entry(e)
	}
	st.open()
	if err := st.encode(t, e); err != nil {
		return fmt.Errorf("unable to encode watch object %T: %w", e.Object(), err)
	}
	return nil
}

func (st *stream) encode(t watch.EventType, e *store.Entry) error {
	if st.form.as.Empty() && (st.form.mediaType == typeJSON || !e.Custom()) {
		switch st.form.mediaType {
		case typeJSON:
			b, err := item(st.row, e, store.JSON)
			if err != nil {
				return err
			}
			st.buf.WriteString(`{"type":"`)
			st.buf.WriteString(string(t))
			st.buf.WriteString(`","object":`)
			if !e.Custom() {
				st.buf.WriteString(kindPrefix(st.row.GVK()))
				b = b[1:]
			}
			st.buf.Write(b)
			st.buf.WriteString("}\n")
			return nil
		case typeProtobuf:
			b, err := single(st.row, e, store.Protobuf)
			if err != nil {
				return err
			}
			return st.frame(string(t), b)
		}
	}
	obj, err := versioned(st.row, e.Object())
	if err != nil {
		return err
	}
	switch st.form.as.Kind {
	case "Table":
		table, err := st.table([]runtime.Object{obj}, metav1.ListMeta{ResourceVersion: resourceVersionOf(obj)})
		if err != nil {
			return err
		}
		if !st.first {
			table.ColumnDefinitions = nil
		}
		st.first = false
		return st.object(t, table)
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		p, err := partial(st.row, obj)
		if err != nil {
			return err
		}
		return st.object(t, p)
	}
	return st.object(t, withGVK(st.row.GVK(), obj))
}

// object sends an event with an object whose kind is set.
func (st *stream) object(t watch.EventType, obj runtime.Object) error {
	st.open()
	switch st.form.mediaType {
	case typeProtobuf:
		if _, ok := obj.(*unstructured.Unstructured); !ok {
			var b bytes.Buffer
			if err := st.s.codecs.protobuf.Encode(obj, &b); err != nil {
				return err
			}
			return st.frame(string(t), b.Bytes())
		}
	case typeCBOR:
		var b bytes.Buffer
		if err := st.s.codecs.cbor.Encode(obj, &b); err != nil {
			return err
		}
		ev := &metav1.WatchEvent{Type: string(t), Object: runtime.RawExtension{Raw: b.Bytes()}}
		return st.s.codecs.cbor.Encode(ev, st.buf)
	}
	b, err := marshalJSON(obj)
	if err != nil {
		return err
	}
	st.buf.WriteString(`{"type":"` + string(t) + `","object":`)
	st.buf.Write(b)
	st.buf.WriteString("}\n")
	return nil
}

// frame writes a length and a WatchEvent message with the object's bytes: the
// object is in its envelope, the event in none.
func (st *stream) frame(t string, object []byte) error {
	ev := metav1.WatchEvent{Type: t, Object: runtime.RawExtension{Raw: object}}
	raw, err := ev.Marshal()
	if err != nil {
		return err
	}
	if st.socket == nil { // a socket's messages have their length
		st.buf.Write(binary.BigEndian.AppendUint32(nil, uint32(len(raw))))
	}
	st.buf.Write(raw)
	return nil
}

// bookmark sends a bookmark: everything up to rev has been sent.
func (st *stream) bookmark(rev int64, initialEnd bool) error {
	obj := st.row.New()
	acc, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	acc.SetResourceVersion(formatRevision(rev))
	if initialEnd {
		acc.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	obj.GetObjectKind().SetGroupVersionKind(st.row.GVK())
	switch st.form.as.Kind {
	case "Table":
		t := &metav1.Table{ListMeta: metav1.ListMeta{ResourceVersion: formatRevision(rev)}, Rows: []metav1.TableRow{}}
		t.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("Table"))
		if st.first {
			t.ColumnDefinitions = st.row.Columns
		}
		if initialEnd {
			t.Rows = append(t.Rows, metav1.TableRow{Cells: []any{}, Object: runtime.RawExtension{Object: obj}})
		}
		return st.object(watch.Bookmark, t)
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		p, err := partial(st.row, obj)
		if err != nil {
			return err
		}
		return st.object(watch.Bookmark, p)
	}
	return st.object(watch.Bookmark, obj)
}

func (st *stream) sendError(s *metav1.Status) {
	s.SetGroupVersionKind(statusKind)
	if st.object(watch.Error, s) == nil {
		_ = st.flush() // an error means that the client has gone
	}
}

func setResourceVersion(obj runtime.Object, rev int64) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		// shallow shares the metadata map.
		if m, ok := u.Object["metadata"].(map[string]any); ok {
			c := make(map[string]any, len(m))
			for k, v := range m {
				c[k] = v
			}
			u.Object["metadata"] = c
		}
	}
	if acc, err := meta.Accessor(obj); err == nil {
		acc.SetResourceVersion(formatRevision(rev))
	}
}
