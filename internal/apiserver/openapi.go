package apiserver

import (
	"net/http"
	"strings"
	"sync"

	restful "github.com/emicklei/go-restful/v3"
	admissionv1 "k8s.io/api/admission/v1"
	admissionv1beta1 "k8s.io/api/admission/v1beta1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	kubescheme "k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"
	openapibuilder "k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/schemamutation"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/api/definitions"
	"keelson.dev/keelson/internal/apiserver/token"
)

// The served paths are described as go-restful routes, which are never called:
// upstream's library makes OpenAPI documents of them.

// Media types in the documents. CBOR is left out, as by upstream's default.
var (
	objectTypes = []string{typeJSON, typeYAML, typeProtobuf}
	listTypes   = append(objectTypes[:len(objectTypes):len(objectTypes)], typeJSON+";stream=watch", typeProtobuf+";stream=watch")
	patchTypes  = []string{string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyYAMLPatchType)}
)

// newService begins the description of the paths below root.
func newService(root string) *restful.WebService {
	return new(restful.WebService).Path(root).Consumes("*/*")
}

// describe adds a route, which is not yet complete.
func describe(ws *restful.WebService, method, path string) *restful.RouteBuilder {
	return ws.Method(method).Path(path).To(func(*restful.Request, *restful.Response) {})
}

// describeRoot describes a path of discovery.
func describeRoot(ws *restful.WebService, doc, operation string, result any) *restful.WebService {
	return ws.Route(describe(ws, http.MethodGet, "/").Doc(doc).Operation(operation).Produces(objectTypes...).Consumes(objectTypes...).Writes(result))
}

// roots returns the descriptions of what is served beside the group versions, by
// path.
func (s *Server) roots() map[string]*restful.WebService {
	all := map[string]*restful.WebService{}
	add := func(path string) *restful.WebService {
		ws := newService("/" + path)
		all[path] = ws
		return ws
	}
	describeRoot(add("api"), "get available API versions", "getAPIVersions", metav1.APIVersions{})
	describeRoot(add("apis"), "get available API versions", "getAPIVersions", metav1.APIGroupList{})
	for _, g := range s.Catalogue.Groups() {
		if g.Name != "" && catalogue.IsBuiltin(g.Name) {
			describeRoot(add("apis/"+g.Name), "get information of a group", "getAPIGroup", metav1.APIGroup{})
		}
	}
	ws := add("version")
	ws.Route(describe(ws, http.MethodGet, "/").Doc("get the version information for this server").Operation("getCodeVersion").
		Produces(typeJSON).Consumes(typeJSON).Writes(version.Info{}))
	if !s.NoLogs {
		ws = add("logs").Consumes()
		ws.Route(describe(ws, http.MethodGet, "/{logpath:*}").Operation("logFileHandler").Param(ws.PathParameter("logpath", "path to the log").DataType("string")))
		ws.Route(describe(ws, http.MethodGet, "/").Operation("logFileListHandler"))
	}
	if s.Paths[token.ConfigurationPath] != nil {
		ws = add(token.ConfigurationPath[1:]).Consumes()
		ws.Route(describe(ws, http.MethodGet, "/").Doc("get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'").
			Operation("getServiceAccountIssuerOpenIDConfiguration").Produces(typeJSON).Writes(""))
		ws = add(token.KeysPath[1:]).Consumes()
		ws.Route(describe(ws, http.MethodGet, "/").Doc("get service account issuer OpenID JSON Web Key Set (contains public token verification keys)").
			Operation("getServiceAccountIssuerOpenIDKeyset").Produces("application/jwk-set+json").Writes(""))
	}
	return all
}

// describeVersion describes a group version and those of its rows that have Go types.
func describeVersion(gv schema.GroupVersion, rows []*api.Resource) *restful.WebService {
	ws := newService("/" + gvPath(gv))
	describeRoot(ws, "get available resources", "getAPIResources", metav1.APIResourceList{})
	for _, row := range rows {
		if row.DocumentV3 == nil {
			describeRow(ws, row)
		}
	}
	return ws
}

