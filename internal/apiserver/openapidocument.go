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

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"github.com/munnerz/goautoneg"
	"google.golang.org/protobuf/proto"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"keelson.dev/keelson/internal/api"
)

// openapiCache keeps OpenAPI documents. Those of built-in group versions are made
// once. Those of custom resources, of which a big cluster has many that nobody
// asks for, are made anew when their rows are others, and only the last are kept.
type openapiCache struct {
	builtin sync.Map   // path to the func that gives its *document
	recent  *lru.Cache // schema.GroupVersion to *document, of custom resources

	v2 struct {
		sync.Mutex
		generation [2]uint64
		document   *document
		forget     clock.Timer
	}
}

const (
	// recentDocuments is how many documents of custom resources are kept.
	recentDocuments = 8
	// keepV2 is for how long the document of everything is kept that nobody asks for.
	keepV2 = 5 * time.Minute
)

// document is in JSON, and in protobuf once that has been asked for.
type document struct {
	json  []byte
	hash  string
	proto func() ([]byte, error)
}

func newDocument(json []byte, hash string, parse func([]byte) (proto.Message, error)) *document {
	return &document{json: json, hash: hash, proto: sync.OnceValues(func() ([]byte, error) {
		m, err := parse(json)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(m)
	})}
}

func parseV2(b []byte) (proto.Message, error) { return openapi_v2.ParseDocument(b) }
func parseV3(b []byte) (proto.Message, error) { return openapi_v3.ParseDocument(b) }

// form is one that documents are asked for in.
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

// formOf picks the form that the request accepts, the client's first choice
// first; false if there is none.
func (r *call) formOf(kind string) (form, bool) {
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

func (r *call) serveOpenAPI(parts []string) error {
	switch {
	case len(parts) == 2 && parts[1] == "v2":
		return r.openapiV2()
	case len(parts) == 2 && parts[1] == "v3":
		return r.openapiV3Root()
	case len(parts) == 4 && parts[1] == "v3" && parts[2] == "api" || len(parts) == 5 && parts[1] == "v3" && parts[2] == "apis":
		gv := schema.GroupVersion{Version: parts[len(parts)-1]}
		if len(parts) == 5 {
			gv.Group = parts[3]
		}
		if r.aggregated(gv.Group, gv.Version) {
			return nil
		}
		doc, err := r.s.openapiV3(gv)
		if err != nil {
			return err
		}
		if doc == nil {
			return r.notFoundPath()
		}
		return r.writeDocument(doc, specV3)
	}
	return r.notFoundPath()
}

// writeDocument answers with the document, as upstream does: a client that knows
// it by its tag keeps what it has, one that names an old hash is sent on to the
// new one, and what is asked for by its hash never changes.
func (r *call) writeDocument(doc *document, kind string) error {
	h := r.w.Header()
	h.Set("Vary", "Accept")
	f, ok := r.formOf(kind)
	if !ok {
		r.code = http.StatusNotAcceptable
		r.w.WriteHeader(r.code)
		return nil
	}
	tag := `"` + doc.hash + `"`
	h.Set("ETag", tag)
	lasting := ""
	if asked := r.req.URL.Query().Get("hash"); asked != "" && kind == specV3 {
		if asked != doc.hash {
			h.Set("Content-Type", f.given)
			r.code = http.StatusMovedPermanently
			http.Redirect(r.w, r.req, relative(strings.TrimPrefix(r.req.URL.Path, "/openapi/v3/"), doc.hash), r.code)
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
	body := doc.json
	if f.proto {
		var err error
		if body, err = doc.proto(); err != nil {
			return err
		}
	}
	if lasting != "" {
		c := *r
		c.w = &lastingWriter{r.w, lasting}
		err := c.write(http.StatusOK, f.given, body)
		r.code = c.code
		return err
	}
	return r.write(http.StatusOK, f.given, body)
}

// lastingWriter overrides how long an answer may be kept.
type lastingWriter struct {
	http.ResponseWriter
	control string
}

func (w *lastingWriter) WriteHeader(code int) {
	w.Header().Set("Cache-Control", w.control)
	w.ResponseWriter.WriteHeader(code)
}

func hash(b []byte) string { return fmt.Sprintf("%X", sha512.Sum512_256(b)) }

// build is this program: what documents are made of beside the rows.
var build = sync.OnceValue(func() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.String()
	}
	return ""
})

// relative is where the document of a group version with that hash is.
func relative(path, hash string) string {
	return (&url.URL{Path: "/openapi/v3/" + path, RawQuery: url.Values{"hash": {hash}}.Encode()}).String()
}

func gvPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.Group + "/" + gv.Version
}

