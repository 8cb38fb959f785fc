package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/statefile"
)

const (
	// length is how many IDs a pod has.
	length = 1 << 16
	// ranges is how many there are; the first is the machine's own.
	ranges = 1 << 16
	// file is where a pod's folder has its mappings.
	file = "userns"
)

// mappings is the file's content.
type mappings struct {
	UIDMappings []mapping `json:"uidMappings"`
	GIDMappings []mapping `json:"gidMappings"`
}

type mapping struct {
	HostID      uint32 `json:"hostId"`
	ContainerID uint32 `json:"containerId"`
	Length      uint32 `json:"length"`
}

// Allocator knows which ranges are taken. Ranges are the pods' as long as their
// folders exist.
type Allocator struct {
	// Pods is the folder that has one folder a pod.
	Pods string

	mu   sync.Mutex
	next uint32
}

// Pod returns the mapping of the pod whose folder has this name, the same one
// each time.
func (a *Allocator) Pod(uid string) (*runtimeapi.UserNamespace, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first, err := a.read(uid)
	if errors.Is(err, fs.ErrNotExist) {
		first, err = a.allocate(uid)
	}
	if err != nil {
		return nil, fmt.Errorf("create user namespace: %w", err)
	}
	ids := []*runtimeapi.IDMapping{{HostId: first, Length: length}}
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}, nil
}

func (a *Allocator) path(uid string) string { return filepath.Join(a.Pods, uid, file) }

func (a *Allocator) read(uid string) (uint32, error) {
	m, err := statefile.Read[mappings](a.path(uid))
	switch {
	case err != nil:
		return 0, fmt.Errorf("invalid user namespace mappings file: %w", err)
	case m == nil:
		return 0, fs.ErrNotExist
	}
	if len(m.UIDMappings) != 1 || len(m.GIDMappings) != 1 || m.UIDMappings[0] != m.GIDMappings[0] {
		return 0, fmt.Errorf("invalid user namespace mappings file: %s: wanted one mapping, the same for users and groups", a.path(uid))
	}
	if k := m.UIDMappings[0]; k.ContainerID != 0 || k.Length != length || k.HostID < length || k.HostID%length != 0 {
		return 0, fmt.Errorf("invalid user namespace mappings file: %s: wanted %d IDs from a multiple of that, mapped to 0, found %+v", a.path(uid), length, k)
	}
	return m.UIDMappings[0].HostID, nil
}

// allocate takes a range that no folder has.
func (a *Allocator) allocate(uid string) (uint32, error) {
	entries, err := os.ReadDir(a.Pods)
	if err != nil {
		return 0, err
	}
	taken := map[uint32]bool{}
	for _, e := range entries {
		first, err := a.read(e.Name())
		if err == nil {
			taken[first/length] = true
		} else if !errors.Is(err, fs.ErrNotExist) && e.IsDir() {
			return 0, err // a range that cannot be read may not be given twice
		}
	}
	for range ranges - 1 {
		// A range that has become free is used again last, in case a file
		// with its IDs is left somewhere.
		a.next = a.next%(ranges-1) + 1
		if taken[a.next] {
			continue
		}
		k := []mapping{{HostID: a.next * length, Length: length}}
		return k[0].HostID, statefile.Write(a.path(uid), &mappings{k, k})
	}
	return 0, errors.New("could not find an empty slot to allocate a user namespace")
}
