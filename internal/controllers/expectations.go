package controllers

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/clock"
)

// expectationTimeout bounds how long a lost watch event can hold a controller.
const expectationTimeout = 5 * time.Minute

// Expectations remembers the creations and deletions a controller has asked
// for and not yet seen in its cache, so that it does not act on a stale one.
// Deletions are tracked by object key, since a deletion may be noticed both as
// an update and as a delete.
type Expectations struct {
	clock clock.PassiveClock
	mu    sync.Mutex
	m     map[string]*expectation
}

type expectation struct {
	adds int
	dels sets.Set[string]
	at   time.Time
}

// NewExpectations makes an empty set of expectations.
func NewExpectations(c clock.PassiveClock) *Expectations {
	return &Expectations{clock: c, m: map[string]*expectation{}}
}

// Satisfied reports whether all that was expected for key has been seen, or has
// been waited for too long.
func (e *Expectations) Satisfied(key string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.m[key]
	return x == nil || x.adds <= 0 && x.dels.Len() == 0 || e.clock.Since(x.at) > expectationTimeout
}

// ExpectCreations expects n creations for key.
func (e *Expectations) ExpectCreations(key string, n int) {
	e.set(key, &expectation{adds: n, at: e.clock.Now()})
}

// ExpectDeletions expects the named objects of key to go.
func (e *Expectations) ExpectDeletions(key string, objects ...string) {
	e.set(key, &expectation{dels: sets.New(objects...), at: e.clock.Now()})
}

// Expect expects both creations and deletions.
func (e *Expectations) Expect(key string, creations int, deletions ...string) {
	e.set(key, &expectation{adds: creations, dels: sets.New(deletions...), at: e.clock.Now()})
}

func (e *Expectations) set(key string, x *expectation) {
	e.mu.Lock()
	e.m[key] = x
	e.mu.Unlock()
}

// Created notes one creation, or one that failed or was given up. It reports whether
// it was the last of what was expected.
func (e *Expectations) Created(key string) bool { return e.CreatedN(key, 1) }

// CreatedN notes n creations. It reports whether they were the last of what was expected.
func (e *Expectations) CreatedN(key string, n int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.m[key]
	if x == nil || x.adds <= 0 {
		return false
	}
	x.adds -= n
	return x.adds <= 0 && x.dels.Len() == 0
}

// Gone notes the deletion of one object. It reports whether it was the last of what
// was expected.
func (e *Expectations) Gone(key, object string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.m[key]
	if x == nil || !x.dels.Has(object) {
		return false
	}
	x.dels.Delete(object)
	return x.adds <= 0 && x.dels.Len() == 0
}

// Forget drops the expectations of key.
func (e *Expectations) Forget(key string) {
	e.mu.Lock()
	delete(e.m, key)
	e.mu.Unlock()
}
