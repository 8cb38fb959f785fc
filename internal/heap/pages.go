package heap

import (
	"bufio"
	"context"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// releasePeriod is how often the pages of the program are given back. Mapping
// those again that are in use costs a few milliseconds of the processor.
const releasePeriod = 10 * time.Second

// KeepSmall gives back what only the start needed of the heap, and then, from
// time to time until ctx ends, what a burst has left of it, and the pages of the
// program: of 100 MB of code and tables, most are needed once in a while. Pages that
// are used again are mapped again, from the machine's page cache.
func KeepSmall(ctx context.Context) {
	debug.FreeOSMemory()
	ranges := program()
	for {
		settle()
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
