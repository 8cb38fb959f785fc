package main

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"

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

// releaseStart gives back what only the start needed: free memory of the heap,
// and the pages of the program itself. Its pages are files' pages: those that
// are used again are mapped again, from the page cache.
func releaseStart() {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return // there is no /proc: nothing is lost but memory
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		f := strings.Fields(lines.Text())
		// Written pages are the process's own, and stay.
		if len(f) < 6 || f[5] != exe || strings.Contains(f[1], "w") {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		begin, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(begin), uintptr(end-begin), unix.MADV_DONTNEED)
	}
}
