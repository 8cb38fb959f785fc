package apiserver

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"

	"keelson.dev/keelson/internal/objectjson"
)

// body reads the request's body, up to MaxBody.
func (r *incoming) body() ([]byte, error) {
	if r.req.Body == nil {
		return nil, nil
	}
	if n := r.req.ContentLength; n > 0 && n <= MaxBody {
		data := make([]byte, n)
		if _, err := io.ReadFull(r.req.Body, data); err != nil {
			return nil, unread(err, "the request's body ended early: ")
		}
		return data, nil
	}
	data, err := io.ReadAll(io.LimitReader(r.req.Body, MaxBody+1))
	if err != nil {
		return nil, unread(err, "")
	}
	if len(data) > MaxBody {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", MaxBody))
	}
	return data, nil
}

// unread returns the answer to a request whose body could not be read to its
// end.
func unread(err error, why string) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errOverdue
	}
	return apierrors.NewBadRequest(why + err.Error())
}

// contentType returns the media type of the request's body.
func (r *incoming) contentType() (string, error) {
	ct := r.req.Header.Get("Content-Type")
	if ct == "" {
		return typeJSON, nil
	}
	mt, _, err := mime.ParseMediaType(ct)
	if err != nil || !wireTypes[mt] {
		return "", unsupportedMediaType([]string{typeJSON, typeYAML, typeProtobuf, typeCBOR})
	}
	return mt, nil
}

func unsupportedMediaType(types []string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(types, ", "),
	}}
}

// fieldValidation returns how unknown and duplicate fields are treated: Strict,
// Warn or Ignore.
func (r *incoming) fieldValidation(given string) string {
	if given == "" {
		return metav1.FieldValidationWarn
	}
	return given
}

// decode reads an object of gvk from the body. into is an empty object.
func (r *incoming) decode(into runtime.Object, gvk schema.GroupVersionKind, fieldValidation string) (runtime.Object, error) {
	mt, err := r.contentType()
	if err != nil {
		return nil, err
	}
	data, err := r.body()
	if err != nil {
		return nil, err
	}
	return r.decodeBytes(data, mt, into, gvk, fieldValidation)
}

// decodeBytes reads an object of gvk from data. strict are the unknown and duplicate
// fields that were found in what data was made from, beside those in data itself.
func (r *incoming) decodeBytes(data []byte, mediaType string, into runtime.Object, gvk schema.GroupVersionKind, fieldValidation string, strict ...error) (runtime.Object, error) {
	// The request has ended: its client no longer waits for the answer.
	if err := r.ctx().Err(); err != nil {
		return nil, err
	}
	mode := r.fieldValidation(fieldValidation)
	if mediaType == typeYAML {
		if err := boundYAML(data); err != nil {
			return nil, err
		}
	}
	if u := plainObject(data, mediaType, into, gvk); u != nil {
		return u, r.coerce(u, gvk, mode, strict...)
	}
	obj, got, found, err := r.parse(data, mediaType, into, gvk, mode)
	if err != nil {
		return nil, err
	}
	strict = append(strict, found...)
	if got.GroupVersion() != gvk.GroupVersion() {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), gvk.GroupVersion()))
	}
	if got.Kind != gvk.Kind {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: converting (%s) to (%s): unknown conversion",
			got.Kind, got.Version, gvk.Kind, got.GroupVersion().String()+"."+got.Kind, gvk.GroupVersion().String()+"."+gvk.Kind))
	}
	return obj, r.coerce(obj, gvk, mode, strict...)
}

// parse reads an object of the kind that it names, gvk where it names none, and
// returns its unknown and duplicate fields.
func (r *incoming) parse(data []byte, mediaType string, into runtime.Object, gvk schema.GroupVersionKind, mode string) (obj runtime.Object, got *schema.GroupVersionKind, strict []error, err error) {
	d := r.s.codecs.decoder(mediaType, mode != metav1.FieldValidationIgnore)
	if _, ok := into.(*unstructured.Unstructured); ok {
		d = r.s.codecs.unstructured(mediaType, mode != metav1.FieldValidationIgnore)
	}
	obj, got, err = d.Decode(data, &gvk, into)
	if err == nil {
		return obj, got, nil, nil
	}
	found, ok := runtime.AsStrictDecodingError(err)
	if !ok || obj == nil {
		return nil, nil, nil, decodeError(err, got, gvk, data)
	}
	return obj, got, found.Errors(), nil
}

