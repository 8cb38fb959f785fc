package csi

import "sync"

// locks are mutexes by name, each of which exists as long as it is held or waited for.
type locks struct {
	mu     sync.Mutex
	byName map[string]*lock
}

type lock struct {
	sync.Mutex
	users int // those that hold it or wait for it
}

// lock locks the mutex of that name, and returns what unlocks it.
func (l *locks) lock(name string) (unlock func()) {
	l.mu.Lock()
	if l.byName == nil {
		l.byName = map[string]*lock{}
	}
	own := l.byName[name]
	if own == nil {
		own = &lock{}
		l.byName[name] = own
	}
	own.users++
	l.mu.Unlock()
	own.Lock()
	return func() {
		own.Unlock()
		l.mu.Lock()
		if own.users--; own.users == 0 {
			delete(l.byName, name)
		}
		l.mu.Unlock()
	}
}
