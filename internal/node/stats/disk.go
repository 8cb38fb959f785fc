package stats

import (
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/beneath"
)

// used is the space that a folder takes up.
type used struct{ bytes, inodes uint64 }

// diskUsage adds up what is in a folder, or a file, and on its file system, in blocks, so
// that holes in files do not count; a file with several names counts once. Containers may
// swap what is in it meanwhile, and add nothing else of the machine by that.
func diskUsage(path string) (out used) {
	d, err := beneath.Open(path)
	if err != nil {
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			out.add(&st)
		}
		return out
	}
	defer d.Close()
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var dev uint64
	_ = d.Walk(false, func(e *beneath.Entry) error { // what cannot be read is left out
		st := &e.Stat
		if e.Path == "." {
			dev = st.Dev
		}
		if st.Dev != dev {
			return fs.SkipDir
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			i := inode{st.Dev, st.Ino}
			if seen[i] {
				return nil
			}
			seen[i] = true
		}
		out.add(st)
		return nil
	})
	return out
}

func (u *used) add(st *unix.Stat_t) {
	u.bytes += uint64(st.Blocks) * 512
	u.inodes++
}

const (
	// fresh is how long the size of a folder is good for at least, and stale at
	// most.
	fresh = 5 * time.Second
	stale = time.Minute
	// share bounds the time spent with adding a folder up: it is not added up
	// again before share times as long has passed.
	share = 50
)

// sizes remembers the sizes of folders, so that large ones are not added up all
// the time.
type sizes struct {
	clock clock.PassiveClock
	mu    sync.Mutex
	known map[string]size
}

type size struct {
	used
	at, until time.Time
}

func (s *sizes) of(dir string) size {
	s.mu.Lock()
	now := s.clock.Now()
	k, ok := s.known[dir]
	s.mu.Unlock()
	if ok && now.Before(k.until) {
		return k
	}
	k = size{used: diskUsage(dir), at: now}
	took := s.clock.Since(now)
	k.until = s.clock.Now().Add(min(max(fresh, share*took), stale))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string]size{}
	}
	s.known[dir] = k
	return k
}

// forget drops the folders that have not been asked for in a while.
func (s *sizes) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	for dir, k := range s.known {
		if now.Sub(k.until) > stale {
			delete(s.known, dir)
		}
	}
}

// fileSystem returns what there is and what is left of the file system that path
// is on; of the space that is left, without what only root may take.
func fileSystem(path string, at time.Time) (*statsapi.FsStats, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return nil, false
	}
	size := uint64(st.Bsize)
	return &statsapi.FsStats{
		Time:           metav1.NewTime(at),
		CapacityBytes:  ptr.To(st.Blocks * size),
		AvailableBytes: ptr.To(st.Bavail * size),
		UsedBytes:      ptr.To((st.Blocks - st.Bfree) * size),
		Inodes:         ptr.To(st.Files),
		InodesFree:     ptr.To(st.Ffree),
		InodesUsed:     ptr.To(less(st.Files, st.Ffree)),
	}, true
}

// usedOn returns the space that a folder takes up, with the figures of its file
// system.
func usedOn(dir string, s size) *statsapi.FsStats {
	out, ok := fileSystem(dir, s.at)
	if !ok {
		return nil
	}
	out.UsedBytes, out.InodesUsed = ptr.To(s.bytes), ptr.To(s.inodes)
	return out
}
