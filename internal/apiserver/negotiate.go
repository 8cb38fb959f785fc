package apiserver

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// Media types of requests and answers.
const (
	typeJSON     = "application/json"
	typeYAML     = "application/yaml"
	typeProtobuf = "application/vnd.kubernetes.protobuf"
	typeCBOR     = "application/cbor"
)

// codecs are the serializers by media type.
type codecs struct {
	scheme                             *runtime.Scheme
	json, strictJSON, yaml, strictYAML runtime.Serializer
	protobuf                           runtime.Serializer
	cbor, strictCBOR                   runtime.Serializer
}

func newCodecs(scheme *runtime.Scheme) codecs {
	j := func(yaml, strict bool) runtime.Serializer {
		return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: yaml, Strict: strict})
	}
	return codecs{
		scheme: scheme,
		json:   j(false, false), strictJSON: j(false, true), yaml: j(true, false), strictYAML: j(true, true),
		protobuf:   protobuf.NewSerializer(scheme, scheme),
		cbor:       cbor.NewSerializer(scheme, scheme),
		strictCBOR: cbor.NewSerializer(scheme, scheme, cbor.Strict(true)),
	}
}

func (c *codecs) decoder(mediaType string, strict bool) runtime.Decoder {
	switch mediaType {
	case "", typeJSON:
		if strict {
			return c.strictJSON
		}
		return c.json
	case typeYAML:
		if strict {
			return c.strictYAML
		}
		return c.yaml
	case typeProtobuf:
		return c.protobuf
	case typeCBOR:
		if strict {
			return c.strictCBOR
		}
		return c.cbor
	}
	return nil
}

// accepted is a form of the answer that a client accepts.
type accepted struct {
	mediaType string
	pretty    bool
	// as is the kind to turn the answer into: Table, PartialObjectMetadata,
	// PartialObjectMetadataList or APIGroupDiscoveryList; empty is none.
	as      schema.GroupVersionKind
	stream  bool
	profile string
}

var wireTypes = map[string]bool{typeJSON: true, typeYAML: true, typeProtobuf: true, typeCBOR: true}

// acceptCache has parsed Accept headers: the first maxAccepts that were seen, as
// clients send few different ones.
var acceptCache struct {
	sync.Map // string → []accepted
	n        atomic.Int64
}

// maxAccepts is how many headers are kept, of maxAccept bytes at most.
const maxAccepts, maxAccept = 1000, 512

// accepts parses an Accept header, and returns the best form first.
func accepts(header string) []accepted {
	if v, ok := acceptCache.Load(header); ok {
		return v.([]accepted)
	}
	var out []accepted
	var q []float64
	for part := range strings.SplitSeq(header, ",") {
		mt, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		a := accepted{mediaType: mt, pretty: params["pretty"] == "1", stream: params["stream"] == "watch", profile: params["profile"]}
		if mt == "*/*" || mt == "application/*" {
			a.mediaType = typeJSON
		}
		if k := params["as"]; k != "" {
			a.as = schema.GroupVersionKind{Group: params["g"], Version: params["v"], Kind: k}
		}
		quality := 1.0
		if s := params["q"]; s != "" {
			quality, _ = strconv.ParseFloat(s, 64)
		}
		at := len(out)
		for at > 0 && q[at-1] < quality {
			at--
		}
		out = append(out[:at], append([]accepted{a}, out[at:]...)...)
		q = append(q[:at], append([]float64{quality}, q[at:]...)...)
	}
	if len(header) < maxAccept && acceptCache.n.Add(1) <= maxAccepts {
		acceptCache.Store(header, out)
	}
	return out
}

// accept picks the form of the answer; can reports whether the answer can be
// converted to a kind.
func (r *response) accept(can func(schema.GroupVersionKind) bool) (accepted, error) {
	header := r.req.Header.Get("Accept")
	pretty := r.pretty()
	if header == "" {
		return accepted{mediaType: typeJSON, pretty: pretty}, nil
	}
	for _, a := range accepts(header) {
		if !wireTypes[a.mediaType] {
			continue
		}
		if !a.as.Empty() && (can == nil || !can(a.as)) {
			continue
		}
		a.pretty = a.pretty || pretty
		return a, nil
	}
	types := []string{typeJSON, typeYAML, typeProtobuf, typeCBOR}
	err := &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: fmt.Sprintf("only the following media types are accepted: %s", strings.Join(types, ", ")),
	}}
	return accepted{mediaType: typeJSON}, err
}

// pretty reports whether the JSON of the answer is indented: with ?pretty, and
// without it for browsers, curl and wget.
func (r *incoming) pretty() bool {
	if p := r.req.URL.RawQuery; p != "" {
		if values, ok := r.req.URL.Query()["pretty"]; ok {
			on, err := strconv.ParseBool(values[0])
			return err != nil || on
		}
	}
	ua := r.req.UserAgent()
	return strings.HasPrefix(ua, "curl") || strings.HasPrefix(ua, "Wget") || strings.HasPrefix(ua, "Mozilla/5.0")
}

// canTransform reports whether the answers of a stored resource can be converted
// to gvk.
func canTransform(gvk schema.GroupVersionKind) bool {
	if gvk.Group != metav1.GroupName || (gvk.Version != "v1" && gvk.Version != "v1beta1") {
		return false
	}
	return gvk.Kind == "Table" || gvk.Kind == "PartialObjectMetadata" || gvk.Kind == "PartialObjectMetadataList"
}
