package inprocess

import (
	"bytes"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/answer"
)

// Host is the host of in-process clients' URLs; nothing resolves it.
const Host = "http://in-process"

// Config returns a client configuration whose requests go to h as u, without
// limits of rate.
func Config(h http.Handler, u user.Info) *rest.Config {
	return &rest.Config{
		Host:      Host,
		Transport: &transport{h, u},
		QPS:       -1,
		UserAgent: UserAgent(u),
		ContentConfig: rest.ContentConfig{
			ContentType:        "application/vnd.kubernetes.protobuf",
			AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json",
		},
	}
}

// transport calls a handler.
type transport struct {
	handler http.Handler
	user    user.Info
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := apiserver.WithUser(req.Context(), t.user)
	// What the server may change of it is the server's own: the map of the header, not
	// the values.
	in := req.WithContext(ctx)
	in.Header = maps.Clone(req.Header)
	url := *req.URL
	in.URL = &url
	in.RequestURI = in.URL.RequestURI()
	in.RemoteAddr = answer.InProcess
	if in.Body == nil {
		in.Body = http.NoBody
	}
	if watching(in) {
		pr, pw := io.Pipe()
		w := &streamed{header: http.Header{}, body: pw, ready: make(chan struct{})}
		go func() {
			defer pw.Close()
			t.handler.ServeHTTP(w, in)
			w.WriteHeader(http.StatusOK)
		}()
		select {
		case <-w.ready:
		case <-ctx.Done():
			// A client that gave up gets a stream that has ended, not an error
			// to log.
			pr.CloseWithError(ctx.Err())
			return response(req, http.StatusOK, http.Header{"Content-Type": {"application/json"}}, http.NoBody, 0), nil
		}
		return response(req, w.code, w.header, pr, -1), nil
	}
	w := &recorded{header: http.Header{}}
	t.handler.ServeHTTP(w, in)
	if w.code == 0 {
		w.code = http.StatusOK
	}
	size := 0
	for _, p := range w.body {
		size += len(p)
	}
	return response(req, w.code, w.header, io.NopCloser(&w.body), int64(size)), nil
}

func watching(r *http.Request) bool {
	q := r.URL.Query()
	return q.Get("watch") == "true" || q.Get("watch") == "1" || q.Get("follow") == "true"
}

func response(req *http.Request, code int, header http.Header, body io.ReadCloser, n int64) *http.Response {
	return &http.Response{
		StatusCode: code, Status: strconv.Itoa(code) + " " + http.StatusText(code),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: body, ContentLength: n, Request: req,
	}
}

type recorded struct {
	header http.Header
	code   int
	body   net.Buffers
}

func (w *recorded) Header() http.Header { return w.header }
func (w *recorded) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
}
func (w *recorded) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, bytes.Clone(b))
	return len(b), nil
}

// Keep adds parts that do not change.
func (w *recorded) Keep(parts [][]byte) { w.body = append(w.body, parts...) }

type streamed struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	code   int
	ready  chan struct{}
}

func (w *streamed) Header() http.Header { return w.header }
func (w *streamed) Flush()              {}
func (w *streamed) WriteHeader(code int) {
	w.once.Do(func() {
		w.code = code
		close(w.ready)
	})
}
func (w *streamed) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
