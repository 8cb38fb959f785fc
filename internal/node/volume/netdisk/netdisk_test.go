package netdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/mount-utils"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/exec"

	"keelson.dev/keelson/internal/node/volume"
)

// programs are a machine's: they note what is run, and do what run says.
type programs struct {
	exec.Interface
	ran []string
	run func(command string) (string, error)
}

// command is one of these.
type command struct {
	exec.Cmd
	of   *programs
	text string
}

func (p *programs) CommandContext(_ context.Context, name string, args ...string) exec.Cmd {
	return &command{of: p, text: name + " " + strings.Join(args, " ")}
}

func (p *programs) Command(name string, args ...string) exec.Cmd {
	return p.CommandContext(context.Background(), name, args...)
}

func (c *command) CombinedOutput() ([]byte, error) {
	c.of.ran = append(c.of.ran, c.text)
	out, err := c.of.run(c.text)
	return []byte(out), err
}
func (*command) SetStdin(io.Reader) {}

// take returns what has been run, and forgets it.
func (p *programs) take() []string {
	out := p.ran
	p.ran = nil
	return out
}

type suite struct {
	*Plugin
	t     *testing.T
	run   *programs
	mount *mount.FakeMounter
}

// start returns a plug-in on a machine whose /dev and /sys are in a folder.
func start(t *testing.T, tr transport, kind string, objects ...*v1.Secret) *suite {
	t.Helper()
	client := fake.NewClientset()
	for _, o := range objects {
		if err := client.Tracker().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	run := &programs{run: func(string) (string, error) { return "", nil }}
	m := &machine{root: t.TempDir(), exec: run, mounter: mount.NewFakeMounter(nil), clock: clocktesting.NewFakeClock(time.Now())}
	return &suite{&Plugin{kind: kind, transport: tr, root: t.TempDir(), client: client, machine: m}, t, run, m.mounter.(*mount.FakeMounter)}
}

func (s *suite) file(path, text string) {
	s.t.Helper()
	path = filepath.Join(s.machine.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *suite) link(path, to string) {
	s.t.Helper()
	path = filepath.Join(s.machine.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(s.machine.root, to), path); err != nil && !errors.Is(err, os.ErrExist) {
		s.t.Fatal(err)
	}
}

func (s *suite) read(path string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.machine.root, path))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *suite) spec(uid types.UID, v v1.VolumeSource) *volume.Spec {
	return &volume.Spec{Pod: &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Namespace: "ns"}}, Volume: &v1.Volume{Name: "v", VolumeSource: v},
		Dir: filepath.Join(s.root, "pods", string(uid), "volumes", strings.ReplaceAll(s.kind, "/", "~"), "v")}
}

// mounts returns what is mounted, as device at path.
func (s *suite) mounts() (out []string) {
	for _, m := range s.mount.MountPoints {
		out = append(out, strings.ReplaceAll(strings.ReplaceAll(m.Device+" at "+m.Path, s.machine.root, ""), s.root, "~"))
	}
	return out
}

// session makes what the kernel shows of a session by a portal.
func (s *suite) session(n int, iqn, address, port string) {
	s.file(fmt.Sprintf("sys/class/iscsi_session/session%d/targetname", n), iqn+"\n")
	s.file(fmt.Sprintf("sys/class/iscsi_connection/connection%d:0/persistent_address", n), address+"\n")
	s.file(fmt.Sprintf("sys/class/iscsi_connection/connection%d:0/persistent_port", n), port+"\n")
	s.file(fmt.Sprintf("sys/devices/platform/host%d/session%d/x", n, n), "")
	s.link(fmt.Sprintf("sys/class/iscsi_session/session%d/device", n), fmt.Sprintf("sys/devices/platform/host%d/session%d", n, n))
	s.file(fmt.Sprintf("sys/class/scsi_host/host%d/scan", n), "")
}

// disk makes a disk with its link below /dev/disk.
func (s *suite) disk(name, link string) {
	s.file("dev/"+name, "")
	s.file("sys/block/"+name+"/device/delete", "")
	s.link("dev/disk/"+link, "dev/"+name)
}

const iqn = "iqn.2026-11.dev.keelson:disk"

