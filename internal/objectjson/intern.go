package objectjson

import "sync/atomic"

const (
	// internable is the length, in bytes, up to which a string is looked for
	// among those seen lately: names of fields, and values that many objects have.
	internable = 32
	slots      = 4096
)

// seen has strings seen lately, each at the place of its hash. What comes to
// the same place takes it, so that it stays small whatever is read.
var seen [slots]atomic.Pointer[string]

// intern returns b as a string, one that there is already if it can.
func intern(b []byte) string {
	if len(b) == 0 || len(b) > internable {
		return string(b)
	}
	h := uint32(2166136261)
	for _, c := range b {
		h = (h ^ uint32(c)) * 16777619
	}
	slot := &seen[(h^h>>16)%slots]
	if s := slot.Load(); s != nil && *s == string(b) {
		return *s
	}
	s := string(b)
	slot.Store(&s)
	return s
}
