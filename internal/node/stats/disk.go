package stats

import (
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

// used is the space that a folder takes up.
type used struct{ bytes, inodes uint64 }

// diskUsage adds up what is in a folder and on its file system, in blocks, so
// that holes in files do not count; a file with several names counts once.
func diskUsage(dir string) (out used) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var dev uint64
	first := true
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it has gone in the meantime
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if first {
			dev, first = st.Dev, false
		} else if st.Dev != dev {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if st.Nlink > 1 && !d.IsDir() {
			i := inode{st.Dev, st.Ino}
			if seen[i] {
				return nil
			}
			seen[i] = true
		}
		out.bytes += uint64(st.Blocks) * 512
		out.inodes++
		return nil
	})
	return out
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
