package heap

import (
	"slices"
	"strings"
	"testing"
)

// TestUnwritten checks that only those mappings of the program are given back that the loader
// has not written.
func TestUnwritten(t *testing.T) {
	const smaps = `00400000-02227000 r--p 00000000 fd:00 123  /bin/keelson
Size:              30876 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
02227000-05aa8000 r-xp 01e27000 fd:00 123  /bin/keelson
Anonymous:             4 kB
0a7f2000-0a7f3000 r--p 0a3f2000 fd:00 123  /bin/keelson
Anonymous:             4 kB
0a7f3000-0a94c000 rw-p 0a3f3000 fd:00 123  /bin/keelson
Anonymous:           100 kB
0b000000-0b001000 r--p 0a3f3000 fd:00 123  /bin/keelson
Anonymous:             0 kB
0a94c000-0c9b1000 rw-p 00000000 00:00 0
Anonymous:             8 kB
7f0000000000-7f0000001000 r--p 00000000 fd:00 124  /lib/libc.so.6
Anonymous:             0 kB
7f0000001000-7f0000002000 r--p 00000000 00:00 0    [vvar]
Anonymous:             0 kB
`
	got := unwritten(strings.NewReader(smaps), "/bin/keelson")
	if want := []addresses{{0x400000, 0x2227000}, {0xb000000, 0xb001000}}; !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	if len(program()) == 0 {
		t.Error("nothing of this program can be given back")
	}
}
