package apiserver

import (
	"reflect"
	"sort"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
)

// documenter describes Go types and rows in OpenAPI's terms.
type documenter struct {
	ref     string
	schemas map[string]any
	v3      bool
}

type object = map[string]any

// gvks says which kinds the rows give to a Go type.
func (d *documenter) row(row *api.Resource, paths map[string]any) {
	gvk := row.GVK()
	ref := d.kind(row.New(), gvk)
	list := ref
	if row.NewList != nil {
		list = d.kind(row.NewList(), row.GroupVersion().WithKind(row.Kind+"List"))
	}
	base := "/" + gvPath(row.GroupVersion()) + "/"
	if row.Namespaced {
		base += "namespaces/{namespace}/"
	}
	base += row.Resource
	collection, item, everywhere := object{}, object{}, object{}
	status := func() object { return d.typeOf(reflect.TypeFor[metav1.Status]()) }
	name := operationNames(row)
	for _, verb := range row.ServedVerbs() {
		switch verb {
		case "list":
			collection["get"] = d.operation(name("list", "", ""), "list", gvk, list, nil)
			if row.Namespaced {
				everywhere["get"] = d.operation("list"+groupTitle(row.GroupVersion())+row.Kind+"ForAllNamespaces", "list", gvk, list, nil)
			}
		case "create":
			collection["post"] = d.operation(name("create", "", ""), "post", gvk, ref, ref)
		case "deletecollection":
			collection["delete"] = d.operation(name("delete", "Collection", ""), "deletecollection", gvk, status(), nil)
		case "get":
			item["get"] = d.operation(name("read", "", ""), "get", gvk, ref, nil)
		case "update":
			item["put"] = d.operation(name("replace", "", ""), "put", gvk, ref, ref)
		case "patch":
			item["patch"] = d.operation(name("patch", "", ""), "patch", gvk, ref, object{"type": "object"})
		case "delete":
			item["delete"] = d.operation(name("delete", "", ""), "delete", gvk, status(), nil)
		}
	}
	add := func(path string, ops object, names ...string) {
		if len(ops) == 0 {
			return
		}
		var params []any
		for _, n := range names {
			params = append(params, d.parameter(n, "path", "string", true))
		}
		if params != nil {
			ops["parameters"] = params
		}
		paths[path] = ops
	}
	var ns []string
	if row.Namespaced {
		ns = []string{"namespace"}
	}
	add(base, collection, ns...)
	add("/"+gvPath(row.GroupVersion())+"/"+row.Resource, everywhere)
	add(base+"/{name}", item, append(ns, "name")...)
	for _, sub := range subresources(row) {
		ops := object{}
		sref := ref
		if sub.Kind != gvk {
			sref = object{"type": "object"}
			if sub.Name == "scale" {
				sref = d.kind(scaleRow.New(), sub.Kind)
			}
		}
		title := strings.ToUpper(sub.Name[:1]) + sub.Name[1:]
		if connects[sub.Name] {
			text := object{"type": "string"}
			methods := map[string]string{"get": "Get", "post": "Post"}
			if sub.Name == "proxy" {
				methods = map[string]string{"get": "Get", "post": "Post", "put": "Put", "patch": "Patch", "delete": "Delete", "head": "Head", "options": "Options"}
				within := object{}
				for method, m := range methods {
					within[method] = d.operation(name("connect", m, title+"WithPath"), "connect", sub.Kind, text, nil)
				}
				add(base+"/{name}/proxy/{path}", within, append(ns, "name", "path")...)
			}
			for method, m := range methods {
				ops[method] = d.operation(name("connect", m, title), "connect", sub.Kind, text, nil)
			}
		} else {
			for _, verb := range sub.Verbs {
				switch verb {
				case "get":
					ops["get"] = d.operation(name("read", "", title), "get", sub.Kind, sref, nil)
				case "update":
					ops["put"] = d.operation(name("replace", "", title), "put", sub.Kind, sref, sref)
				case "patch":
					ops["patch"] = d.operation(name("patch", "", title), "patch", sub.Kind, sref, object{"type": "object"})
				case "create":
					ops["post"] = d.operation(name("create", "", title), "post", sub.Kind, sref, sref)
				}
			}
		}
		add(base+"/{name}/"+sub.Name, ops, append(ns, "name")...)
	}
}