// plainObject reads an object without a Go type by the fast path; it returns nil
// where its bytes need the full decoder.
func plainObject(data []byte, mediaType string, into runtime.Object, gvk schema.GroupVersionKind) *unstructured.Unstructured {
	if _, ok := into.(*unstructured.Unstructured); !ok || mediaType != typeJSON {
		return nil
	}
	m, ok := objectjson.Decode(data)
	if !ok || m["kind"] != gvk.Kind || m["apiVersion"] != gvk.GroupVersion().String() {
		return nil
	}
	return &unstructured.Unstructured{Object: m}
}

// warnOfFields warns of unknown and duplicate fields. The YAML library reports
// several lines in one error: each line is a warning.
func (r *incoming) warnOfFields(strict ...error) {
	for _, e := range strict {
		text := e.Error()
		if _, lines, ok := strings.Cut(text, "yaml: unmarshal errors:\n"); ok {
			text = lines
		}
		for line := range strings.SplitSeq(text, "\n") {
			r.warnings.AddWarning("", strings.TrimSpace(line))
		}
	}
}

// coerce does for an object without a Go type what decoding does for others: it
// prunes and defaults by the schema, and refuses or warns of unknown and
// duplicate fields, those in strict among them.
func (r *incoming) coerce(obj runtime.Object, gvk schema.GroupVersionKind, mode string, strict ...error) error {
	if r.row.Coerce != nil && gvk == r.row.GVK() {
		unknown, err := r.row.Coerce(obj)
		if err != nil {
			return decodeError(err, &gvk, gvk, nil)
		}
		for _, path := range unknown {
			strict = append(strict, fmt.Errorf("unknown field %q", path))
		}
	}
	if len(strict) == 0 || mode == metav1.FieldValidationIgnore {
		return nil
	}
	if mode == metav1.FieldValidationWarn {
		r.warnOfFields(strict...)
		return nil
	}
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", gvk.Kind, gvk.Version, gvk.Kind, runtime.NewStrictDecodingError(strict)))
}

// unstructured decodes into maps.
func (c *codecs) unstructured(mediaType string, strict bool) runtime.Decoder {
	switch mediaType {
	case typeCBOR:
		return c.decoder(mediaType, strict)
	case typeYAML:
		return json.NewSerializerWithOptions(json.DefaultMetaFactory, unstructuredCreater{}, unstructuredTyper{}, json.SerializerOptions{Yaml: true, Strict: strict})
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, unstructuredCreater{}, unstructuredTyper{}, json.SerializerOptions{Strict: strict})
}

type unstructuredCreater struct{}

func (unstructuredCreater) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gvk)
	return u, nil
}

type unstructuredTyper struct{}

func (unstructuredTyper) ObjectKinds(obj runtime.Object) ([]schema.GroupVersionKind, bool, error) {
	return []schema.GroupVersionKind{obj.GetObjectKind().GroupVersionKind()}, false, nil
}
func (unstructuredTyper) Recognizes(schema.GroupVersionKind) bool { return true }

func decodeError(err error, got *schema.GroupVersionKind, want schema.GroupVersionKind, body []byte) error {
	if got != nil && got.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, want.Kind, err))
	}
	summary := ""
	if len(body) > 30 {
		if body[0] == '{' || isText(body[:30]) {
			summary = string(body[:30]) + " ..."
		} else {
			summary = hex.EncodeToString(body[:30]) + " ..."
		}
	} else {
		summary = string(body)
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, summary))
}

func isText(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\n' && c != '\t' && c != '\r' || c >= 0x7f {
			return false
		}
	}
	return true
}

// options decodes query parameters, or the body of a DELETE, into options.
func (r *incoming) options(into runtime.Object) error {
	if r.req.URL.RawQuery == "" {
		return nil
	}
	if err := metainternalscheme.ParameterCodec.DecodeParameters(r.req.URL.Query(), metav1.SchemeGroupVersion, into); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}
