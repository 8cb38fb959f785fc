package imagevolume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
)

const (
	// podLabel marks the views of a pod's volumes.
	podLabel = "keelson.dev/pod"
	// rootLabel keeps a snapshot that nothing refers to.
	rootLabel = "containerd.io/gc.root"
	// dataMax is the most that mount(2) takes of options, in bytes: a page.
	dataMax = 4095
)

// Mounter mounts images that containerd has.
type Mounter struct {
	Runtime *cri.Client

	mu          sync.Mutex // over mounts
	snapshotter string
}

// Mount mounts the image of this ID at dir, read-only and without programs that can
// be run, as a volume of the pod. If something is mounted there it does nothing.
func (m *Mounter) Mount(ctx context.Context, image, pod, volume, dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mounted, err := isRoot(dir); err != nil || mounted {
		return err
	}
	ctx, err := m.prepare(ctx)
	if err != nil {
		return err
	}
	top, err := m.top(ctx, image)
	if err != nil {
		return fmt.Errorf("reading the configuration of image %s: %w", image, err)
	}
	client := snapshots.NewSnapshotsClient(m.Runtime.Conn())
	key := "keelson-volume-" + pod + "-" + volume
	var mounts []*types.Mount
	view, err := client.View(ctx, &snapshots.ViewSnapshotRequest{Snapshotter: m.snapshotter, Key: key, Parent: top,
		Labels: map[string]string{podLabel: pod, rootLabel: time.Now().UTC().Format(time.RFC3339)}})
	switch status.Code(err) {
	case codes.OK:
		mounts = view.Mounts
	case codes.AlreadyExists: // left by an agent that ended before the mount
		old, err := client.Mounts(ctx, &snapshots.MountsRequest{Snapshotter: m.snapshotter, Key: key})
		if err != nil {
			return err
		}
		mounts = old.Mounts
	default:
		return fmt.Errorf("a view of the layers of image %s: %w", image, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, mount := range mounts {
		if err := mountAt(mount, dir); err != nil {
			return fmt.Errorf("mounting image %s at %s: %w", image, dir, err)
		}
	}
	return nil
}

// Release removes the views of pods that are not known, whose volumes have been
// unmounted.
func (m *Mounter) Release(ctx context.Context, known func(pod string) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, err := m.prepare(ctx)
	if err != nil {
		return err
	}
	client := snapshots.NewSnapshotsClient(m.Runtime.Conn())
	list, err := client.List(ctx, &snapshots.ListSnapshotsRequest{Snapshotter: m.snapshotter, Filters: []string{`labels."` + podLabel + `"`}})
	if err != nil {
		return err
	}
	var errs []error
	for {
		r, err := list.Recv()
		if errors.Is(err, io.EOF) {
			return errors.Join(errs...)
		}
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for _, s := range r.Info {
			if known(s.Labels[podLabel]) {
				continue
			}
			if _, err := client.Remove(ctx, &snapshots.RemoveSnapshotRequest{Snapshotter: m.snapshotter, Key: s.Name}); err != nil && status.Code(err) != codes.NotFound {
				errs = append(errs, err)
			}
		}
	}
}

// prepare returns a context for calls to containerd itself, in the namespace that it
// keeps CRI's images in.
func (m *Mounter) prepare(ctx context.Context) (context.Context, error) {
	if m.snapshotter == "" {
		r, err := m.Runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
		if err != nil {
			return nil, err
		}
		m.snapshotter = snapshotterOf(r.Info["config"])
	}
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "k8s.io"), nil
}

// snapshotterOf reads the snapshotter from the configuration that containerd's
// CRI plug-in reports.
func snapshotterOf(config string) string {
	var c struct {
		Containerd struct{ Snapshotter string }
	}
	if err := json.Unmarshal([]byte(config), &c); err != nil || c.Containerd.Snapshotter == "" {
		return "overlayfs"
	}
	return c.Containerd.Snapshotter
}

// top returns the snapshot that has all layers of an image, whose ID is the digest of its
// configuration.
func (m *Mounter) top(ctx context.Context, image string) (string, error) {
	stream, err := content.NewContentClient(m.Runtime.Conn()).Read(ctx, &content.ReadContentRequest{Digest: image})
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		b.Write(r.Data)
	}
	var config struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(b.Bytes(), &config); err != nil {
		return "", err
	}
	if len(config.RootFS.DiffIDs) == 0 {
		return "", errors.New("it has no layers")
	}
	return identity.ChainID(config.RootFS.DiffIDs).String(), nil
}

// locked are the flags of all mounts of images.
const locked = unix.MS_RDONLY | unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV

// mountAt mounts what a snapshotter describes.
func mountAt(m *types.Mount, dir string) error {
	if m.Type == "bind" {
		if err := unix.Mount(m.Source, dir, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|locked, ""); err != nil {
			return errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
		}
		return nil
	}
	data := options(m.Options)
	if len(data) > dataMax {
		return fmt.Errorf("it has too many layers: the paths of them are %d bytes long, the kernel takes %d", len(data), dataMax)
	}
	return unix.Mount(m.Source, dir, m.Type, locked, data)
}

// options returns the options for the file system, without ro and rw, which are
// flags of the mount.
func options(all []string) string {
	var out []string
	for _, o := range all {
		if o != "ro" && o != "rw" {
			out = append(out, o)
		}
	}
	return strings.Join(out, ",")
}

// isRoot reports whether dir is the root of a mount.
func isRoot(dir string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, err
}
