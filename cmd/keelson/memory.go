package main

import (
	"bufio"
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// leastGrowth is how much a heap may grow, in bytes, before it is collected,
	// however small it is: else a burst of requests to a small cluster pays
	// for a collection every few milliseconds.
	leastGrowth = 32 << 20
	// growth is, in percent, that of a big heap: a control plane is idle most of
	// the time, and memory matters more than the collector's share of the processor.
	growth = 50
)

// paceCollector keeps the collector to this pace. It is set anew after each
// collection, by the finalizer of an object that nothing refers to.
func paceCollector() {
	type sentinel struct{ _ [16]byte }
	var set func(*sentinel)
	set = func(*sentinel) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		percent := growth
		if n := live[0].Value.Uint64(); n > 0 {
			percent = max(percent, int(min(leastGrowth*100/n, 1000)))
		}
		debug.SetGCPercent(percent)
		runtime.SetFinalizer(&sentinel{}, set)
	}
	set(nil)
}

// releasePeriod is how often the pages of the program are given back. Mapping
// those again that are in use costs a few milliseconds of the processor.
const releasePeriod = 10 * time.Second

// keepSmall gives back what only the start needed of the heap, and then, from
// time to time, the pages of the program: of 100 MB of code and tables, most
// are needed once in a while. Pages that are used again are mapped again, from
// the machine's page cache.
func keepSmall(ctx context.Context) {
	debug.FreeOSMemory()
	ranges := program()
	for {
		for _, r := range ranges {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, r.begin, r.end-r.begin, unix.MADV_DONTNEED)
		}
		select {
		case <-time.After(releasePeriod):
		case <-ctx.Done():
			return
		}
	}
}

type addresses struct{ begin, end uintptr }

// program returns where the program's file is mapped and not written; nothing where
// there is no /proc to tell.
func program() []addresses {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil
	}
	defer maps.Close()
	var out []addresses
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		f := strings.Fields(lines.Text())
		// Written pages are the process's own, and stay.
		if len(f) < 6 || f[5] != exe || strings.Contains(f[1], "w") {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		begin, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			out = append(out, addresses{uintptr(begin), uintptr(end)})
		}
	}
	return out
}
