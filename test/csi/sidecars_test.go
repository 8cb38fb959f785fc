package csi

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/node/localdriver"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realnode"
)

const namespace, node = "default", "node"

var (
	crds      = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	snapshots = schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshots"}
	contents  = schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshotcontents"}
	classes   = schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshotclasses"}
)

// suite is a cluster with a node that runs containers, with the built-in local driver,
// the driver attached, and the sidecars of both.
type suite struct {
	testing.TB
	cfg     *rest.Config
	client  *kubernetes.Clientset
	dynamic dynamic.Interface
	driver  *attached
	// local is the folder of the local driver's volumes.
	local string
}

// must ends the test if there is an error.
func must[V any](t testing.TB) func(V, error) V {
	return func(v V, err error) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func start(t testing.TB) *suite {
	t.Helper()
	n := realnode.StartApart(t, agent.Options{})
	folder := filepath.Join(filepath.Dir(n.Logs), "node") // the agent's
	dir := must[string](t)(os.MkdirTemp("", "csi"))       // a socket's path is short
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &suite{TB: t, cfg: n.Config, client: kubernetes.NewForConfigOrDie(n.Config), dynamic: dynamic.NewForConfigOrDie(n.Config), local: filepath.Join(folder, "volumes")}
	s.install()
	socket := filepath.Join(dir, "csi.sock")
	s.driver = serveAttached(t, filepath.Join(dir, "driver"), socket, filepath.Join(folder, "plugins_registry", "attached-reg.sock"))
	local := filepath.Join(folder, "plugins", localdriver.Name, "csi.sock")
	harness.Eventually(t, "the local driver's socket", func() bool { _, err := os.Stat(local); return err == nil })

	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := harness.WriteKubeconfig(kubeconfig, n.Config); err != nil {
		t.Fatal(err)
	}
	elect := []string{"--leader-election", "--leader-election-namespace=" + namespace}
	s.run(kubeconfig, "snapshot-controller", append(elect, "--enable-distributed-snapshotting")...)
	for _, sidecar := range []string{"csi-provisioner", "csi-attacher", "csi-resizer", "csi-snapshotter"} {
		s.run(kubeconfig, sidecar, append(elect, "--csi-address="+socket)...)
	}
	s.run(kubeconfig, "csi-snapshotter", "--csi-address="+local, "--node-deployment")
	return s
}

// run runs a sidecar until the end of the test. Its log is the test's if that fails.
func (s *suite) run(kubeconfig, name string, args ...string) {
	s.Helper()
	cmd := exec.Command(filepath.Join(os.Getenv(programs), name), append([]string{"--kubeconfig=" + kubeconfig, "-v=2"}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_NAME="+node)
	var log lines
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s.Cleanup(func() {
		select {
		case err := <-ended:
			s.Errorf("%s has ended: %v", name, err)
		default:
			_ = cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				_ = cmd.Process.Kill()
				<-ended
			}
		}
		if s.Failed() {
			s.Logf("%s %s:\n%s", name, args, log.last(40))
		}
	})
}

// lines is what a program has written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) last(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(strings.TrimSpace(l.text.String()), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

// install makes the objects that a driver's chart has, and the CRDs of snapshots.
func (s *suite) install() {
	s.Helper()
	ctx := s.Context()
	for _, f := range must[[]string](s)(filepath.Glob(filepath.Join(os.Getenv(programs), "crd", "*snapshot.*.yaml"))) {
		o := map[string]any{}
		if err := yaml.Unmarshal(must[[]byte](s)(os.ReadFile(f)), &o); err != nil {
			s.Fatal(err)
		}
		must[*unstructured.Unstructured](s)(s.dynamic.Resource(crds).Create(ctx, &unstructured.Unstructured{Object: o}, metav1.CreateOptions{}))
	}
	must[*storage.CSIDriver](s)(s.client.StorageV1().CSIDrivers().Create(ctx, &storage.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: attachedName},
		Spec: storage.CSIDriverSpec{AttachRequired: ptr.To(true), FSGroupPolicy: ptr.To(storage.FileFSGroupPolicy)}}, metav1.CreateOptions{}))
	must[*storage.StorageClass](s)(s.client.StorageV1().StorageClasses().Create(ctx, &storage.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "attached"},
		Provisioner: attachedName, AllowVolumeExpansion: ptr.To(true), VolumeBindingMode: ptr.To(storage.VolumeBindingWaitForFirstConsumer)}, metav1.CreateOptions{}))
	for _, speed := range []string{"slow", "fast"} {
		must[*storage.VolumeAttributesClass](s)(s.client.StorageV1().VolumeAttributesClasses().Create(ctx, &storage.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: speed},
			DriverName: attachedName, Parameters: map[string]string{"speed": speed}}, metav1.CreateOptions{}))
	}
	for class, driver := range map[string]string{"attached": attachedName, "local": localdriver.Name} {
		harness.Succeeds(s, "the API of snapshots", func() error {
			_, err := s.dynamic.Resource(classes).Create(ctx, &unstructured.Unstructured{Object: map[string]any{"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
				"metadata": map[string]any{"name": class}, "driver": driver, "deletionPolicy": "Delete"}}, metav1.CreateOptions{})
			return err
		})
	}
}

