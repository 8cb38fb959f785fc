package customresource

import (
	"bytes"
	"encoding/json"
	"reflect"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/jsonpath"

	"keelson.dev/keelson/internal/api/row"
)

// cell finds a value by a JSONPath and prints it as one of a column's type.
type cell struct {
	typ string
	// A parsed path has state, and is for one goroutine at a time.
	paths *sync.Pool
}

func newCell(typ, path string) cell {
	return cell{typ, &sync.Pool{New: func() any {
		p := jsonpath.New("column").AllowMissingKeys(true)
		if err := p.Parse("{" + path + "}"); err != nil {
			return (*jsonpath.JSONPath)(nil)
		}
		return p
	}}}
}

func (c cell) with(f func(*jsonpath.JSONPath) any) any {
	p := c.paths.Get().(*jsonpath.JSONPath)
	if p == nil {
		return nil
	}
	defer c.paths.Put(p)
	return f(p)
}

// find returns the first value at the path, nil if there is none.
func (c cell) find(obj map[string]any) any {
	return c.with(func(p *jsonpath.JSONPath) any {
		results, err := p.FindResults(obj)
		if err != nil || len(results) == 0 || len(results[0]) == 0 {
			return nil
		}
		return results[0][0].Interface()
	})
}

// value returns the cell of obj: nil where there is nothing, or nothing of the
// column's type.
func (c cell) value(obj map[string]any, now time.Time) any {
	v := c.find(obj)
	switch c.typ {
	case "string":
		if v == nil {
			return nil
		}
		return c.with(func(p *jsonpath.JSONPath) any {
			var buf bytes.Buffer
			if err := p.PrintResults(&buf, []reflect.Value{reflect.ValueOf(v)}); err != nil {
				return nil
			}
			return buf.String()
		})
	case "integer":
		switch n := v.(type) {
		case int64:
			return n
		case float64:
			return int64(n)
		case json.Number:
			if i, err := n.Int64(); err == nil {
				return i
			}
		}
	case "number":
		switch n := v.(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		case json.Number:
			if f, err := n.Float64(); err == nil {
				return f
			}
		}
	case "boolean":
		if b, ok := v.(bool); ok {
			return b
		}
	case "date":
		if s, ok := v.(string); ok {
			var t metav1.Time
			if err := t.UnmarshalQueryParameter(s); err != nil {
				return "<invalid>"
			}
			return row.Since(t.Time, now)
		}
	}
	return nil
}