func describeRow(ws *restful.WebService, row *api.Resource) {
	d := &described{ws: ws, row: row, gvk: row.GVK(), object: row.New(), all: row.Resource, of: "the specified " + row.Kind}
	if row.Namespaced {
		d.all = "namespaces/{namespace}/" + d.all
	}
	d.one = d.all + "/{name}"
	for _, verb := range row.ServedVerbs() {
		d.verb(verb)
	}
	for _, sub := range subresources(row) {
		d := &described{ws: ws, row: row, gvk: sub.Kind, sub: sub.Name, all: d.one + "/" + sub.Name, one: d.one + "/" + sub.Name, of: sub.Name + " of the specified " + row.Kind}
		if sub.Kind == row.GVK() {
			d.object = row.New()
		} else {
			d.object, _ = catalogue.Scheme.New(sub.Kind)
		}
		if len(sub.Methods) > 0 {
			d.connect(&sub)
			continue
		}
		d.options = sub.Options
		for _, verb := range sub.Verbs {
			d.verb(verb)
		}
	}
}

// described is a resource or subresource.
type described struct {
	ws     *restful.WebService
	row    *api.Resource
	sub    string // of the subresource
	gvk    schema.GroupVersionKind
	object runtime.Object // an empty object
	// all and one are the paths of the collection and of an object; of a subresource
	// both are its own.
	all, one string
	of       string // the object in words
	// options, if set, are the parameters of a request that is answered with text.
	options runtime.Object
}

// add completes a route of the action: its name is made of the verb and suffix. Further
// options are the fields of options, which may be nil, but for those left out.
func (d *described) add(r *restful.RouteBuilder, path, action, verb, suffix string, options any, but ...string) {
	namespaced := ""
	if d.row.Namespaced {
		namespaced = "Namespaced"
	}
	if strings.HasSuffix(suffix, allNamespaces) {
		namespaced = ""
	}
	sub := ""
	if d.sub != "" {
		sub = strings.ToUpper(d.sub[:1]) + d.sub[1:]
	}
	r.Path(path).Operation(verb + namespaced + d.row.Kind + sub + suffix)
	if action != "connect" {
		r.Param(d.ws.QueryParameter("pretty", "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget)."))
	}
	if options != nil {
		utilruntime.Must(endpoints.AddObjectParams(d.ws, r, options, but...))
	}
	if strings.Contains(path, "{namespace}") {
		r.Param(d.ws.PathParameter("namespace", "object name and auth scope, such as for teams and projects").DataType("string"))
	}
	if strings.Contains(path, "{name}") {
		r.Param(d.ws.PathParameter("name", "name of the "+d.gvk.Kind).DataType("string"))
	}
	if strings.Contains(path, "{path:*}") {
		r.Param(d.ws.PathParameter("path", "path to the resource").DataType("string"))
	}
	d.ws.Route(r.Metadata(endpoints.RouteMetaAction, action).
		Metadata(endpoints.RouteMetaGVK, metav1.GroupVersionKind{Group: d.gvk.Group, Version: d.gvk.Version, Kind: d.gvk.Kind}))
}

const allNamespaces = "ForAllNamespaces"

// returns documents that the route answers with result, with each of the codes.
func returns(r *restful.RouteBuilder, result any, codes ...int) *restful.RouteBuilder {
	r.Writes(result)
	for _, code := range codes {
		r.Returns(code, http.StatusText(code), result)
	}
	return r
}

