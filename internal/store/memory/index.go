package memory

import (
	"cmp"
	"slices"
	"strings"

	"keelson.dev/keelson/internal/store"
)

// index holds the live entries by the value of an Indexer.
type index struct {
	store.Indexer
	entries map[string]map[string]*store.Entry // value → key → entry
}

func (ix *index) value(e *store.Entry) (string, bool) {
	if e == nil || !strings.HasPrefix(e.Key, ix.Prefix) {
		return "", false
	}
	return ix.Value(e.Object())
}

// change replaces old by e; either may be nil.
func (ix *index) change(old, e *store.Entry) {
	if v, ok := ix.value(old); ok {
		m := ix.entries[v]
		delete(m, old.Key)
		if len(m) == 0 {
			delete(ix.entries, v)
		}
	}
	if v, ok := ix.value(e); ok {
		m := ix.entries[v]
		if m == nil {
			m = map[string]*store.Entry{}
			ix.entries[v] = m
		}
		m[e.Key] = e
	}
}

func (s *State) index(name string) *index {
	for i := range s.indexes {
		if s.indexes[i].Name == name {
			return &s.indexes[i]
		}
	}
	return nil
}

// listIndex answers a list of the present from an index.
func (s *State) listIndex(prefix string, opts store.ListOptions) (*store.ListResult, bool) {
	ix := s.index(opts.Index)
	if ix == nil {
		return nil, false
	}
	s.mu.RLock()
	r := &store.ListResult{Revision: s.rev}
	for key, e := range ix.entries[opts.Value] {
		if strings.HasPrefix(key, prefix) && key > opts.After {
			r.Entries = append(r.Entries, e)
		}
	}
	s.mu.RUnlock()
	if opts.Match != nil {
		r.Entries = slices.DeleteFunc(r.Entries, func(e *store.Entry) bool { return !opts.Match(e) })
	}
	slices.SortFunc(r.Entries, func(a, b *store.Entry) int { return cmp.Compare(a.Key, b.Key) })
	if opts.Limit > 0 && len(r.Entries) > opts.Limit {
		r.More, r.Remaining = true, -1
		r.Entries = r.Entries[:opts.Limit]
	}
	return r, true
}
