package netdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/mount-utils"
	"k8s.io/utils/clock"
	"k8s.io/utils/exec"

	"keelson.dev/keelson/internal/node/statefile"
	"keelson.dev/keelson/internal/node/volume"
)

// record is the file beside a pod's folder.
const record = "disk.json"

// disk is what is known of an attached disk.
type disk struct {
	// ID is the name of the folder that its file system is mounted at.
	ID    string `json:"id"`
	Block bool   `json:"block,omitempty"`
	// Device is the device that was found, empty before.
	Device string `json:"device,omitempty"`
	ISCSI  *iscsi `json:"iscsi,omitempty"`
	FC     *fc    `json:"fc,omitempty"`
}

// transport attaches disks to the machine.
type transport interface {
	// source returns a volume's disk, nil if it has none of this transport.
	source(s *volume.Spec) (d *disk, fsType string, readOnly bool, secret *v1.SecretReference)
	// attach returns the path of the disk's device.
	attach(ctx context.Context, m *machine, d *disk, secret map[string]string) (string, error)
	// detach takes the disk from the machine. others are the disks that remain.
	detach(ctx context.Context, m *machine, d *disk, others []*disk) error
}

// Plugin makes volumes of the disks of one transport.
type Plugin struct {
	kind      string
	transport transport
	root      string // the node's folder
	client    kubernetes.Interface
	machine   *machine

	// mu is held while disks are attached and detached: two pods may come and go
	// with one, and two disks be of one target.
	mu sync.Mutex
}

// machine is where disks are attached.
type machine struct {
	// root is before /dev and /sys; empty but in tests.
	root    string
	exec    exec.Interface
	mounter mount.Interface
	clock   clock.Clock
}

// New returns the plug-ins for a node whose folder is root.
func New(root string, client kubernetes.Interface, c clock.Clock) []volume.Plugin {
	m := &machine{exec: exec.New(), mounter: mount.New(""), clock: c}
	return []volume.Plugin{
		&Plugin{kind: "kubernetes.io/iscsi", transport: overIP{}, root: root, client: client, machine: m},
		&Plugin{kind: "kubernetes.io/fc", transport: overFibre{}, root: root, client: client, machine: m},
	}
}

// Name is kubernetes.io/iscsi or kubernetes.io/fc.
func (p *Plugin) Name() string { return p.kind }

// Supports reports whether the volume is a disk of the transport.
func (p *Plugin) Supports(s *volume.Spec) bool {
	d, _, _, _ := p.transport.source(s)
	return d != nil
}