func (d *described) verb(verb string) {
	begin := func(method, doc string) *restful.RouteBuilder {
		return describe(d.ws, method, "").Doc(doc).Produces(objectTypes...)
	}
	with := endpoints.GetArticleForNoun(d.row.Kind, " ") + d.row.Kind
	if d.sub != "" {
		with = " " + d.sub + " of" + with
	}
	switch verb {
	case "get":
		r := begin(http.MethodGet, "read "+d.of)
		if d.options != nil {
			d.add(returns(r, "", http.StatusOK).Produces(append([]string{"text/plain"}, objectTypes...)...), d.one, "get", "read", "", d.options)
			return
		}
		d.add(returns(r, d.object, http.StatusOK), d.one, "get", "read", "", nil)
	case "list":
		doc := "list objects of kind " + d.row.Kind
		if d.row.HasVerb("watch") {
			doc = "list or watch objects of kind " + d.row.Kind
		}
		list := func(path, suffix string) {
			d.add(returns(begin(http.MethodGet, doc).Produces(listTypes...), d.row.NewList(), http.StatusOK), path, "list", "list", suffix, &metav1.ListOptions{})
		}
		list(d.all, "")
		if d.row.Namespaced {
			list(d.row.Resource, allNamespaces)
		}
	case "watch":
		const instead = ". deprecated: use the 'watch' parameter with a list operation instead"
		watch := func(path, action, suffix, doc string) {
			d.add(returns(begin(http.MethodGet, doc).Produces(listTypes...), metav1.WatchEvent{}, http.StatusOK), "watch/"+path, action, "watch", suffix, &metav1.ListOptions{})
		}
		watch(d.one, "watch", "", "watch changes to an object of kind "+d.row.Kind+instead+", filtered to a single item with the 'fieldSelector' parameter.")
		changes := "watch individual changes to a list of " + d.row.Kind + instead + "."
		watch(d.all, "watchlist", "List", changes)
		if d.row.Namespaced {
			watch(d.row.Resource, "watchlist", "List"+allNamespaces, changes)
		}
	case "create":
		r := begin(http.MethodPost, "create"+with).Reads(d.object)
		d.add(returns(r, d.object, http.StatusOK, http.StatusCreated, http.StatusAccepted), d.all, "post", "create", "", &metav1.CreateOptions{})
	case "update":
		r := begin(http.MethodPut, "replace "+d.of).Reads(d.object)
		d.add(returns(r, d.object, http.StatusOK, http.StatusCreated), d.one, "put", "replace", "", &metav1.UpdateOptions{})
	case "patch":
		r := begin(http.MethodPatch, "partially update "+d.of).Consumes(patchTypes...).Reads(metav1.Patch{})
		d.add(returns(r, d.object, http.StatusOK, http.StatusCreated), d.one, "patch", "patch", "", &metav1.PatchOptions{})
	case "delete":
		var result runtime.Object = &metav1.Status{}
		if d.row.DeleteReturnsObject {
			result = d.object
		}
		r := begin(http.MethodDelete, "delete"+with).Reads(metav1.DeleteOptions{})
		r.ParameterNamed("body").Required(false)
		d.add(returns(r, result, http.StatusOK, http.StatusAccepted), d.one, "delete", "delete", "", &metav1.DeleteOptions{})
	case "deletecollection":
		r := begin(http.MethodDelete, "delete collection of "+d.row.Kind).Reads(metav1.DeleteOptions{})
		r.ParameterNamed("body").Required(false)
		utilruntime.Must(endpoints.AddObjectParams(d.ws, r, &metav1.DeleteOptions{}))
		d.add(returns(r, metav1.Status{}, http.StatusOK), d.all, "deletecollection", "deletecollection", "", &metav1.ListOptions{}, "watch", "allowWatchBookmarks")
	}
}

func (d *described) connect(sub *api.Subresource) {
	for _, method := range sub.Methods {
		connect := func(path, suffix string) {
			r := describe(d.ws, method, "").Doc("connect " + method + " requests to " + d.sub + " of " + d.row.Kind).Produces("*/*").Consumes("*/*").Writes("")
			d.add(r, path, "connect", "connect"+method[:1]+strings.ToLower(method[1:]), suffix, d.object)
		}
		connect(d.one, "")
		if sub.Paths {
			connect(d.one+"/{path:*}", "WithPath")
		}
	}
}

// namer returns the kinds of each type: those of all upstream's versions, also
// of versions that are no longer served.
var namer = sync.OnceValue(func() *openapi.DefinitionNamer {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		kubescheme.AddToScheme, admissionv1.AddToScheme, admissionv1beta1.AddToScheme, imagepolicyv1alpha1.AddToScheme,
		apiextensionsv1.AddToScheme, apiextensionsv1beta1.AddToScheme, apiregistrationv1.AddToScheme, apiregistrationv1beta1.AddToScheme,
		metricsv1.AddToScheme, metricsv1beta1.AddToScheme,
	} {
		utilruntime.Must(add(s))
	}
	return openapi.NewDefinitionNamer(s)
})

// models returns the names of the types that the services' routes read and
// write.
func models(services []*restful.WebService) (names []string) {
	for _, ws := range services {
		for _, route := range ws.Routes() {
			for _, sample := range []any{route.ReadSample, route.WriteSample} {
				if sample != nil {
					names = append(names, util.GetCanonicalTypeName(sample))
				}
			}
		}
	}
	return names
}

const (
	bearerToken = "BearerToken"
	bearerTitle = "Bearer Token authentication"
)

func (s *Server) documentInfo() *spec.Info {
	return &spec.Info{InfoProps: spec.InfoProps{Title: "Kubernetes", Version: s.Version.Major + "." + s.Version.Minor}}
}

