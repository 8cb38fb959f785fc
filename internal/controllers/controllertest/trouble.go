package controllertest

import (
	"math/rand/v2"
	"sync"
	"time"
)

// trouble makes requests between controllers and the API server fail. The zero
// value makes none fail.
type trouble struct {
	mu  sync.Mutex
	rng *rand.Rand
}

const (
	// lag is how far an informer is behind at most, but for when it stalls.
	lag   = 300 * time.Millisecond
	stall = 5 * time.Second
)

// chance returns a number below 1 while there is trouble, and else 1.
func (f *trouble) chance() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rng == nil {
		return 1
	}
	return f.rng.Float64()
}

// delay returns for how long a watch holds back its next event.
func (f *trouble) delay() time.Duration {
	switch r := f.chance(); {
	case r == 1:
		return 0
	case r < 0.03:
		return time.Duration(f.chance() * float64(stall))
	default:
		return time.Duration(r * float64(lag))
	}
}

// writes returns how many writes controllers do before they die, 0 for any number.
func (f *trouble) writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rng == nil {
		return 0
	}
	return 1 + f.rng.IntN(20)
}

// set begins trouble; a nil rng ends it.
func (f *trouble) set(rng *rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rng = rng
}
