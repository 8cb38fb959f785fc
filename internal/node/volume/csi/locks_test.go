package csi

import (
	"sync"
	"testing"
)

func TestLocks(t *testing.T) {
	var l locks
	var wg sync.WaitGroup
	counts := map[string]*int{"a": new(int), "b": new(int)}
	for range 50 {
		for name, n := range counts {
			wg.Go(func() {
				for range 100 {
					unlock := l.lock(name)
					*n++
					unlock()
				}
			})
		}
	}
	defer l.lock("other")() // keeps nobody waiting
	wg.Wait()
	if *counts["a"] != 5000 || *counts["b"] != 5000 || len(l.byName) != 1 {
		t.Errorf("%d, %d; %d locks are left", *counts["a"], *counts["b"], len(l.byName))
	}
}
