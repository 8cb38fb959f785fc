package apiserver

import (
	"net/http"
	"reflect"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api"
)

func notAcceptable(kind string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "the object cannot be returned as " + kind,
	}}
}

var objectMetaDoc = metav1.ObjectMeta{}.SwaggerDoc()

// defaultColumns are the columns of a kind that has none of its own.
var defaultColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: objectMetaDoc["name"]},
	{Name: "Created At", Type: "date", Description: objectMetaDoc["creationTimestamp"]},
}

// table returns a Table of objects, as upstream's server prints them.
func (r *response) table(objs []runtime.Object, m metav1.ListMeta) (*metav1.Table, error) {
	var opts metav1.TableOptions
	if err := metav1.Convert_url_Values_To_v1_TableOptions(ptr(r.req.URL.Query()), &opts, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	switch opts.IncludeObject {
	case "", metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject:
	default:
		return nil, apierrors.NewBadRequest("unrecognized includeObject value: \"" + string(opts.IncludeObject) + "\"")
	}
	t := &metav1.Table{ListMeta: m, Rows: make([]metav1.TableRow, 0, len(objs))}
	t.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("Table"))
	if !opts.NoHeaders {
		t.ColumnDefinitions = r.row.Columns
		if r.row.Columns == nil {
			t.ColumnDefinitions = defaultColumns
		}
	}
	now := r.s.Clock.Now()
	for _, o := range objs {
		tr := metav1.TableRow{}
		if r.row.Cells != nil {
			tr.Cells = r.row.Cells(o, now)
			if r.row.RowConditions != nil {
				tr.Conditions = r.row.RowConditions(o)
			}
		} else {
			acc, err := meta.Accessor(o)
			if err != nil {
				return nil, err
			}
			tr.Cells = []any{acc.GetName(), acc.GetCreationTimestamp().UTC().Format("2006-01-02T15:04:05Z")}
		}
		switch opts.IncludeObject {
		case metav1.IncludeNone:
		case metav1.IncludeObject:
			tr.Object.Object = withGVK(r.row.GVK(), o)
		default:
			p, err := partial(r.row, o)
			if err != nil {
				return nil, err
			}
			tr.Object.Object = p
		}
		t.Rows = append(t.Rows, tr)
	}
	return t, nil
}

func ptr[T any](v T) *T { return &v }

// partial returns the metadata of o.
func partial(row *api.Resource, o runtime.Object) (*metav1.PartialObjectMetadata, error) {
	acc, err := meta.Accessor(o)
	if err != nil {
		return nil, err
	}
	p := meta.AsPartialObjectMetadata(acc)
	p.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
	return p, nil
}

func resourceVersionOf(o runtime.Object) string {
	acc, err := meta.Accessor(o)
	if err != nil {
		return ""
	}
	return acc.GetResourceVersion()
}

// shallow returns a shallow copy of o.
func shallow(o runtime.Object) runtime.Object {
	if u, ok := o.(*unstructured.Unstructured); ok {
		c := make(map[string]any, len(u.Object))
		for k, v := range u.Object {
			c[k] = v
		}
		return &unstructured.Unstructured{Object: c}
	}
	v := reflect.ValueOf(o).Elem()
	c := reflect.New(v.Type())
	c.Elem().Set(v)
	return c.Interface().(runtime.Object)
}

// listOf returns the row's typed list of objs.
func listOf(row *api.Resource, objs []runtime.Object, m metav1.ListMeta) (runtime.Object, error) {
	list := row.NewList()
	if ul, ok := list.(*unstructured.UnstructuredList); ok {
		ul.SetGroupVersionKind(row.ListGVK())
		for _, o := range objs {
			ul.Items = append(ul.Items, *o.(*unstructured.Unstructured))
		}
		ul.SetResourceVersion(m.ResourceVersion)
		ul.SetContinue(m.Continue)
		ul.SetRemainingItemCount(m.RemainingItemCount)
		return ul, nil
	}
	if err := meta.SetList(list, objs); err != nil {
		return nil, err
	}
	lm, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	lm.SetResourceVersion(m.ResourceVersion)
	lm.SetContinue(m.Continue)
	lm.SetRemainingItemCount(m.RemainingItemCount)
	list.GetObjectKind().SetGroupVersionKind(row.ListGVK())
	return list, nil
}

func formatRevision(rev int64) string { return strconv.FormatInt(rev, 10) }
