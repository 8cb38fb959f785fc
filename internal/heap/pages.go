package heap

import (
	"bufio"
	"context"
	"io"
	"os"
	"runtime/debug"
	"slices"
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

// program returns where the program's file is mapped and was never written; nothing where
// there is no /proc to tell.
func program() []addresses {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer maps.Close()
	return unwritten(maps, exe)
}

// unwritten returns the mappings of a file, in the format of /proc/PID/smaps, that are
// read-only and have no page of the process's own. A loader that relocates a program (with
// cgo, or of -buildmode=pie) writes pages before it makes them read-only: they would be as in
// the file again after they were given back.
func unwritten(smaps io.Reader, file string) (out []addresses) {
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) >= 6 && f[5] == file && !strings.Contains(f[1], "w"):
			from, to, _ := strings.Cut(f[0], "-")
			begin, err1 := strconv.ParseUint(from, 16, 64)
			end, err2 := strconv.ParseUint(to, 16, 64)
			if err1 == nil && err2 == nil {
				out = append(out, addresses{begin: uintptr(begin), end: uintptr(end)})
			}
		case len(f) >= 5 && strings.Contains(f[0], "-"):
			out = append(out, addresses{}) // another mapping, to which the next counts belong
		case len(f) == 3 && f[0] == "Anonymous:" && f[1] != "0":
			out[len(out)-1] = addresses{}
		}
	}
	return slices.DeleteFunc(out, func(a addresses) bool { return a.begin == a.end })
}