// Mount attaches the disk, mounts its file system, which it makes if there is none,
// and binds it for the pod.
func (p *Plugin) Mount(ctx context.Context, s *volume.Spec) (volume.Mounted, error) {
	d, fsType, readOnly, ref := p.transport.source(s)
	readOnly = readOnly || s.ReadOnly()
	d.Block = s.Block()
	secret, err := p.secret(ctx, s, ref)
	if err != nil {
		return volume.Mounted{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, err := read(s.Dir); err == nil && old != nil && old.ID == d.ID {
		d.Device = old.Device // by which it is detached if it is not found again
	}
	if err := d.write(s.Dir); err != nil {
		return volume.Mounted{}, err
	}
	device, err := p.transport.attach(ctx, p.machine, d, secret)
	if err != nil {
		return volume.Mounted{}, volume.During("WaitForAttach", err)
	}
	d.Device = device
	if err := d.write(s.Dir); err != nil {
		return volume.Mounted{}, err
	}
	if d.Block {
		return volume.Mounted{Device: device, ReadOnly: readOnly}, nil
	}
	var options []string
	if s.Persistent != nil {
		options = s.Persistent.Spec.MountOptions
	}
	if readOnly {
		options = append([]string{"ro"}, options...)
	}
	global := filepath.Join(p.folder(), d.ID)
	if err := p.once(global, func() error {
		format := &mount.SafeFormatAndMount{Interface: p.machine.mounter, Exec: p.machine.exec}
		return format.FormatAndMount(device, global, fsType, options)
	}); err != nil {
		return volume.Mounted{}, volume.During("MountDevice", err)
	}
	out := volume.Mounted{HostPath: filepath.Join(s.Dir, "mount"), ReadOnly: readOnly, Relabel: true}
	if err := p.once(out.HostPath, func() error {
		bind := []string{"bind"}
		if readOnly {
			bind = append(bind, "ro")
		}
		return p.machine.mounter.Mount(global, out.HostPath, "", bind)
	}); err != nil {
		return volume.Mounted{}, err
	}
	if group := s.FSGroup(); group != nil && !readOnly {
		return out, volume.SetGroup(out.HostPath, *group, s.Pod.Spec.SecurityContext.FSGroupChangePolicy, false)
	}
	return out, nil
}

// once mounts at a folder, which it makes, if nothing is mounted there.
func (p *Plugin) once(dir string, mount func() error) error {
	mounted, err := p.machine.mounter.IsMountPoint(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || mounted {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if err := mount(); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	return nil
}

// secret returns the credentials that a disk is attached with.
func (p *Plugin) secret(ctx context.Context, s *volume.Spec, ref *v1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	namespace := ref.Namespace
	if namespace == "" {
		namespace = s.Pod.Namespace
	}
	o, err := p.client.CoreV1().Secrets(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("couldn't get secret %v/%v err: %w", namespace, ref.Name, err)
	}
	if o.Type != "kubernetes.io/iscsi-chap" {
		return nil, fmt.Errorf("cannot get secret of type %s", "kubernetes.io/iscsi-chap")
	}
	out := map[string]string{}
	for k, v := range o.Data {
		out[k] = string(v)
	}
	return out, nil
}

// folder returns the folder of the node's mounts.
func (p *Plugin) folder() string { return filepath.Join(p.root, "plugins", p.kind) }

// Unmount takes down the pod's folder, and the disk if no other pod has it.
func (p *Plugin) Unmount(ctx context.Context, dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.unmount(filepath.Join(dir, "mount")); err != nil {
		return err
	}
	d, err := read(dir)
	if err != nil {
		// The disk stays attached: its name is lost.
		klog.FromContext(ctx).Error(err, "Unmounting a disk without detaching it", "dir", dir)
		return os.Remove(filepath.Join(dir, record))
	}
	if d == nil {
		return nil
	}
	others, err := p.others(dir)
	if err != nil {
		return err
	}
	for _, o := range others {
		if o.ID == d.ID {
			return os.RemoveAll(dir)
		}
	}
	global := filepath.Join(p.folder(), d.ID)
	if err := p.unmount(global); err != nil {
		return err
	}
	if above := filepath.Dir(global); above != p.folder() {
		_ = os.Remove(above) // another disk of the interface may be in it
	}
	if err := p.transport.detach(ctx, p.machine, d, others); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// unmount unmounts a folder, and removes it.
func (p *Plugin) unmount(dir string) error {
	mounted, err := p.machine.mounter.IsMountPoint(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && mounted {
		err = p.machine.mounter.Unmount(dir)
	}
	if err == nil {
		err = os.Remove(dir)
	}
	return err
}

// others returns the disks of the other pods.
func (p *Plugin) others(dir string) (out []*disk, err error) {
	files, err := filepath.Glob(filepath.Join(p.root, "pods", "*", "volumes", strings.ReplaceAll(p.kind, "/", "~"), "*", record))
	for _, f := range files {
		if filepath.Dir(f) == dir {
			continue
		}
		if d, err := read(filepath.Dir(f)); err == nil && d != nil {
			out = append(out, d)
		}
	}
	return out, err
}

func (d *disk) write(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return statefile.Write(filepath.Join(dir, record), d)
}

// read returns the record in dir, nil if there is none.
func read(dir string) (*disk, error) { return statefile.Read[disk](filepath.Join(dir, record)) }

// run runs a program of the machine, and returns its output.
func (m *machine) run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := m.exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(public(args), " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// public returns arguments of iscsiadm without the values of passwords.
func public(args []string) []string {
	out := append([]string{}, args...)
	for i := range out {
		if i >= 3 && out[i-1] == "-v" && strings.Contains(out[i-2], "password") {
			out[i] = "***"
		}
	}
	return out
}

// multipath returns the device that device mapper has made of a disk's paths, or "".
func (m *machine) multipath(device string) string {
	real, err := filepath.EvalSymlinks(device)
	if err != nil {
		return ""
	}
	holders, _ := filepath.Glob(m.root + "/sys/block/dm-*/slaves/" + filepath.Base(real))
	if len(holders) == 0 {
		return ""
	}
	return m.root + "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(holders[0])))
}

// forget removes a disk's device, and those that it is made of, from the kernel.
func (m *machine) forget(ctx context.Context, device string) error {
	real, err := filepath.EvalSymlinks(device)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is gone
	}
	if err != nil {
		return err
	}
	names := []string{filepath.Base(real)}
	if strings.HasPrefix(names[0], "dm-") {
		slaves, err := filepath.Glob(m.root + "/sys/block/" + names[0] + "/slaves/*")
		if err != nil {
			return err
		}
		if _, err := m.run(ctx, "multipath", "-f", real); err != nil {
			return err
		}
		names = nil
		for _, s := range slaves {
			names = append(names, filepath.Base(s))
		}
	}
	var errs []error
	for _, n := range names {
		if _, err := m.run(ctx, "blockdev", "--flushbufs", m.root+"/dev/"+n); err != nil {
			klog.FromContext(ctx).Info("Flushing a disk failed", "device", n, "err", err)
		}
		if err := m.tell("/sys/block/"+n+"/device/delete", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// tell writes to a file of the kernel's.
func (m *machine) tell(path, text string) error {
	f, err := os.OpenFile(m.root+path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
