package localdriver

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keelson.dev/keelson/internal/node/statefile"
)

// The folders of volumes and snapshots, and what is in each.
const (
	volumes   = "volumes"
	snapshots = "snapshots"
	meta      = "volume.json"
	data      = "data"
	disk      = "disk"
)

// item is a volume or a snapshot, as stored on disk.
type item struct {
	// Name is the name in the request that created it.
	Name string `json:"name"`
	// Bytes is its size.
	Bytes int64 `json:"bytes"`
	// Block is set if it is a block device.
	Block bool `json:"block,omitempty"`
	// Snapshot or Volume is the ID of the source of its content.
	Snapshot string    `json:"snapshot,omitempty"`
	Volume   string    `json:"volume,omitempty"`
	Created  time.Time `json:"created"`
	// Project is the project of its quota, or the subvolume, 0 for none.
	Project uint32 `json:"project,omitempty"`
}

var plain = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,99}$`)

// identify returns the ID for a name. An ID is the name of a folder.
func identify(name string) string {
	if plain.MatchString(name) {
		return name
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(name)))[:40]
}

// path returns the folder of an ID, which comes from a client: "" if the ID is
// invalid.
func (d *Driver) path(kind, id string) string {
	if !plain.MatchString(id) {
		return ""
	}
	return filepath.Join(d.Dir, kind, id)
}

// read returns a volume or a snapshot, nil if there is none.
func (d *Driver) read(kind, id string) (*item, error) {
	dir := d.path(kind, id)
	if dir == "" {
		return nil, nil
	}
	return statefile.Read[item](filepath.Join(dir, meta))
}

func (d *Driver) write(kind, id string, i *item) error {
	return statefile.Write(filepath.Join(d.path(kind, id), meta), i)
}

// list returns the IDs of all volumes or snapshots, sorted.
func (d *Driver) list(kind string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(d.Dir, kind, "*", meta))
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = filepath.Base(filepath.Dir(found[i]))
	}
	slices.Sort(found)
	return found, nil
}

// sweep removes the remains of interrupted creations and deletions, and writes the JSON
// of volumes and snapshots again that was damaged.
func (d *Driver) sweep() error {
	var errs []error
	for _, kind := range []string{volumes, snapshots} {
		entries, err := os.ReadDir(filepath.Join(d.Dir, kind))
		if err != nil {
			return err
		}
		for _, e := range entries {
			dir := filepath.Join(d.Dir, kind, e.Name())
			i, err := d.read(kind, e.Name())
			switch {
			case err != nil:
				errs = append(errs, d.mend(kind, e.Name()))
			case i == nil:
				errs = append(errs, os.RemoveAll(dir))
			}
		}
	}
	return errors.Join(errs...)
}

// mend writes the JSON of a volume or a snapshot from its content. The size of a folder
// is 0, which is unknown, and so is what it was copied from.
func (d *Driver) mend(kind, id string) error {
	i := &item{Name: id, Created: d.Clock.Now().UTC()}
	dir := d.path(kind, id)
	info, err := os.Stat(filepath.Join(dir, disk))
	switch {
	case err == nil:
		i.Block, i.Bytes = true, info.Size()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case kind == volumes:
		if i.Project, err = d.quota.of(filepath.Join(dir, data)); err != nil {
			return err
		}
	}
	return d.write(kind, id, i)
}

// create makes a volume or a snapshot with the content of the folder from, or
// empty; d.mu is held, but not while files are copied.
func (d *Driver) create(kind, id string, i *item, from string) (err error) {
	if kind == volumes && !i.Block {
		if i.Project, err = d.project(id); err != nil {
			return err
		}
	}
	return d.aside(d.path(kind, id), from, i.Project, func() error { return d.fill(kind, id, i, from) })
}

// fill makes the folder of a volume or a snapshot. Its JSON is written last.
func (d *Driver) fill(kind, id string, i *item, from string) (err error) {
	dir := d.path(kind, id)
	if err := os.RemoveAll(dir); err != nil { // the remains of an earlier attempt
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir), d.quota.limit(filepath.Dir(dir), i.Project, 0))
		}
	}()
	if i.Block {
		if err := makeDisk(filepath.Join(dir, disk), i.Bytes, from); err != nil {
			return err
		}
		return d.write(kind, id, i)
	}
	content := filepath.Join(dir, data)
	if kind == volumes {
		i.Project, err = d.quota.folder(content, i.Project)
	} else {
		err = os.Mkdir(content, 0o777)
	}
	if err != nil {
		return err
	}
	// Files inherit the project from their folder, so that it comes first.
	if err := d.quota.limit(content, i.Project, i.Bytes); err != nil {
		return err
	}
	if from != "" {
		if err := copyDir(content, filepath.Join(from, data)); err != nil {
			return err
		}
	} else if err := os.Chmod(content, 0o777); err != nil { // against the umask: any user of a pod may write
		return err
	}
	return d.write(kind, id, i)
}

// makeDisk makes the file of a block volume, with the content of that of from.
func makeDisk(path string, size int64, from string) error {
	if from != "" {
		if err := cloneDisk(path, filepath.Join(from, disk)); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// cloneDisk copies the file of a block volume.
func cloneDisk(path, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return copyFile(path, f, info.Size())
}

// remove removes a volume or a snapshot, or with nil what an earlier attempt has left of it; the
// JSON is removed first, so that the rest is not taken for a volume after a crash. d.mu is held, but
// not while files are removed.
func (d *Driver) remove(kind, id string, i *item) error {
	dir := d.path(kind, id)
	if dir == "" {
		return nil
	}
	if i == nil {
		i = &item{}
	}
	if err := os.Remove(filepath.Join(dir, meta)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.aside(dir, "", i.Project, func() error {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		return d.quota.limit(filepath.Join(d.Dir, kind), i.Project, 0)
	})
}

// operation makes or removes a volume or a snapshot.
type operation struct {
	from    string // the folder whose content is copied, "" for none
	project uint32
}

// aside does what may take long for the folder of a volume or a snapshot without d.mu, which is held
// before and after.
func (d *Driver) aside(dir, from string, project uint32, do func() error) error {
	if d.busy == nil {
		d.busy = map[string]operation{}
	}
	d.busy[dir] = operation{from, project}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.busy, dir)
	}()
	return do()
}

// pending returns the error of a call for a volume or a snapshot that is being made or removed, or
// whose content is being copied; d.mu is held.
func (d *Driver) pending(kind, id string) error {
	dir := d.path(kind, id)
	_, busy := d.busy[dir]
	for _, o := range d.busy {
		busy = busy || dir != "" && o.from == dir
	}
	if busy {
		return status.Errorf(codes.Aborted, "an operation for %q of the %s is under way", id, kind)
	}
	return nil
}
