package apiserver

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/features"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/objectjson"
	"keelson.dev/keelson/internal/store"
)

// versioned returns the object of e in the row's version.
func versioned(row *api.Resource, obj runtime.Object) (runtime.Object, error) {
	if row.Hub == nil {
		return obj, nil
	}
	return row.Hub.FromHub(obj)
}

// untype clears the kind of an object of a Go type, as it is stored.
func untype(obj runtime.Object) {
	if _, ok := obj.(*unstructured.Unstructured); !ok {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
}

func marshalJSON(obj runtime.Object) ([]byte, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return objectjson.Marshal(u.Object)
	}
	return stdjson.Marshal(obj)
}

func marshalProtobuf(obj runtime.Object) ([]byte, error) {
	m, ok := obj.(interface{ Marshal() ([]byte, error) })
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form", obj)
	}
	return m.Marshal()
}

// item returns an entry's bytes as an item of a list: without its kind, where
// the type has one. It is encoded at most once per entry.
func item(row *api.Resource, e *store.Entry, enc store.Encoding) ([]byte, error) {
	encode := marshalJSON
	if enc == store.Protobuf {
		encode = marshalProtobuf
	}
	if row.Hub != nil {
		obj, err := row.Hub.FromHub(e.Object())
		if err != nil {
			return nil, err
		}
		untype(obj)
		return encode(obj)
	}
	return e.Encoded(enc, encode)
}

// kindPrefix returns the beginning of the JSON of an object on its own: its kind
// and apiVersion.
func kindPrefix(gvk schema.GroupVersionKind) string {
	return `{"kind":` + strconv.Quote(gvk.Kind) + `,"apiVersion":` + strconv.Quote(gvk.GroupVersion().String()) + `,`
}

func isUnstructured(row *api.Resource) bool {
	_, ok := row.New().(*unstructured.Unstructured)
	return ok
}

// single returns an entry's bytes as an object on its own.
func single(row *api.Resource, e *store.Entry, enc store.Encoding) ([]byte, error) {
	b, err := item(row, e, enc)
	if err != nil {
		return nil, err
	}
	if enc == store.Protobuf {
		return store.Envelope(row.GVK(), b)
	}
	if e.Custom() {
		return b, nil
	}
	return withKind(row.GVK(), b)
}

// errTorn is the error for an entry whose encoding is corrupt.
var errTorn = errors.New("internal: an entry's encoding is not an object")

func withKind(gvk schema.GroupVersionKind, b []byte) ([]byte, error) {
	if len(b) < 2 || b[0] != '{' {
		return nil, errTorn
	}
	prefix := kindPrefix(gvk)
	out := make([]byte, 0, len(prefix)+len(b))
	out = append(out, prefix...)
	return append(out, b[1:]...), nil
}

// response is the answer to a request, in the form that its client accepts.
type response struct {
	incoming
	w http.ResponseWriter
	// conn is the client's connection, nil within the process.
	conn connection
	code int // 0 before the answer
}

// writeEntry answers with the object of e.
func (r *response) writeEntry(code int, e *store.Entry) error {
	a, err := r.accept(canTransform)
	if err != nil {
		return err
	}
	if a.as.Empty() && !a.pretty && !r.wantsResponse() {
		switch a.mediaType {
		case typeJSON:
			b, err := single(r.row, e, store.JSON)
			if err != nil {
				return err
			}
			return r.write(code, typeJSON, b, []byte{'\n'})
		case typeProtobuf:
			if !isUnstructured(r.row) {
				b, err := single(r.row, e, store.Protobuf)
				if err != nil {
					return err
				}
				return r.write(code, typeProtobuf, b)
			}
		}
	}
	obj, err := versioned(r.row, e.Object())
	if err != nil {
		return err
	}
	return r.writeStored(code, a, obj)
}

// writeObject answers with an object of the row's kind that is not in the store.
func (r *response) writeObject(code int, obj runtime.Object) error {
	a, err := r.accept(canTransform)
	if err != nil {
		return err
	}
	return r.writeStored(code, a, obj)
}

// writeStored answers with obj, of the row's kind, in the form a.
func (r *response) writeStored(code int, a accepted, obj runtime.Object) error {
	switch a.as.Kind {
	case "Table":
		t, err := r.table([]runtime.Object{obj}, metav1.ListMeta{})
		if err != nil {
			return err
		}
		t.ResourceVersion = resourceVersionOf(obj)
		return r.writeAs(code, a, t)
	case "PartialObjectMetadata":
		p, err := partial(r.row, obj)
		if err != nil {
			return err
		}
		return r.writeAs(code, a, p)
	case "":
		return r.writeAs(code, a, withGVK(r.row.GVK(), obj))
	}
	return notAcceptable(a.as.Kind)
}

// withGVK returns obj with its kind set: itself if it has one, else a shallow
// copy.
func withGVK(gvk schema.GroupVersionKind, obj runtime.Object) runtime.Object {
	if !obj.GetObjectKind().GroupVersionKind().Empty() {
		return obj
	}
	c := shallow(obj)
	c.GetObjectKind().SetGroupVersionKind(gvk)
	return c
}

// writeAs answers with obj as it is; its kind is set.
func (r *response) writeAs(code int, a accepted, obj runtime.Object) error {
	r.auditResponse(obj)
	switch a.mediaType {
	case typeProtobuf:
		if _, ok := obj.(*unstructured.Unstructured); !ok {
			var buf bytes.Buffer
			if err := r.s.codecs.protobuf.Encode(obj, &buf); err != nil {
				return err
			}
			return r.write(code, typeProtobuf, buf.Bytes())
		}
	case typeCBOR:
		var buf bytes.Buffer
		if err := r.s.codecs.cbor.Encode(obj, &buf); err != nil {
			return err
		}
		return r.write(code, typeCBOR, buf.Bytes())
	}
	b, err := marshalJSON(obj)
	if err != nil {
		return err
	}
	if a.mediaType == typeYAML {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return err
		}
		return r.write(code, typeYAML, b)
	}
	if a.pretty {
		var buf bytes.Buffer
		if err := stdjson.Indent(&buf, b, "", "  "); err != nil {
			return err
		}
		b = buf.Bytes()
	}
	return r.write(code, typeJSON, b, []byte{'\n'})
}