// TestISCSI checks the commands by which a disk of two portals is attached with CHAP and
// an initiator of its own, used by two pods, and detached with the last one.
func TestISCSI(t *testing.T) {
	secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "chap"}, Type: "kubernetes.io/iscsi-chap",
		Data: map[string][]byte{"node.session.auth.username": []byte("u"), "node.session.auth.password": []byte("p")}}
	s := start(t, overIP{}, "kubernetes.io/iscsi", secret)
	s.run.run = func(c string) (string, error) {
		switch {
		case strings.HasSuffix(c, "-o show"):
			return "iface.iscsi_ifacename = default\niface.transport_name = tcp\niface.initiatorname = <empty>\n", nil
		case strings.Contains(c, "10.0.0.1:3260") && strings.HasSuffix(c, "--login"):
			s.session(1, iqn, "10.0.0.1", "3260")
			s.disk("sda", "by-path/ip-10.0.0.1:3260-iscsi-"+iqn+"-lun-2")
		case strings.Contains(c, "10.0.0.2:3261") && strings.HasSuffix(c, "--discover"):
			return "iscsiadm: cannot make connection", errors.New("exit status 4")
		}
		return "", nil
	}
	source := v1.VolumeSource{ISCSI: &v1.ISCSIVolumeSource{TargetPortal: "10.0.0.1", Portals: []string{"10.0.0.2:3261"}, IQN: iqn, Lun: 2,
		SessionCHAPAuth: true, SecretRef: &v1.LocalObjectReference{Name: "chap"}, InitiatorName: new("iqn.own")}}
	a, b := s.spec("a", source), s.spec("b", source)
	m, err := s.Mount(t.Context(), a)
	if err != nil || m.HostPath != a.Dir+"/mount" {
		t.Fatalf("%+v, %v", m, err)
	}
	face := "10.0.0.1:3260:v"
	db, node := "iscsiadm -m discoverydb -t sendtargets -p 10.0.0.1:3260 -I "+face, "iscsiadm -m node -p 10.0.0.1:3260 -T "+iqn+" -I "+face
	other := strings.ReplaceAll(db, "-p 10.0.0.1:3260", "-p 10.0.0.2:3261")
	want := []string{
		"iscsiadm -m iface -I default -o show", "iscsiadm -m iface -I " + face + " -o new",
		"iscsiadm -m iface -I " + face + " -o update -n iface.transport_name -v tcp", "iscsiadm -m iface -I " + face + " -o update -n iface.initiatorname -v iqn.own",
		db + " -o new", db + " --discover",
		node + " -o update -n node.session.auth.authmethod -v CHAP", node + " -o update -n node.session.auth.username -v u", node + " -o update -n node.session.auth.password -v p",
		node + " --login", node + " -o update -n node.startup -v manual",
		other + " -o new", other + " --discover", other + " -o delete",
	}
	if got := s.run.take(); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("ran\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := s.read("sys/class/scsi_host/host1/scan"); got != "0 0 2" {
		t.Errorf("the host scans %q", got)
	}
	if _, err := s.Mount(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := s.run.take(); slices.ContainsFunc(got, func(c string) bool { return strings.Contains(c, "login") && strings.Contains(c, "10.0.0.1:3260 -T") }) {
		t.Errorf("a second login: %v", got)
	}
	device := "/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-" + iqn + "-lun-2 at ~/"
	if got := s.mounts(); !slices.Equal(got, []string{device + "plugins/kubernetes.io/iscsi/iface-" + face + "/10.0.0.1:3260-" + iqn + "-lun-2",
		device + "pods/a/volumes/kubernetes.io~iscsi/v/mount", device + "pods/b/volumes/kubernetes.io~iscsi/v/mount"}) {
		t.Errorf("mounted: %q", got)
	}
	if err := s.Unmount(t.Context(), a.Dir); err != nil {
		t.Fatal(err)
	}
	if got := s.run.take(); len(got) != 0 || len(s.mounts()) != 2 {
		t.Errorf("with a pod that has the disk still: ran %v, mounted %v", got, s.mounts())
	}
	if err := s.Unmount(t.Context(), b.Dir); err != nil {
		t.Fatal(err)
	}
	second := strings.ReplaceAll(node, "-p 10.0.0.1:3260", "-p 10.0.0.2:3261")
	want = []string{"blockdev --flushbufs " + s.machine.root + "/dev/sda", node + " --logout", node + " -o delete", second + " --logout", second + " -o delete", "iscsiadm -m iface -I " + face + " -o delete"}
	if got := s.run.take(); !slices.Equal(got, want) || len(s.mounts()) != 0 || s.read("sys/block/sda/device/delete") != "1" {
		t.Errorf("at the end: ran\n%s\nwant\n%s\nmounted %v", strings.Join(got, "\n"), strings.Join(want, "\n"), s.mounts())
	}
	for _, dir := range []string{b.Dir, filepath.Join(s.root, "plugins", s.kind)} {
		if left, err := os.ReadDir(dir); err != nil && !errors.Is(err, os.ErrNotExist) || len(left) > 0 {
			t.Errorf("left in %s: %v (%v)", dir, left, err)
		}
	}
}

