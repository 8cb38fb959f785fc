package apiserver

import (
	"bytes"
	"context"
	stdjson "encoding/json"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"keelson.dev/keelson/internal/api"
)

// part holds the contribution of some resources to the document of OpenAPI v2,
// encoded once: the document is its parts, one after the other, in JSON as in
// protobuf.
type part struct {
	head        members // the parts that a document has once: title, security
	paths       members
	definitions members
	parameters  members
	proto       func() ([]byte, error)
}

// parts holds the parts of one document: base, and those of custom resources.
type parts struct {
	base   *part
	custom map[*api.Resource]*part
	// has are the names of base's definitions and parameters; parameters are those that
	// only custom resources have.
	has        map[string]bool
	parameters map[string]spec.Parameter
}

// newParts returns the parts with the document all as base.
func newParts(all *spec.Swagger) (*parts, error) {
	p := &parts{base: &part{}, has: map[string]bool{}, parameters: map[string]spec.Parameter{}}
	for _, m := range []struct {
		name  string
		value any
	}{{"swagger", all.Swagger}, {"info", all.Info}, {"securityDefinitions", all.SecurityDefinitions}, {"security", all.Security}} {
		if err := p.base.head.add(m.name, m.value); err != nil {
			return nil, err
		}
	}
	for name := range all.Definitions {
		p.has[name] = true
	}
	for name := range all.Parameters {
		p.has[name] = true
	}
	if err := p.base.encode(all); err != nil {
		return nil, err
	}
	return p, nil
}

// set replaces the custom resources of the document by rows. Rows that cannot be
// described are left out.
func (p *parts) set(rows []*api.Resource) {
	old := p.custom
	p.custom = make(map[*api.Resource]*part, len(rows))
	var missing []*api.Resource
	for _, row := range rows {
		if part := old[row]; part != nil {
			p.custom[row] = part
		} else {
			missing = append(missing, row)
		}
	}
	var found sync.Mutex
	workqueue.ParallelizeUntil(context.Background(), runtime.GOMAXPROCS(0), len(missing), func(i int) {
		part, parameters, err := p.newCustom(missing[i])
		if err != nil {
			undescribed(missing[i], err)
			return
		}
		found.Lock()
		defer found.Unlock()
		p.custom[missing[i]] = part
		maps.Copy(p.parameters, parameters)
	})
}

// newCustom returns the part that the row adds to base, and the parameters that
// base does not have.
func (p *parts) newCustom(row *api.Resource) (*part, map[string]spec.Parameter, error) {
	doc, err := row.DocumentV2()
	if err != nil {
		return nil, nil, err
	}
	parameters := doc.Parameters
	doc.Parameters = nil
	maps.DeleteFunc(parameters, func(name string, _ spec.Parameter) bool { return p.has[name] })
	maps.DeleteFunc(doc.Definitions, func(name string, _ spec.Schema) bool { return p.has[name] })
	custom := &part{}
	return custom, parameters, custom.encode(doc)
}

// document puts the parts together, in the same order on each server.
func (p *parts) document() (*document, error) {
	all := []*part{p.base}
	for _, row := range slices.SortedFunc(maps.Keys(p.custom), func(a, b *api.Resource) int {
		return strings.Compare(a.GroupVersionResource.String(), b.GroupVersionResource.String())
	}) {
		all = append(all, p.custom[row])
	}
	if len(p.parameters) > 0 {
		more := &part{}
		if err := more.encode(&spec.Swagger{SwaggerProps: spec.SwaggerProps{Parameters: p.parameters}}); err != nil {
			return nil, err
		}
		all = append(all, more)
	}
	json := together(all...)
	return &document{json: json, hash: hash(json...), proto: sync.OnceValues(func() (out [][]byte, err error) {
		for _, p := range all {
			b, err := p.proto()
			if err != nil {
				return nil, err
			}
			out = append(out, b)
		}
		return out, nil
	})}, nil
}

// encode adds the encoding of doc.
func (p *part) encode(doc *spec.Swagger) error {
	if doc.Paths != nil {
		for _, path := range slices.Sorted(maps.Keys(doc.Paths.Paths)) {
			if err := p.paths.add(path, doc.Paths.Paths[path]); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Definitions)) {
		if err := p.definitions.add(name, doc.Definitions[name]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Parameters)) {
		if err := p.parameters.add(name, doc.Parameters[name]); err != nil {
			return err
		}
	}
	p.proto = sync.OnceValues(p.protobuf)
	return nil
}

func (p *part) protobuf() ([]byte, error) {
	whole := *p
	if len(p.head) == 0 { // a document must have one
		whole.head = members(`"swagger":"2.0","info":{"title":"","version":""}`)
	}
	m, err := openapi_v2.ParseDocument(bytes.Join(together(&whole), nil))
	if err != nil {
		return nil, err
	}
	if len(p.head) == 0 {
		m.Swagger, m.Info = "", nil
	}
	return proto.Marshal(m)
}

// together returns the JSON of the document of all parts, in pieces.
func together(all ...*part) (json [][]byte) {
	section := func(begin string, of func(*part) members) {
		json = append(json, []byte(begin))
		first := true
		for _, p := range all {
			m := of(p)
			if len(m) == 0 {
				continue
			}
			if !first {
				json = append(json, []byte{','})
			}
			json, first = append(json, m), false
		}
	}
	section("{", func(p *part) members { return p.head })
	section(`,"paths":{`, func(p *part) members { return p.paths })
	section(`},"definitions":{`, func(p *part) members { return p.definitions })
	section(`},"parameters":{`, func(p *part) members { return p.parameters })
	return append(json, []byte("}}"))
}

// members holds the members of a JSON object, without the braces.
type members []byte

func (m *members) add(name string, value any) error {
	k, err := stdjson.Marshal(name)
	if err != nil {
		return err
	}
	var v []byte
	if own, ok := value.(stdjson.Marshaler); ok {
		v, err = own.MarshalJSON() // MarshalJSON has compacted it already
	} else {
		v, err = stdjson.Marshal(value)
	}
	if err != nil {
		return err
	}
	if len(*m) > 0 {
		*m = append(*m, ',')
	}
	*m = append(append(append(*m, k...), ':'), v...)
	return nil
}
