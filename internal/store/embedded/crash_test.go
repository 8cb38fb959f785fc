package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/storetest"
)

const crashDir = "KEELSON_CRASH_TEST_DIR"

// TestMain is the crashing process itself when the test starts it as such.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashLoad(dir)
		return
	}
	os.Exit(m.Run())
}

const crashWriters = 4

// pair makes an object of which a half would be noticed: all its parts carry
// the same number.
func pair(key string, n int) *v1.Pod {
	p := storetest.Pod(key, strconv.Itoa(n))
	p.Annotations = map[string]string{"n": strings.Repeat(strconv.Itoa(n)+",", 20)}
	return p
}

func numberOf(p *v1.Pod) (int, error) {
	n, err := strconv.Atoi(p.Spec.NodeName)
	if err != nil || p.Annotations["n"] != strings.Repeat(strconv.Itoa(n)+",", 20) {
		return 0, fmt.Errorf("torn object: node %q, annotation %q", p.Spec.NodeName, p.Annotations["n"])
	}
	return n, nil
}

// load runs writers that put the numbers 1, 2, ... into their own key, with a
// deletion at each tenth, and tells acked what was acknowledged: writer,
// number, revision.
func load(ctx context.Context, s *Store, acked func(w, n int, rev int64)) {
	var wg sync.WaitGroup
	for w := range crashWriters {
		wg.Go(func() {
			key := "w" + strconv.Itoa(w)
			e, err := s.Get(ctx, storetest.Key(key))
			if err != nil {
				return
			}
			n := 0
			if e != nil {
				n, _ = numberOf(e.Object().(*v1.Pod))
			}
			for ctx.Err() == nil {
				n++
				switch {
				case e == nil:
					e, err = s.Create(ctx, storetest.Key(key), pair(key, n), 0)
				case n%10 == 0:
					if _, err = s.Delete(ctx, storetest.Key(key), e.ModRevision); err == nil {
						e, err = s.Create(ctx, storetest.Key(key), pair(key, n), 0)
					}
				default:
					e, err = s.Update(ctx, storetest.Key(key), e.ModRevision, pair(key, n), 0)
				}
				if err != nil {
					return
				}
				acked(w, n, e.ModRevision)
			}
		})
	}
	wg.Wait()
}

func crashLoad(dir string) {
	s, err := Open(Options{Dir: dir, Codec: storetest.Codec(), Past: PastOptions{Age: time.Hour}})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("open")
	load(context.Background(), s, func(w, n int, rev int64) {
		// One write of a line is atomic on a pipe.
		fmt.Printf("%d %d %d\n", w, n, rev)
	})
}

// verify checks that s holds every acknowledged write or a later one.
func verify(t *testing.T, s *Store, acked *[crashWriters]ack) {
	t.Helper()
	var top int64
	for w := range acked {
		top = max(top, acked[w].rev)
		e, err := s.Get(t.Context(), storetest.Key("w"+strconv.Itoa(w)))
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			// A deletion may have been synced without the creation after it.
			if (acked[w].n+1)%10 != 0 && acked[w].n != 0 {
				t.Fatalf("writer %d: the acknowledged %d is lost", w, acked[w].n)
			}
			continue
		}
		n, err := numberOf(e.Object().(*v1.Pod))
		if err != nil {
			t.Fatal(err)
		}
		if n < acked[w].n || n > acked[w].n+1 {
			t.Fatalf("writer %d: read %d, acknowledged %d", w, n, acked[w].n)
		}
		if n == acked[w].n && e.ModRevision != acked[w].rev {
			t.Fatalf("writer %d: %d is at revision %d, acknowledged at %d", w, n, e.ModRevision, acked[w].rev)
		}
	}
	if s.Revision() < top {
		t.Fatalf("revision %d, acknowledged %d", s.Revision(), top)
	}
	oldest, _, err := s.Oldest()
	if err != nil {
		t.Fatal(err)
	}
	next := oldest + 1
	if err := s.Changes(t.Context(), "/", oldest, s.Revision(), func(c *store.Change) bool {
		if c.Revision != next {
			t.Fatalf("the history has revision %d, want %d", c.Revision, next)
		}
		next++
		if e, err := c.Prev(); err != nil {
			t.Fatal(err)
		} else if e != nil {
			if _, err := numberOf(e.Object().(*v1.Pod)); err != nil {
				t.Fatal(err)
			}
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if next != s.Revision()+1 {
		t.Fatalf("the history ends before revision %d, want %d", next, s.Revision()+1)
	}
}

type ack struct {
	n   int
	rev int64
}

// TestKilledProcess kills a process under load at random points, over and over
// on the same store.
func TestKilledProcess(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	dir := t.TempDir()
	total := 0
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		if line, err := lines.ReadString('\n'); line != "open\n" {
			cmd.Wait()
			t.Fatalf("the process says %q (%v)", line, err)
		}
		timer := time.AfterFunc(time.Duration(rand.IntN(30_000))*time.Microsecond, func() { cmd.Process.Kill() })
		var acked [crashWriters]ack
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				break
			}
			var w, n int
			var rev int64
			if _, err := fmt.Sscan(line, &w, &n, &rev); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			acked[w] = ack{n, rev}
			total++
		}
		timer.Stop()
		cmd.Wait()
		s := open(t, dir, nil)
		for w := range acked {
			if acked[w].n == 0 { // died before its first write: whatever is there stays
				if e, _ := s.Get(t.Context(), storetest.Key("w"+strconv.Itoa(w))); e != nil {
					n, err := numberOf(e.Object().(*v1.Pod))
					if err != nil {
						t.Fatal(err)
					}
					acked[w] = ack{n, e.ModRevision}
				}
			}
		}
		verify(t, s, &acked)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if total < rounds {
		t.Errorf("only %d acknowledged writes in %d rounds", total, rounds)
	}
}

// TestPowerLoss cuts the power: of what was not synced, a random part is lost.
func TestPowerLoss(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	fs := vfs.NewCrashableMem()
	for range 300 {
		s := open(t, "data", fs)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var acked [crashWriters]ack
		var clone *vfs.MemFS
		var at [crashWriters]ack
		left := 1 + rng.IntN(60)
		load(ctx, s, func(w, n int, rev int64) {
			mu.Lock()
			defer mu.Unlock()
			acked[w] = ack{n, rev}
			if left--; left == 0 {
				at = acked
				clone = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				cancel()
			}
		})
		cancel()
		s.Close()
		fs = clone
		s = open(t, "data", fs)
		for w := range at {
			e, err := s.Get(t.Context(), storetest.Key("w"+strconv.Itoa(w)))
			if err != nil {
				t.Fatal(err)
			}
			if at[w].n == 0 && e != nil {
				if at[w].n, err = numberOf(e.Object().(*v1.Pod)); err != nil {
					t.Fatal(err)
				}
				at[w].rev = e.ModRevision
			}
		}
		verify(t, s, &at)
		if err := s.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Fatal(err)
		}
	}
}