// TestMissing checks that a machine without iscsiadm says so, in upstream's words, that
// a password is not told, and that what failed is taken down.
func TestMissing(t *testing.T) {
	s := start(t, overIP{}, "kubernetes.io/iscsi")
	s.run.run = func(string) (string, error) {
		return "", errors.New(`exec: "iscsiadm": executable file not found in $PATH`)
	}
	spec := s.spec("a", v1.VolumeSource{ISCSI: &v1.ISCSIVolumeSource{TargetPortal: "10.0.0.1", IQN: iqn}})
	_, err := s.Mount(t.Context(), spec)
	if err == nil {
		t.Fatal("a disk is attached without iscsiadm")
	}
	if got := volume.Message("v", err); !strings.HasPrefix(got, `MountVolume.WaitForAttach failed for volume "v" : `) || !strings.Contains(got, `exec: "iscsiadm": executable file not found in $PATH`) {
		t.Errorf("message: %s", got)
	}
	s.run.run = func(string) (string, error) { return "", errors.New("exit status 21") }
	if err := s.Unmount(t.Context(), spec.Dir); err != nil {
		t.Error(err)
	}
	if got := public([]string{"-o", "update", "-n", "node.session.auth.password", "-v", "geheim"}); slices.Contains(got, "geheim") {
		t.Errorf("told: %v", got)
	}
}

// TestFC checks that a disk is found by its targets or its own name, through
// multipathd where that has it, and removed from the kernel at the end.
func TestFC(t *testing.T) {
	wwn := v1.VolumeSource{FC: &v1.FCVolumeSource{TargetWWNs: []string{"50060E801049CFD1", "50060e801049cfd2"}, Lun: new(int32(0)), FSType: "xfs"}}
	for _, c := range []struct {
		name    string
		source  v1.VolumeSource
		machine func(*suite)
		device  string
		ran     []string // at the end
		deleted []string
	}{
		{"one path", wwn, func(s *suite) { s.disk("sdb", "by-path/pci-0000:41:00.0-fc-0x50060e801049cfd1-lun-0") }, "/dev/disk/by-path/pci-0000:41:00.0-fc-0x50060e801049cfd1-lun-0",
			[]string{"blockdev --flushbufs /dev/sdb"}, []string{"sdb"}},
		{"its own name", v1.VolumeSource{FC: &v1.FCVolumeSource{WWIDs: []string{"3600508b400105e210000900000490000"}}}, func(s *suite) { s.disk("sdb", "by-id/scsi-3600508b400105e210000900000490000") },
			"/dev/disk/by-id/scsi-3600508b400105e210000900000490000", []string{"blockdev --flushbufs /dev/sdb"}, []string{"sdb"}},
		{"multipath", wwn, func(s *suite) {
			s.disk("sdb", "by-path/fc-0x50060e801049cfd1-lun-0")
			s.disk("sdc", "by-path/fc-0x50060e801049cfd2-lun-0")
			s.file("dev/dm-1", "")
			s.file("sys/block/dm-1/slaves/sdb", "")
			s.file("sys/block/dm-1/slaves/sdc", "")
		}, "/dev/dm-1", []string{"multipath -f /dev/dm-1", "blockdev --flushbufs /dev/sdb", "blockdev --flushbufs /dev/sdc"}, []string{"sdb", "sdc"}},
		{"none", wwn, func(s *suite) { s.disk("sdb", "by-path/fc-0x50060e801049cfd1-lun-1") }, "", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, overFibre{}, "kubernetes.io/fc")
			c.machine(s)
			s.file("sys/class/scsi_host/host3/scan", "")
			spec := s.spec("a", c.source)
			_, err := s.Mount(t.Context(), spec)
			if c.device == "" {
				if err == nil || volume.Message("v", err) != `MountVolume.WaitForAttach failed for volume "v" : no fc disk found` || s.read("sys/class/scsi_host/host3/scan") != "- - -" {
					t.Errorf("%v; the host scans %q", err, s.read("sys/class/scsi_host/host3/scan"))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d, err := read(spec.Dir)
			if err != nil || strings.TrimPrefix(d.Device, s.machine.root) != c.device || len(s.mounts()) != 2 {
				t.Errorf("%+v (%v), mounted %v", d, err, s.mounts())
			}
			s.run.take()
			if err := s.Unmount(t.Context(), spec.Dir); err != nil {
				t.Fatal(err)
			}
			ran := s.run.take()
			for i := range ran {
				ran[i] = strings.ReplaceAll(ran[i], s.machine.root, "")
			}
			if !slices.Equal(ran, c.ran) || len(s.mounts()) != 0 {
				t.Errorf("ran %q, want %q; mounted %v", ran, c.ran, s.mounts())
			}
			for _, d := range c.deleted {
				if s.read("sys/block/"+d+"/device/delete") != "1" {
					t.Errorf("%s is not removed", d)
				}
			}
		})
	}
}