// claim makes a claim of a class, with the content of source if there is one, and a
// pod of the same name that has it at /data, and returns when the pod runs.
func (s *suite) claim(name, class, size string, source *v1.TypedLocalObjectReference, change ...func(*v1.PersistentVolumeClaim)) {
	s.Helper()
	c := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PersistentVolumeClaimSpec{
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, StorageClassName: &class, DataSource: source,
		Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse(size)}}}}
	for _, f := range change {
		f(c)
	}
	must[*v1.PersistentVolumeClaim](s)(s.client.CoreV1().PersistentVolumeClaims(namespace).Create(s.Context(), c, metav1.CreateOptions{}))
	must[*v1.Pod](s)(s.client.CoreV1().Pods(namespace).Create(s.Context(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](1), SecurityContext: &v1.PodSecurityContext{RunAsUser: ptr.To[int64](1000), FSGroup: ptr.To[int64](2000)},
		Containers: []v1.Container{{Name: "c", Image: "keelson.local/demo", Command: []string{"/bin/demo", "sleep"}, VolumeMounts: []v1.VolumeMount{{Name: "v", MountPath: "/data"}}}},
		Volumes:    []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}},
	}}, metav1.CreateOptions{}))
	defer func() {
		if s.Failed() {
			s.events()
		}
	}()
	harness.Succeeds(s, "pod "+name+" to run", func() error {
		p, err := s.client.CoreV1().Pods(namespace).Get(s.Context(), name, metav1.GetOptions{})
		if err == nil && p.Status.Phase != v1.PodRunning {
			err = fmt.Errorf("%s: %v", p.Status.Phase, p.Status.Conditions)
		}
		return err
	})
}

// events logs the cluster's events.
func (s *suite) events() {
	all, err := s.client.CoreV1().Events("").List(context.WithoutCancel(s.Context()), metav1.ListOptions{})
	if err != nil {
		return
	}
	for _, e := range all.Items {
		s.Logf("%s %s/%s: %s: %s", e.Type, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
}

func (s *suite) get(name string) *v1.PersistentVolumeClaim {
	s.Helper()
	return must[*v1.PersistentVolumeClaim](s)(s.client.CoreV1().PersistentVolumeClaims(namespace).Get(s.Context(), name, metav1.GetOptions{}))
}

// handle returns the driver's ID of a claim's volume.
func (s *suite) handle(claim string) string {
	s.Helper()
	return must[*v1.PersistentVolume](s)(s.client.CoreV1().PersistentVolumes().Get(s.Context(), s.get(claim).Spec.VolumeName, metav1.GetOptions{})).Spec.CSI.VolumeHandle
}

// change changes a claim.
func (s *suite) change(name string, f func(*v1.PersistentVolumeClaim)) {
	s.Helper()
	harness.Succeeds(s, "the change of claim "+name, func() error {
		c := s.get(name)
		f(c)
		_, err := s.client.CoreV1().PersistentVolumeClaims(namespace).Update(s.Context(), c, metav1.UpdateOptions{})
		if err != nil && !apierrors.IsConflict(err) {
			s.Fatal(err)
		}
		return err
	})
}

// exec runs a command in a pod.
func (s *suite) exec(pod string, command ...string) string {
	s.Helper()
	req := s.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&v1.PodExecOptions{Command: append([]string{"/bin/demo"}, command...), Stdout: true, Stderr: true}, scheme.ParameterCodec)
	x, err := remotecommand.NewWebSocketExecutor(s.cfg, "GET", req.URL().String())
	if err != nil {
		s.Fatal(err)
	}
	var out, errOut bytes.Buffer
	ctx, cancel := context.WithTimeout(s.Context(), harness.Patience)
	defer cancel()
	if err := x.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut}); err != nil {
		s.Fatalf("%v: %v: %s", command, err, errOut.String())
	}
	return out.String()
}

