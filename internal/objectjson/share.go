package objectjson

import (
	"container/list"
	"sync"
)

const (
	// shareable is the size up to which a map is shared, in bytes of JSON, and
	// shares how many different ones are known at once.
	shareable = 8 << 10
	shares    = 2048
)

// shared knows the maps used last, by their JSON.
var shared = struct {
	sync.Mutex
	byJSON map[string]*list.Element
	used   *list.List // of share, the one used last in front
}{byJSON: map[string]*list.Element{}, used: list.New()}

type share struct {
	json string
	m    map[string]any
}

// Share returns a map that is equal to m: one given before, if it can. No one may
// change it. It is for what many objects have alike, such as the sets of their
// managed fields, and for maps that JSON was decoded to.
func Share(m map[string]any) map[string]any {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	b, err := Append((*buf)[:0], m)
	if err != nil || len(b) > shareable {
		return m
	}
	*buf = b
	shared.Lock()
	defer shared.Unlock()
	if e := shared.byJSON[string(b)]; e != nil {
		shared.used.MoveToFront(e)
		return e.Value.(share).m
	}
	s := share{string(b), m}
	shared.byJSON[s.json] = shared.used.PushFront(s)
	if len(shared.byJSON) > shares {
		last := shared.used.Back()
		delete(shared.byJSON, shared.used.Remove(last).(share).json)
	}
	return m
}

// ShareManagedFields shares the sets of fields in the metadata of obj.
func ShareManagedFields(obj map[string]any) {
	metadata, _ := obj["metadata"].(map[string]any)
	managers, _ := metadata["managedFields"].([]any)
	for _, m := range managers {
		if m, ok := m.(map[string]any); ok {
			if set, ok := m["fieldsV1"].(map[string]any); ok && len(set) > 0 {
				m["fieldsV1"] = Share(set)
			}
		}
	}
}