func (r *call) openapiV3Root() error {
	paths := map[string]any{}
	for _, g := range r.s.Catalogue.Groups() {
		for _, v := range g.Versions {
			gv := schema.GroupVersion{Group: g.Name, Version: v}
			hash, err := r.s.hashV3(gv, r.s.Catalogue.RowsOf(gv))
			if err != nil {
				return err
			}
			paths[gvPath(gv)] = map[string]string{"serverRelativeURL": relative(gvPath(gv), hash)}
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

// hashV3 is what the document of the rows is known by. It changes with the
// document; for custom resources it is found without making that.
func (s *Server) hashV3(gv schema.GroupVersion, rows []*api.Resource) (string, error) {
	var keys []string
	for _, row := range rows {
		if row.DocumentV3 != nil {
			keys = append(keys, row.Resource+" "+row.DocumentKey)
		}
	}
	if len(keys) > 0 {
		slices.Sort(keys) // the order of the rows is that of their definitions' coming, another on each server
		return hash([]byte(strings.Join(append(keys, build(), s.Version.GitVersion), "\n"))), nil
	}
	doc, err := s.builtinV3(gv, rows)
	if err != nil {
		return "", err
	}
	return doc.hash, nil
}

// openapiV3 is the document of a group version; nil if there is none.
func (s *Server) openapiV3(gv schema.GroupVersion) (*document, error) {
	rows := s.Catalogue.RowsOf(gv)
	switch {
	case len(rows) == 0:
		return nil, nil
	case !slices.ContainsFunc(rows, func(row *api.Resource) bool { return row.DocumentV3 != nil }):
		return s.builtinV3(gv, rows)
	}
	hash, err := s.hashV3(gv, rows)
	if err != nil {
		return nil, err
	}
	// Two who ask at once for the same make it twice; nobody waits for others'.
	if doc, ok := s.openapi.recent.Get(gv); ok && doc.(*document).hash == hash {
		return doc.(*document), nil
	}
	json, err := s.customV3(rows)
	if err != nil {
		return nil, err
	}
	doc := newDocument(json, hash, parseV3)
	s.openapi.recent.Add(gv, doc)
	return doc, nil
}

// builtinV3 is the document of built-in rows, which never change.
func (s *Server) builtinV3(gv schema.GroupVersion, rows []*api.Resource) (*document, error) {
	make, ok := s.openapi.builtin.Load(gv)
	if !ok {
		make, _ = s.openapi.builtin.LoadOrStore(gv, sync.OnceValues(func() (*document, error) {
			json, err := stdjson.Marshal(s.ownV3(rows))
			return newDocument(json, hash(json), parseV3), err
		}))
	}
	return make.(func() (*document, error))()
}

// ownV3 describes the rows that have Go types.
func (s *Server) ownV3(rows []*api.Resource) map[string]any {
	d := &documenter{ref: "#/components/schemas/", schemas: map[string]any{}, v3: true}
	paths := map[string]any{}
	for _, row := range rows {
		if row.DocumentV3 == nil {
			d.row(row, paths)
		}
	}
	return map[string]any{
		"openapi":    "3.0.0",
		"info":       map[string]any{"title": "Kubernetes", "version": s.Version.GitVersion},
		"paths":      paths,
		"components": map[string]any{"schemas": d.schemas},
	}
}

func (s *Server) customV3(rows []*api.Resource) ([]byte, error) {
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
	merged, err := builder.MergeSpecsV3(parts...)
	if err != nil {
		return nil, err
	}
	return merged.MarshalJSON()
}

// undescribed says that a custom resource is left out of the documents.
func undescribed(row *api.Resource, err error) {
	klog.Background().Error(err, "The OpenAPI document of a custom resource cannot be made, and is left out", "resource", row.GroupVersionResource)
}

func (r *call) openapiV2() error {
	doc, err := r.s.openapiV2()
	if err != nil {
		return err
	}
	return r.writeDocument(doc, specV2)
}

// openapiV2 is the document of everything, which is made when somebody asks for
// it and kept for as long as somebody does.
func (s *Server) openapiV2() (*document, error) {
	c := &s.openapi.v2
	c.Lock()
	defer c.Unlock()
	if c.forget == nil {
		c.forget = s.Clock.NewTimer(keepV2)
		go func() {
			for {
				select {
				case <-c.forget.C():
					c.Lock()
					c.document = nil
					c.Unlock()
				case <-s.watches.Done():
					return
				}
			}
		}()
	}
	c.forget.Reset(keepV2)
	generation := s.generation()
	if c.document != nil && c.generation == generation {
		return c.document, nil
	}
	json, err := s.makeV2()
	if err != nil {
		return nil, err
	}
	c.generation, c.document = generation, newDocument(json, hash(json), parseV2)
	return c.document, nil
}

func (s *Server) makeV2() ([]byte, error) {
	var custom []*spec.Swagger
	d := &documenter{ref: "#/definitions/", schemas: map[string]any{}}
	paths := map[string]any{}
	var groups []schema.GroupVersion
	for _, row := range s.Catalogue.Rows() {
		if row.DocumentV2 == nil {
			d.row(row, paths)
			groups = append(groups, row.GroupVersion())
			continue
		}
		part, err := row.DocumentV2()
		if err != nil {
			undescribed(row, err)
			continue
		}
		custom = append(custom, part)
	}
	d.roots(groups, paths)
	own, err := stdjson.Marshal(map[string]any{
		"swagger":     "2.0",
		"info":        map[string]any{"title": "Kubernetes", "version": s.Version.GitVersion},
		"paths":       paths,
		"definitions": d.schemas,
	})
	if err != nil || len(custom) == 0 && (s.Aggregation == nil || !s.Aggregation.HasV2()) {
		return own, err
	}
	all := &spec.Swagger{}
	if err := all.UnmarshalJSON(own); err != nil {
		return nil, err
	}
	if all, err = builder.MergeSpecs(all, custom...); err != nil {
		return nil, err
	}
	if s.Aggregation != nil {
		all = s.Aggregation.MergeV2(all)
	}
	return all.MarshalJSON()
}
