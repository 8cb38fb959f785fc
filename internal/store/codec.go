package store

import (
	"bytes"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson.dev/keelson/internal/objectjson"
)

// protobufPrefix begins every protobuf value, as in upstream's etcd.
var protobufPrefix = []byte{'k', '8', 's', 0}

type codec struct{ scheme *runtime.Scheme }

// NewCodec returns upstream's durable form: a runtime.Unknown in protobuf behind
// the k8s\0 prefix for the scheme's types, JSON for unstructured objects.
// Objects of the scheme's types come back with an empty TypeMeta, as they do
// from a typed client.
func NewCodec(scheme *runtime.Scheme) Codec { return codec{scheme} }

type protoMarshaler interface{ Marshal() ([]byte, error) }
type protoUnmarshaler interface{ Unmarshal([]byte) error }

// Form implements Codec: there is one.
func (c codec) Form(string) int64 { return 0 }

// Seal implements Codec: the value is stored as it is.
func (c codec) Seal(_ string, plain []byte) ([]byte, int64, error) { return plain, 0, nil }

// Open implements Codec.
func (c codec) Open(_ string, value []byte) ([]byte, int64, error) { return value, 0, nil }

// Encode implements Codec.
func (c codec) Encode(obj runtime.Object) ([]byte, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return objectjson.Marshal(u.Object)
	}
	gvks, _, err := c.scheme.ObjectKinds(obj)
	if err != nil {
		return nil, err
	}
	m, ok := obj.(protoMarshaler)
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form", obj)
	}
	raw, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	return Envelope(gvks[0], raw)
}

// Envelope wraps the protobuf bytes of an object of kind gvk: the form on the
// wire (application/vnd.kubernetes.protobuf) and on disk.
func Envelope(gvk schema.GroupVersionKind, raw []byte) ([]byte, error) {
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind}}
	u.Raw = raw
	n := len(protobufPrefix) + u.Size()
	buf := make([]byte, n)
	copy(buf, protobufPrefix)
	written, err := u.MarshalToSizedBuffer(buf[len(protobufPrefix):])
	if err != nil {
		return nil, err
	}
	return buf[:len(protobufPrefix)+written], nil
}

// Decode implements Codec.
func (c codec) Decode(data []byte) (runtime.Object, error) {
	raw, ok := bytes.CutPrefix(data, protobufPrefix)
	if !ok {
		return decodeJSON(data)
	}
	var env runtime.Unknown
	if err := env.Unmarshal(raw); err != nil {
		return nil, err
	}
	gvk := schema.FromAPIVersionAndKind(env.APIVersion, env.Kind)
	obj, err := c.scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	m, ok := obj.(protoUnmarshaler)
	if !ok {
		return nil, errors.New(gvk.String() + " has no protobuf form")
	}
	if err := m.Unmarshal(env.Raw); err != nil {
		return nil, err
	}
	return obj, nil
}

// decodeJSON reads a custom resource's object.
func decodeJSON(data []byte) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if m, ok := objectjson.Decode(data); ok {
		objectjson.ShareManagedFields(m)
		u.Object = m
		return u, nil
	}
	return u, u.UnmarshalJSON(data)
}