// snapshot makes a snapshot of a claim, and returns when it can be used.
func (s *suite) snapshot(name, class, claim string) {
	s.Helper()
	all := s.dynamic.Resource(snapshots).Namespace(namespace)
	must[*unstructured.Unstructured](s)(all.Create(s.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"volumeSnapshotClassName": class, "source": map[string]any{"persistentVolumeClaimName": claim}}}}, metav1.CreateOptions{}))
	harness.Succeeds(s, "snapshot "+name, func() error {
		u, err := all.Get(s.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if ready, _, _ := unstructured.NestedBool(u.Object, "status", "readyToUse"); !ready {
			return fmt.Errorf("%v", u.Object["status"])
		}
		return nil
	})
}

// of returns the reference to a snapshot as a claim's source.
func of(snapshot string) *v1.TypedLocalObjectReference {
	return &v1.TypedLocalObjectReference{APIGroup: ptr.To(snapshots.Group), Kind: "VolumeSnapshot", Name: snapshot}
}

// mounts returns the mounts below a folder.
func (s *suite) mounts(dir string) (out []string) {
	s.Helper()
	for line := range strings.Lines(string(must[[]byte](s)(os.ReadFile("/proc/self/mountinfo")))) {
		if f := strings.Fields(line); len(f) > 4 && (strings.HasPrefix(f[4], dir) || strings.HasPrefix(f[3], dir)) {
			out = append(out, f[3]+" at "+f[4])
		}
	}
	return out
}

// end deletes the pods and claims of these names, and the snapshots, and returns when
// nothing is left of their volumes.
func (s *suite) end(names []string, snaps ...string) {
	s.Helper()
	for _, name := range names {
		if err := s.client.CoreV1().Pods(namespace).Delete(s.Context(), name, metav1.DeleteOptions{}); err != nil {
			s.Fatal(err)
		}
		if err := s.client.CoreV1().PersistentVolumeClaims(namespace).Delete(s.Context(), name, metav1.DeleteOptions{}); err != nil {
			s.Fatal(err)
		}
	}
	for _, name := range snaps {
		if err := s.dynamic.Resource(snapshots).Namespace(namespace).Delete(s.Context(), name, metav1.DeleteOptions{}); err != nil {
			s.Fatal(err)
		}
	}
	defer func() {
		if s.Failed() {
			s.events()
		}
	}()
	harness.Succeeds(s, "the end of all volumes and snapshots", s.nothing)
}

