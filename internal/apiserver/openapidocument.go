package apiserver

import (
	"crypto/sha512"
	stdjson "encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"github.com/munnerz/goautoneg"
	"google.golang.org/protobuf/proto"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"keelson.dev/keelson/internal/api"
)

// openapiCache keeps the OpenAPI documents of recent requests: they are large, and
// most are never requested.
type openapiCache struct {
	recent *lru.Cache // maps a path below /openapi/v3 to *document

	v2 struct {
		sync.Mutex
		document   *document
		generation [2]uint64 // the catalogue's, for which v2 was made
		parts      *parts
	}

	timing sync.Mutex // of forget
	forget clock.Timer
}

const (
	// recentDocuments is how many documents of OpenAPI v3 are kept.
	recentDocuments = 8
	// keepDocuments is how long documents are kept without a request for one.
	keepDocuments = 5 * time.Minute
)

// document is an OpenAPI document in JSON, and in protobuf once it has been
// requested; each in pieces.
type document struct {
	json  [][]byte
	hash  string
	proto func() ([][]byte, error)
}

// form is a form in which documents are served.
type form struct {
	accept, given string
	proto         bool
}

const (
	specV2 = "com.github.proto-openapi.spec.v2"
	specV3 = "com.github.proto-openapi.spec.v3"
)

func forms(kind string) []form {
	protobuf := "application/" + kind + ".v1.0+protobuf"
	return []form{{typeJSON, typeJSON, false}, {protobuf, protobuf, true}, {"application/" + kind + "@v1.0+protobuf", protobuf, true}}
}

// formOf picks the first form of the request's Accept header that is served;
// false if there is none.
func (r documents) formOf(kind string) (form, bool) {
	accept := r.req.Header.Get("Accept")
	if accept == "" {
		accept = "*/*"
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		for _, f := range forms(kind) {
			typ, sub, _ := strings.Cut(f.accept, "/")
			if (clause.Type == typ || clause.Type == "*") && (clause.SubType == sub || clause.SubType == "*") {
				return f, true
			}
		}
	}
	return form{}, false
}

func (r documents) serveOpenAPI(parts []string) error {
	switch {
	case len(parts) == 2 && parts[1] == "v2":
		doc, err := r.s.openapiV2()
		if err != nil {
			return err
		}
		return r.writeDocument(doc.hash, specV2, func() (*document, error) { return doc, nil })
	case len(parts) == 2 && parts[1] == "v3":
		return r.openapiV3Root()
	case len(parts) > 2 && parts[1] == "v3":
		path := strings.Join(parts[2:], "/")
		gv, versioned := versionAt(parts[2:])
		if versioned && r.aggregated(gv.Group, gv.Version) {
			return nil
		}
		rows := r.s.Catalogue.RowsOf(gv)
		if len(rows) == 0 && (versioned || r.s.roots()[path] == nil) {
			return r.notFoundPath()
		}
		hash := r.s.hashV3(path, rows)
		return r.writeDocument(hash, specV3, func() (*document, error) { return r.s.openapiV3(path, rows, hash) })
	}
	return r.notFoundPath()
}

// versionAt returns the group version whose path has these parts; false if there is
// none.
func versionAt(parts []string) (gv schema.GroupVersion, ok bool) {
	switch {
	case len(parts) == 2 && parts[0] == "api":
		return schema.GroupVersion{Version: parts[1]}, true
	case len(parts) == 3 && parts[0] == "apis":
		return schema.GroupVersion{Group: parts[1], Version: parts[2]}, true
	}
	return gv, false
}

// writeDocument answers with the document, as upstream does: a client with its
// ETag gets 304, a request with an old hash is redirected to the new one, and an
// answer to a request with the hash may be cached for ever.
func (r documents) writeDocument(hash, kind string, get func() (*document, error)) error {
	h := r.w.Header()
	h.Set("Vary", "Accept")
	f, ok := r.formOf(kind)
	if !ok {
		r.code = http.StatusNotAcceptable
		r.w.WriteHeader(r.code)
		return nil
	}
	tag := `"` + hash + `"`
	h.Set("ETag", tag)
	lasting := ""
	if asked := r.req.URL.Query().Get("hash"); asked != "" && kind == specV3 {
		if asked != hash {
			h.Set("Content-Type", f.given)
			r.code = http.StatusMovedPermanently
			http.Redirect(r.w, r.req, relative(strings.TrimPrefix(r.req.URL.Path, "/openapi/v3/"), hash), r.code)
			return nil
		}
		lasting = "public, immutable"
		h.Set("Expires", r.s.Clock.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	if r.req.Header.Get("If-None-Match") == tag {
		if lasting != "" {
			h.Set("Cache-Control", lasting)
		}
		r.code = http.StatusNotModified
		r.w.WriteHeader(r.code)
		return nil
	}
	doc, err := get()
	if err != nil {
		return err
	}
	body := doc.json
	if f.proto {
		if body, err = doc.proto(); err != nil {
			return err
		}
	}
	if lasting != "" {
		c := *r.call
		c.w = &lastingWriter{r.w, lasting}
		err := c.write(http.StatusOK, f.given, body...)
		r.code = c.code
		return err
	}
	return r.write(http.StatusOK, f.given, body...)
}

// lastingWriter overrides the Cache-Control header of an answer.
type lastingWriter struct {
	http.ResponseWriter
	control string
}

func (w *lastingWriter) WriteHeader(code int) {
	w.Header().Set("Cache-Control", w.control)
	w.ResponseWriter.WriteHeader(code)
}

func hash(pieces ...[]byte) string {
	h := sha512.New512_256()
	for _, b := range pieces {
		h.Write(b)
	}
	return fmt.Sprintf("%X", h.Sum(nil))
}

// build returns the identity of this program, which documents depend on beside
// the rows.
var build = sync.OnceValue(func() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.String()
	}
	return ""
})

