package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FuzzRead reads logs that no runtime wrote: the last lines are the end of all of
// them, and a limit is one.
func FuzzRead(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05.000000006Z stdout F one\n2026-01-02T03:04:06Z stderr P two\n2026-01-02T03:04:06Z stderr F three\n"), uint8(2), uint16(7), int64(1767323046), true)
	f.Add([]byte("\n\n \n   \nx stdout F\n2026 stdout F a"), uint8(0), uint16(0), int64(-1), false)
	f.Fuzz(func(t *testing.T, log []byte, tail uint8, limit uint16, since int64, timestamps bool) {
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, log, 0o600); err != nil {
			t.Fatal(err)
		}
		read := func(o v1.PodLogOptions) []byte {
			t.Helper()
			var b bytes.Buffer
			o.Timestamps = timestamps
			if err := Read(t.Context(), &b, path, &o, func() bool { return false }); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
		all := read(v1.PodLogOptions{})
		lines := int64(tail)
		if last := read(v1.PodLogOptions{TailLines: &lines}); !bytes.HasSuffix(all, last) {
			t.Errorf("the last %d lines are %q, of %q", lines, last, all)
		}
		if every := int64(1 << 40); !bytes.Equal(read(v1.PodLogOptions{TailLines: &every}), all) {
			t.Error("all lines are not all of it")
		}
		n := int64(limit) + 1
		if first := read(v1.PodLogOptions{LimitBytes: &n}); !bytes.Equal(first, all[:min(n, int64(len(all)))]) {
			t.Errorf("the first %d bytes are %q, of %q", n, first, all)
		}
		from := metav1.NewTime(time.Unix(since%1e11, 0))
		if part := read(v1.PodLogOptions{SinceTime: &from}); len(part) > len(all) {
			t.Errorf("since %v it has %q, of %q", from, part, all)
		}
	})
}