// gzipAbove is the size from which an answer is compressed, upstream's.
const gzipAbove = 128 * 1024

var gzips = responsewriters.NewGzipWriterPoolOrDie()

// keeper is what a client in this process is answered by: it reads the parts of an answer
// where they are. They do not change.
type keeper interface{ Keep(parts [][]byte) }

// write sends an answer made of parts.
func (r *response) write(code int, contentType string, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	h := r.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache, private")
	r.warnings.write(h)
	r.code = code
	if size > gzipAbove && responsewriters.ContentEncodingSupported(r.req, features.APIResponseCompression) == "gzip" {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		r.w.WriteHeader(code)
		gz := gzips.Get().(*gzip.Writer)
		defer gzips.Put(gz)
		gz.Reset(r.w)
		for _, p := range parts {
			if _, err := gz.Write(p); err != nil {
				return nil //nolint:nilerr // the client has gone
			}
		}
		gz.Close()
		return nil
	}
	h.Set("Content-Length", strconv.Itoa(size))
	r.w.WriteHeader(code)
	if w, ok := r.w.(keeper); ok {
		w.Keep(parts)
		return nil
	}
	if len(parts) > 2 {
		// Each write to net/http costs a frame or more.
		w := gathers.Get().(*bufio.Writer)
		defer gathers.Put(w)
		w.Reset(r.w)
		for _, p := range parts {
			if _, err := w.Write(p); err != nil {
				return nil //nolint:nilerr // the client has gone
			}
		}
		_ = w.Flush()
		w.Reset(nil)
		return nil
	}
	for _, p := range parts {
		if _, err := r.w.Write(p); err != nil {
			return nil //nolint:nilerr // the client has gone
		}
	}
	return nil
}

// gathers are buffers that join the parts of an answer into few writes.
var gathers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 256<<10) }}

// writeList answers with a list of the row's kind: a concatenation of the
// entries' bytes.
func (r *response) writeList(a accepted, entries []*store.Entry, m metav1.ListMeta) error {
	listKind := r.row.ListGVK()
	if a.as.Empty() && !a.pretty && a.mediaType == typeJSON && !r.wantsResponse() {
		mb, err := stdjson.Marshal(m)
		if err != nil {
			return err
		}
		parts := make([][]byte, 0, 2*len(entries)+2)
		parts = append(parts, []byte(kindPrefix(listKind)+`"metadata":`+string(mb)+`,"items":[`))
		comma := []byte{','}
		for i, e := range entries {
			b, err := item(r.row, e, store.JSON)
			if err != nil {
				return err
			}
			if i > 0 {
				parts = append(parts, comma)
			}
			parts = append(parts, b)
		}
		return r.write(http.StatusOK, typeJSON, append(parts, []byte("]}\n"))...)
	}
	if a.as.Empty() && a.mediaType == typeProtobuf && !isUnstructured(r.row) && !r.wantsResponse() {
		return r.writeProtobufList(listKind, entries, m)
	}
	objs := make([]runtime.Object, len(entries))
	for i, e := range entries {
		obj, err := versioned(r.row, e.Object())
		if err != nil {
			return err
		}
		objs[i] = obj
	}
	switch a.as.Kind {
	case "Table":
		t, err := r.table(objs, m)
		if err != nil {
			return err
		}
		return r.writeAs(http.StatusOK, a, t)
	case "PartialObjectMetadataList", "PartialObjectMetadata":
		l := &metav1.PartialObjectMetadataList{ListMeta: m, Items: make([]metav1.PartialObjectMetadata, 0, len(objs))}
		l.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList"))
		for _, o := range objs {
			p, err := partial(r.row, o)
			if err != nil {
				return err
			}
			l.Items = append(l.Items, *p)
		}
		return r.writeAs(http.StatusOK, a, l)
	}
	list, err := listOf(r.row, objs, m)
	if err != nil {
		return err
	}
	return r.writeAs(http.StatusOK, a, list)
}

// writeProtobufList writes the message {1: ListMeta, 2: items...} in its envelope.
func (r *response) writeProtobufList(kind schema.GroupVersionKind, entries []*store.Entry, m metav1.ListMeta) error {
	mb, err := m.Marshal()
	if err != nil {
		return err
	}
	field := func(tag byte, size int) []byte { return binary.AppendUvarint([]byte{tag<<3 | 2}, uint64(size)) }
	parts := [][]byte{append(field(1, len(mb)), mb...)}
	for _, e := range entries {
		b, err := item(r.row, e, store.Protobuf)
		if err != nil {
			return err
		}
		parts = append(parts, field(2, len(b)), b)
	}
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	tm := runtime.TypeMeta{APIVersion: kind.GroupVersion().String(), Kind: kind.Kind}
	tb, err := tm.Marshal()
	if err != nil {
		return err
	}
	head := append([]byte{'k', '8', 's', 0}, field(1, len(tb))...)
	head = append(append(head, tb...), field(2, size)...)
	parts = append([][]byte{head}, parts...)
	return r.write(http.StatusOK, typeProtobuf, append(parts, []byte{3<<3 | 2, 0, 4<<3 | 2, 0})...)
}

// flush sends what has been written so far.
func flush(w io.Writer) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}