// relative returns the URL of the document of a group version with that hash.
func relative(path, hash string) string {
	return (&url.URL{Path: "/openapi/v3/" + path, RawQuery: url.Values{"hash": {hash}}.Encode()}).String()
}

func gvPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.Group + "/" + gv.Version
}

func (r documents) openapiV3Root() error {
	paths := map[string]any{}
	add := func(path string, rows []*api.Resource) {
		paths[path] = map[string]string{"serverRelativeURL": relative(path, r.s.hashV3(path, rows))}
	}
	for path := range r.s.roots() {
		add(path, nil)
	}
	for _, g := range r.s.Catalogue.Groups() {
		for _, v := range g.Versions {
			gv := schema.GroupVersion{Group: g.Name, Version: v}
			add(gvPath(gv), r.s.Catalogue.RowsOf(gv))
		}
	}
	for gv, v := range r.s.remoteVersions() {
		delete(paths, gvPath(gv))
		if v.OpenAPIV3 != "" {
			paths[gvPath(gv)] = map[string]string{"serverRelativeURL": v.OpenAPIV3}
		}
	}
	b, err := stdjson.Marshal(map[string]any{"paths": paths})
	if err != nil {
		return err
	}
	tag := `"` + hash(b) + `"`
	r.w.Header().Set("ETag", tag)
	if r.req.Header.Get("If-None-Match") == tag {
		r.code = http.StatusNotModified
		r.w.WriteHeader(r.code)
		return nil
	}
	return r.write(http.StatusOK, typeJSON, b)
}

// hashV3 returns the hash of the document at path, of rows if it is a group version's.
// It hashes the inputs of the document, so that the document need not be made.
func (s *Server) hashV3(path string, rows []*api.Resource) string {
	keys := []string{path, build(), s.Version.GitVersion}
	for _, row := range rows {
		keys = append(keys, row.Resource+" "+row.DocumentKey)
	}
	slices.Sort(keys) // the order of the rows, that of their creation, differs between servers
	return hash([]byte(strings.Join(keys, "\n")))
}

// openapiV3 returns the document at path, which has that hash.
func (s *Server) openapiV3(path string, rows []*api.Resource, hash string) (*document, error) {
	s.keepDocuments()
	// Concurrent requests for the same document each make it, without waiting for
	// one another.
	if doc, ok := s.openapi.recent.Get(path); ok && doc.(*document).hash == hash {
		return doc.(*document), nil
	}
	made, err := s.makeV3(path, rows)
	if err != nil {
		return nil, err
	}
	json, err := made.MarshalJSON()
	if err != nil {
		return nil, err
	}
	doc := &document{json: [][]byte{json}, hash: hash, proto: sync.OnceValues(func() ([][]byte, error) {
		m, err := openapi_v3.ParseDocument(json)
		if err != nil {
			return nil, err
		}
		b, err := proto.Marshal(m)
		return [][]byte{b}, err
	})}
	s.openapi.recent.Add(path, doc)
	return doc, nil
}

func (s *Server) makeV3(path string, rows []*api.Resource) (*spec3.OpenAPI, error) {
	switch {
	case len(rows) == 0:
		return s.describeV3(s.roots()[path])
	case !custom(rows):
		return s.describeV3(describeVersion(rows[0].GroupVersion(), rows))
	}
	var parts []*spec3.OpenAPI
	for _, row := range rows {
		if row.DocumentV3 == nil {
			continue
		}
		part, err := row.DocumentV3()
		if err != nil {
			undescribed(row, err)
			continue
		}
		parts = append(parts, part)
	}
	return builder.MergeSpecsV3(parts...)
}

// custom reports whether the group version of rows has custom resources.
func custom(rows []*api.Resource) bool {
	return slices.ContainsFunc(rows, func(row *api.Resource) bool { return row.DocumentV3 != nil })
}

// undescribed logs that a custom resource is left out of the documents.
func undescribed(row *api.Resource, err error) {
	klog.Background().Error(err, "The OpenAPI document of a custom resource cannot be made, and is left out", "resource", row.GroupVersionResource)
}

// keepDocuments keeps the documents for the time of that name from now on.
func (s *Server) keepDocuments() {
	c := &s.openapi
	c.timing.Lock()
	defer c.timing.Unlock()
	if c.forget == nil {
		c.forget = s.Clock.NewTimer(keepDocuments)
		go func() {
			for {
				select {
				case <-c.forget.C():
					c.recent.Clear()
					c.v2.Lock()
					c.v2.document, c.v2.parts = nil, nil
					c.v2.Unlock()
				case <-s.watches.Done():
					return
				}
			}
		}()
	}
	c.forget.Reset(keepDocuments)
}

// openapiV2 returns the OpenAPI v2 document of all resources, made on request.
func (s *Server) openapiV2() (*document, error) {
	s.keepDocuments()
	c := &s.openapi.v2
	c.Lock()
	defer c.Unlock()
	generation := s.generation()
	if c.document != nil && c.generation == generation {
		return c.document, nil
	}
	if c.parts == nil || c.generation[1] != generation[1] {
		all, err := s.describeV2()
		if err != nil {
			return nil, err
		}
		if s.Aggregation != nil {
			all = s.Aggregation.MergeV2(all)
		}
		if c.parts, err = newParts(all); err != nil {
			return nil, err
		}
	}
	c.parts.set(slices.DeleteFunc(slices.Clone(s.Catalogue.Rows()), func(row *api.Resource) bool { return row.DocumentV2 == nil }))
	doc, err := c.parts.document()
	if err != nil {
		return nil, err
	}
	c.generation, c.document = generation, doc
	return doc, nil
}