// nothing tells of volumes and snapshots of which something is left.
func (s *suite) nothing() error {
	ctx := s.Context()
	claims, err := s.client.CoreV1().PersistentVolumeClaims(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	volumes, err := s.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	attachments, err := s.client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	n, err := s.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	kept, err := s.dynamic.Resource(contents).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if a, b, c, d, e, f := len(claims.Items), len(volumes.Items), len(attachments.Items), len(kept.Items), len(n.Status.VolumesAttached), len(n.Status.VolumesInUse); a+b+c+d+e+f > 0 {
		return fmt.Errorf("%d claims, %d volumes, %d attachments, %d contents of snapshots; of the node %d attached, %d in use", a, b, c, d, e, f)
	}
	files, err := s.driver.left()
	if err != nil {
		return err
	}
	local, err := filepath.Glob(filepath.Join(s.local, "*", "*"))
	if err != nil {
		return err
	}
	state := s.driver.state()
	if len(files)+len(local) > 0 || state != "attached map[], staged map[]" {
		return fmt.Errorf("files %v, %v; %s", files, local, state)
	}
	if left := append(s.mounts(s.driver.Dir), s.mounts(s.local)...); len(left) > 0 {
		return fmt.Errorf("mounts %v", left)
	}
	return nil
}

// TestSidecars: the CSI project's programs, unchanged and with the election of a
// leader, work with this control plane and node as with others.
func TestSidecars(t *testing.T) {
	s := start(t)
	for name, f := range map[string]func(*suite){"Attached": (*suite).attached, "Local": (*suite).snapshotsOfLocal} {
		if !t.Run(name, func(t *testing.T) {
			next := *s
			next.TB = t
			f(&next)
		}) {
			return // it has left its claims
		}
	}
	leases := must[[]string](t)(func() (out []string, err error) {
		all, err := s.client.CoordinationV1().Leases(namespace).List(t.Context(), metav1.ListOptions{})
		for _, l := range all.Items {
			if ptr.Deref(l.Spec.HolderIdentity, "") != "" {
				out = append(out, l.Name)
			}
		}
		return out, err
	}())
	if len(leases) != len(sidecars) {
		t.Errorf("the leases of leaders: %v, want one of each of %v", leases, sidecars)
	}
}

// attached has a volume provisioned, attached, staged and published, grown and modified
// while it is in use, kept as a snapshot, restored, cloned and deleted.
func (s *suite) attached() {
	s.claim("data", "attached", "10Mi", nil, func(c *v1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = ptr.To("slow") })
	s.exec("data", "write", "/data/file", "text")
	id := s.handle("data")
	n := must[*v1.Node](s)(s.client.CoreV1().Nodes().Get(s.Context(), node, metav1.GetOptions{}))
	if name := v1.UniqueVolumeName("kubernetes.io/csi/" + attachedName + "^" + id); len(n.Status.VolumesAttached) != 1 || n.Status.VolumesAttached[0].Name != name || len(n.Status.VolumesInUse) != 1 || n.Status.VolumesInUse[0] != name {
		s.Errorf("the node has attached %v, in use %v", n.Status.VolumesAttached, n.Status.VolumesInUse)
	}
	if got := s.driver.parameter(id, "speed"); got != "slow" {
		s.Errorf("the volume is made with the speed %q", got)
	}

	want := resource.MustParse("20Mi")
	s.change("data", func(c *v1.PersistentVolumeClaim) { c.Spec.Resources.Requests[v1.ResourceStorage] = want })
	harness.Succeeds(s, "the growth of the claim", func() error {
		c := s.get("data")
		if have := c.Status.Capacity[v1.ResourceStorage]; have.Cmp(want) != 0 || volume.Grows(c) {
			return fmt.Errorf("%s %v %v", have.String(), c.Status.Conditions, c.Status.AllocatedResourceStatuses)
		}
		return nil
	})
	if got := s.driver.size(id); got != want.Value() {
		s.Errorf("the node's part of the volume has %d bytes", got)
	}

	s.change("data", func(c *v1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = ptr.To("fast") })
	harness.Succeeds(s, "the change of the volume's class", func() error {
		c := s.get("data")
		if got := ptr.Deref(c.Status.CurrentVolumeAttributesClassName, ""); got != "fast" {
			return fmt.Errorf("%q %v", got, c.Status.ModifyVolumeStatus)
		}
		return nil
	})
	if got := s.driver.parameter(id, "speed"); got != "fast" {
		s.Errorf("the volume has the speed %q", got)
	}

	s.snapshot("snap", "attached", "data")
	s.exec("data", "write", "/data/file", "later")
	s.claim("restored", "attached", "20Mi", of("snap"))
	if got := s.exec("restored", "cat", "/data/file"); got != "text" {
		s.Errorf("what is restored has %q", got)
	}
	s.claim("clone", "attached", "20Mi", &v1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "data"})
	if got := s.exec("clone", "cat", "/data/file"); got != "later" {
		s.Errorf("the clone has %q", got)
	}
	s.end([]string{"data", "restored", "clone"}, "snap")
}

// snapshotsOfLocal has the built-in driver's volumes kept as snapshots, and restored.
func (s *suite) snapshotsOfLocal() {
	s.claim("data", "local", "10Mi", nil)
	s.exec("data", "write", "/data/file", "text")
	s.snapshot("snap", "local", "data")
	s.exec("data", "write", "/data/file", "later")
	s.claim("restored", "local", "10Mi", of("snap"))
	if got := s.exec("restored", "cat", "/data/file"); got != "text" {
		s.Errorf("what is restored has %q", got)
	}
	s.end([]string{"data", "restored"}, "snap")
}
