package linearizability

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// operation is a request about one object.
type operation struct {
	verb     string // create, get, update, patch, delete
	key      string
	value    int
	revision int64 // the resourceVersion in an update
}

// outcome is the answer to an operation.
type outcome struct {
	// unknown reports whether there was no answer.
	unknown  bool
	code     int
	value    int
	revision int64
}

// object is the state of a key; revision -1 means one that no client knows.
type object struct {
	exists   bool
	value    int
	revision int64
}

const unseen = -1

func matches(s object, revision int64) bool { return s.revision == unseen || s.revision == revision }

// step returns the states that the operation can leave, with that outcome.
func step(s object, in operation, out outcome) []object {
	wrote := object{true, in.value, unseen}
	if out.unknown {
		switch {
		case in.verb == "create" && !s.exists, in.verb == "patch" && s.exists, in.verb == "update" && s.exists && matches(s, in.revision):
			return []object{s, wrote}
		case in.verb == "delete" && s.exists:
			return []object{s, {}}
		}
		return []object{s}
	}
	wrote.revision = out.revision
	may := func(ok bool, next object) []object {
		if ok {
			return []object{next}
		}
		return nil
	}
	switch out.code {
	case 404:
		return may(!s.exists && in.verb != "create", s)
	case 409:
		if in.verb == "create" {
			return may(s.exists, s)
		}
		return may(in.verb == "update" && s.exists && (s.revision == unseen || s.revision != in.revision), s)
	}
	switch in.verb {
	case "create":
		return may(!s.exists, wrote)
	case "get":
		return may(s.exists && s.value == out.value && matches(s, out.revision), object{true, out.value, out.revision})
	case "update":
		return may(s.exists && matches(s, in.revision), wrote)
	case "patch":
		return may(s.exists, wrote)
	case "delete":
		return may(s.exists, object{})
	}
	return nil
}

// model returns the model of an API server with a few independent objects.
func model() porcupine.Model {
	n := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, o := range history {
				k := o.Input.(operation).key
				byKey[k] = append(byKey[k], o)
			}
			var out [][]porcupine.Operation
			for _, ops := range byKey {
				out = append(out, ops)
			}
			return out
		},
		Init: func() []any { return []any{object{}} },
		Step: func(state, in, out any) []any {
			var next []any
			for _, s := range step(state.(object), in.(operation), out.(outcome)) {
				next = append(next, s)
			}
			return next
		},
		Equal: func(a, b any) bool { return a == b },
		DescribeOperation: func(in, out any) string {
			return fmt.Sprintf("%+v -> %+v", in, out)
		},
	}
	return n.ToModel()
}