func (d *documenter) parameter(name, in, typ string, required bool) object {
	p := object{"name": name, "in": in}
	if required {
		p["required"] = true
	}
	if d.v3 {
		p["schema"] = object{"type": typ, "uniqueItems": true}
	} else {
		p["type"], p["uniqueItems"] = typ, true
	}
	return p
}

// connects are the subresources that are not objects but connections.
var connects = map[string]bool{"attach": true, "exec": true, "portforward": true, "proxy": true}

// groupTitle is a version as the names of its operations have it: CoreV1,
// RbacAuthorizationV1.
func groupTitle(gv schema.GroupVersion) string {
	group := strings.TrimSuffix(gv.Group, ".k8s.io")
	if group == "" {
		group = "core"
	}
	var b strings.Builder
	for _, part := range append(strings.Split(group, "."), gv.Version) {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

// operationNames names the row's operations as upstream does, which generated
// clients name their methods after: readCoreV1NamespacedPodLog.
func operationNames(row *api.Resource) func(verb, middle, sub string) string {
	scope := ""
	if row.Namespaced {
		scope = "Namespaced"
	}
	return func(verb, middle, sub string) string {
		return verb + groupTitle(row.GroupVersion()) + middle + scope + row.Kind + sub
	}
}

// roots describes the paths that are not a resource's.
func (d *documenter) roots(groups []schema.GroupVersion, paths map[string]any) {
	add := func(path, id string, result object) {
		paths[path] = object{"get": object{"operationId": id, "produces": []string{typeJSON, typeYAML, typeProtobuf}, "consumes": []string{typeJSON, typeYAML, typeProtobuf},
			"schemes": []string{"https"}, "responses": object{"200": object{"description": "OK", "schema": result}, "401": object{"description": "Unauthorized"}}}}
	}
	versions, group, resources := d.typeOf(reflect.TypeFor[metav1.APIVersions]()), d.typeOf(reflect.TypeFor[metav1.APIGroup]()), d.typeOf(reflect.TypeFor[metav1.APIResourceList]())
	add("/api/", "getCoreAPIVersions", versions)
	add("/apis/", "getAPIVersions", d.typeOf(reflect.TypeFor[metav1.APIGroupList]()))
	for _, gv := range groups {
		add("/"+gvPath(gv)+"/", "get"+groupTitle(gv)+"APIResources", resources)
		if gv.Group != "" {
			add("/apis/"+gv.Group+"/", "get"+groupTitle(schema.GroupVersion{Group: gv.Group})+"APIGroup", group)
		}
	}
	text := object{"type": "string"}
	add("/logs/", "logFileListHandler", text)
	add("/logs/{logpath}", "logFileHandler", text)
	paths["/logs/{logpath}"].(object)["parameters"] = []any{d.parameter("logpath", "path", "string", true)}
	add("/version/", "getCodeVersion", d.typeOf(reflect.TypeFor[version.Info]()))
	add("/.well-known/openid-configuration/", "getServiceAccountIssuerOpenIDConfiguration", text)
	add("/openid/v1/jwks/", "getServiceAccountIssuerOpenIDKeyset", text)
}

func (d *documenter) operation(id, action string, gvk schema.GroupVersionKind, response, body object) object {
	var params []any
	query := func(names ...string) {
		for _, n := range names {
			typ := "string"
			switch n {
			case "watch", "allowWatchBookmarks", "sendInitialEvents", "force", "orphanDependents":
				typ = "boolean"
			case "limit", "timeoutSeconds", "gracePeriodSeconds":
				typ = "integer"
			}
			params = append(params, d.parameter(n, "query", typ, false))
		}
	}
	switch action {
	case "list":
		query("allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch")
	case "post", "put":
		query("dryRun", "fieldManager", "fieldValidation")
	case "patch":
		query("dryRun", "fieldManager", "fieldValidation", "force")
	case "delete":
		query("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
	case "deletecollection":
		query("continue", "dryRun", "fieldSelector", "gracePeriodSeconds", "labelSelector", "limit", "orphanDependents", "propagationPolicy", "resourceVersion", "resourceVersionMatch", "timeoutSeconds")
	}
	op := object{
		"operationId":                     id,
		"x-kubernetes-action":             action,
		"x-kubernetes-group-version-kind": object{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind},
	}
	types := []string{typeJSON, typeYAML, typeProtobuf, typeCBOR}
	bodyTypes := []string{"*/*"}
	if action == "patch" {
		bodyTypes = []string{"application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"}
	}
	if d.v3 {
		content := object{}
		for _, t := range types {
			content[t] = object{"schema": response}
		}
		op["responses"] = object{"200": object{"description": "OK", "content": content}}
		if body != nil {
			c := object{}
			for _, t := range bodyTypes {
				c[t] = object{"schema": body}
			}
			op["requestBody"] = object{"content": c, "required": true}
		}
	} else {
		op["produces"], op["consumes"] = types, bodyTypes
		op["responses"] = object{"200": object{"description": "OK", "schema": response}}
		if body != nil {
			params = append(params, object{"name": "body", "in": "body", "required": true, "schema": body})
		}
	}
	if params != nil {
		op["parameters"] = params
	}
	return op
}

// kind describes obj's type as a kind of its own, and refers to it.
func (d *documenter) kind(obj runtime.Object, gvk schema.GroupVersionKind) object {
	ref := d.typeOf(reflect.TypeOf(obj).Elem())
	name, ok := modelName(reflect.TypeOf(obj).Elem())
	if !ok {
		return object{"type": "object"}
	}
	s := d.schemas[name].(object)
	entry := object{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind}
	list, _ := s["x-kubernetes-group-version-kind"].([]any)
	for _, e := range list {
		if reflect.DeepEqual(e, entry) {
			return ref
		}
	}
	s["x-kubernetes-group-version-kind"] = append(list, entry)
	return ref
}

// modelName is the name that upstream publishes a type under.
func modelName(t reflect.Type) (string, bool) {
	v := reflect.New(t).Interface()
	if m, ok := v.(interface{ OpenAPIModelName() string }); ok {
		return m.OpenAPIModelName(), true
	}
	pkg := t.PkgPath()
	if t.Kind() != reflect.Struct || !strings.HasPrefix(pkg, "k8s.io/") {
		return "", false
	}
	host, rest, _ := strings.Cut(pkg, "/")
	labels := strings.Split(host, ".")
	for i, j := 0, len(labels)-1; i < j; i, j = i+1, j-1 {
		labels[i], labels[j] = labels[j], labels[i]
	}
	return strings.Join(labels, ".") + "." + strings.ReplaceAll(rest, "/", ".") + "." + t.Name(), true
}

// scalars are the types with a wire form of their own.
var scalars = map[reflect.Type]object{
	reflect.TypeFor[metav1.Time]():          {"type": "string", "format": "date-time"},
	reflect.TypeFor[metav1.MicroTime]():     {"type": "string", "format": "date-time"},
	reflect.TypeFor[metav1.Duration]():      {"type": "string"},
	reflect.TypeFor[resource.Quantity]():    {"type": "string"},
	reflect.TypeFor[intstr.IntOrString]():   {"type": "string", "format": "int-or-string"},
	reflect.TypeFor[metav1.FieldsV1]():      {"type": "object"},
	reflect.TypeFor[runtime.RawExtension](): {"type": "object"},
}

// typeOf gives a schema for t; structs are described once and referred to.
func (d *documenter) typeOf(t reflect.Type) object {
	if t.Kind() == reflect.Pointer {
		return d.typeOf(t.Elem())
	}
	if s, ok := scalars[t]; ok {
		if name, named := modelName(t); named {
			if d.schemas[name] == nil {
				full := object{}
				for k, v := range s {
					full[k] = v
				}
				if doc := swaggerDoc(t)[""]; doc != "" {
					full["description"] = doc
				}
				d.schemas[name] = full
			}
			return object{"$ref": d.ref + name}
		}
		return s
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int32, reflect.Uint8, reflect.Int16, reflect.Uint16:
		return object{"type": "integer", "format": "int32"}
	case reflect.Int, reflect.Int64, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "format": "int64"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number", "format": "double"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "format": "byte"}
		}
		return object{"type": "array", "items": d.typeOf(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": d.typeOf(t.Elem())}
	case reflect.Struct:
	default:
		return object{"type": "object"}
	}
	name, ok := modelName(t)
	if !ok {
		return object{"type": "object"}
	}
	if d.schemas[name] == nil {
		s := object{"type": "object"}
		d.schemas[name] = s // before its fields: types can be recursive
		docs := swaggerDoc(t)
		if docs[""] != "" {
			s["description"] = docs[""]
		}
		props := object{}
		var required []string
		d.fields(t, docs, props, &required)
		if len(props) > 0 {
			s["properties"] = props
		}
		if len(required) > 0 {
			sort.Strings(required)
			s["required"] = required
		}
	}
	return object{"$ref": d.ref + name}
}

func (d *documenter) fields(t reflect.Type, docs map[string]string, props object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, flags, _ := strings.Cut(tag, ",")
		switch {
		case name == "-" || !f.IsExported():
			continue
		case name == "" && (f.Anonymous || strings.Contains(flags, "inline")):
			ft := f.Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			d.fields(ft, merged(docs, swaggerDoc(ft)), props, required)
			continue
		case name == "":
			name = f.Name
		}
		p := d.typeOf(f.Type)
		if ref, ok := p["$ref"]; ok && d.v3 {
			p = object{"allOf": []any{object{"$ref": ref}}, "default": object{}}
			if f.Type.Kind() == reflect.Pointer {
				delete(p, "default")
			}
		} else {
			c := object{}
			for k, v := range p {
				c[k] = v
			}
			p = c
		}
		if doc := docs[name]; doc != "" {
			p["description"] = doc
		}
		if key := f.Tag.Get("patchMergeKey"); key != "" {
			p["x-kubernetes-patch-merge-key"] = key
		}
		if strategy := f.Tag.Get("patchStrategy"); strategy != "" {
			p["x-kubernetes-patch-strategy"] = strategy
		}
		props[name] = p
		if !strings.Contains(flags, "omitempty") && !strings.Contains(flags, "omitzero") {
			*required = append(*required, name)
		}
	}
}

func merged(a, b map[string]string) map[string]string {
	out := make(map[string]string, len(a)+len(b))
	for k, v := range b {
		out[k] = v
	}
	for k, v := range a {
		out[k] = v
	}
	return out
}

func swaggerDoc(t reflect.Type) map[string]string {
	if s, ok := reflect.New(t).Interface().(interface{ SwaggerDoc() map[string]string }); ok {
		return s.SwaggerDoc()
	}
	if m, ok := reflect.New(t).Interface().(interface{ OpenAPIModelName() string }); ok {
		return generatedDocs()[m.OpenAPIModelName()]
	}
	return nil
}

// generatedDocs are the descriptions of types that do not describe themselves, in the
// form of SwaggerDoc, from what their rows bring.
var generatedDocs = sync.OnceValue(func() map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, row := range catalogue.Builtin() {
		if row.OpenAPI == nil {
			continue
		}
		for name, d := range row.OpenAPI(func(name string) spec.Ref { return spec.MustCreateRef("#/definitions/" + name) }) {
			docs := map[string]string{"": d.Schema.Description}
			for field, p := range d.Schema.Properties {
				docs[field] = p.Description
			}
			out[name] = docs
		}
	}
	return out
})
