package memory

import (
	"cmp"
	"slices"
	"strings"

	"keelson.dev/keelson/internal/store"
)

// SetUnreadable notes what cannot be read.
func (s *State) SetUnreadable(u store.Unreadable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unreadable == nil {
		s.unreadable = map[string]store.Unreadable{}
	}
	s.unreadable[u.Key] = u
}

// ForgetUnreadable forgets what was noted of key, or of all keys if that is empty.
func (s *State) ForgetUnreadable(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key == "" {
		s.unreadable = nil
	}
	delete(s.unreadable, key)
}

// Unreadable implements store.Store.
func (s *State) Unreadable(prefix string) []store.Unreadable {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []store.Unreadable
	for key, u := range s.unreadable {
		if strings.HasPrefix(key, prefix) {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b store.Unreadable) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// UnreadableAt returns what cannot be read at key, if there is such.
func (s *State) UnreadableAt(key string) (store.Unreadable, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	u, ok := s.unreadable[key]
	return u, ok
}