// describeV2 makes the document of the resources with Go types.
func (s *Server) describeV2() (*spec.Swagger, error) {
	var services []*restful.WebService
	for _, ws := range s.roots() {
		services = append(services, ws)
	}
	for _, g := range s.Catalogue.Groups() {
		for _, v := range g.Versions {
			gv := schema.GroupVersion{Group: g.Name, Version: v}
			if rows := s.Catalogue.RowsOf(gv); !custom(rows) {
				services = append(services, describeVersion(gv, rows))
			}
		}
	}
	described, err := definitions.Of(definitions.V2, models(services)...)
	if err != nil {
		return nil, err
	}
	all, err := openapibuilder.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices(services), &common.Config{
		ProtocolList:    []string{"https"},
		Info:            s.documentInfo(),
		DefaultResponse: &spec.Response{ResponseProps: spec.ResponseProps{Description: "Default Response."}},
		CommonResponses: map[int]spec.Response{
			http.StatusUnauthorized: {ResponseProps: spec.ResponseProps{Description: http.StatusText(http.StatusUnauthorized)}},
		},
		GetOperationIDAndTags: openapi.GetOperationIDAndTags,
		GetDefinitionName:     namer().GetDefinitionName,
		GetDefinitions:        func(common.ReferenceCallback) map[string]common.OpenAPIDefinition { return described },
		SecurityDefinitions: &spec.SecurityDefinitions{bearerToken: {SecuritySchemeProps: spec.SecuritySchemeProps{
			Type: "apiKey", Name: "authorization", In: "header", Description: bearerTitle}}},
		DefaultSecurity: []map[string][]string{{bearerToken: {}}},
	})
	if err != nil {
		return nil, err
	}
	// Defaults are published in v3 only.
	for name, d := range all.Definitions {
		all.Definitions[name] = *withoutDefaults.WalkSchema(&d)
	}
	return all, nil
}

var withoutDefaults = schemamutation.Walker{
	SchemaCallback: func(s *spec.Schema) *spec.Schema {
		if s.Default == nil {
			return s
		}
		c := *s
		c.Default = nil
		return &c
	},
	RefCallback: schemamutation.RefCallbackNoop,
}

// describeV3 makes the document of a path from its description.
func (s *Server) describeV3(ws *restful.WebService) (*spec3.OpenAPI, error) {
	services := []*restful.WebService{ws}
	described, err := definitions.Of(definitions.V3, models(services)...)
	if err != nil {
		return nil, err
	}
	return builder3.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices(services), &common.OpenAPIV3Config{
		Info:            s.documentInfo(),
		DefaultResponse: &spec3.Response{ResponseProps: spec3.ResponseProps{Description: "Default Response."}},
		CommonResponses: map[int]*spec3.Response{
			http.StatusUnauthorized: {ResponseProps: spec3.ResponseProps{Description: http.StatusText(http.StatusUnauthorized)}},
		},
		GetOperationIDAndTags: openapi.GetOperationIDAndTags,
		GetDefinitionName:     namedFor(strings.TrimPrefix(ws.RootPath(), "/")),
		Definitions:           described,
		SecuritySchemes: spec3.SecuritySchemes{bearerToken: {SecuritySchemeProps: spec3.SecuritySchemeProps{
			Type: "apiKey", Name: "authorization", In: "header", Description: bearerTitle}}},
	})
}

// namedFor returns the namer for the document of a group version. Of the options and
// events, which are part of every version, the document has its own and the core's.
func namedFor(path string) func(string) (string, spec.Extensions) {
	return func(name string) (string, spec.Extensions) {
		unique, extensions := namer().GetDefinitionName(name)
		kinds, _ := extensions[endpoints.RouteMetaGVK].([]any)
		if name != deleteOptions && name != watchEvent {
			return unique, extensions
		}
		var own []any
		for _, kind := range kinds {
			k := kind.(map[string]any)
			if gv := (schema.GroupVersion{Group: k["group"].(string), Version: k["version"].(string)}); gvPath(gv) == path || gv == metav1.Unversioned {
				own = append(own, kind)
			}
		}
		return unique, spec.Extensions{endpoints.RouteMetaGVK: own}
	}
}

var (
	deleteOptions = metav1.DeleteOptions{}.OpenAPIModelName()
	watchEvent    = metav1.WatchEvent{}.OpenAPIModelName()
)
