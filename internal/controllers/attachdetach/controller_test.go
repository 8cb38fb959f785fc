package attachdetach

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

var source = &v1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}

type suite struct {
	*controllertest.Cluster
	t *testing.T
}

// run starts the controller on nodes n1 and n2, with a volume v that the claim c
// has.
func run(t *testing.T, f func(s suite)) {
	synctest.Test(t, func(t *testing.T) {
		s := suite{controllertest.New(t, New), t}
		for _, n := range []string{"n1", "n2"} {
			controllertest.Must[*v1.Node](t)(s.Client.CoreV1().Nodes().Create(ctx, &v1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: n, Annotations: map[string]string{managed: "true"}},
				Status:     v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}},
			}, metav1.CreateOptions{}))
		}
		c := controllertest.Must[*v1.PersistentVolumeClaim](t)(s.Client.CoreV1().PersistentVolumeClaims("ns").Create(ctx, &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}, Spec: v1.PersistentVolumeClaimSpec{VolumeName: "v"}, Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound},
		}, metav1.CreateOptions{}))
		controllertest.Must[*v1.PersistentVolume](t)(s.Client.CoreV1().PersistentVolumes().Create(ctx, &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: v1.PersistentVolumeSpec{
				AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, PersistentVolumeSource: v1.PersistentVolumeSource{CSI: source},
				ClaimRef: &v1.ObjectReference{Namespace: "ns", Name: "c", UID: c.UID},
			},
		}, metav1.CreateOptions{}))
		f(s)
	})
}

func (s suite) pod(name, node string) {
	s.t.Helper()
	controllertest.Must[*v1.Pod](s.t)(s.Client.CoreV1().Pods("ns").Create(ctx, &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: v1.PodSpec{NodeName: node, Volumes: []v1.Volume{{Name: "x", VolumeSource: v1.VolumeSource{
			PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}},
	}, metav1.CreateOptions{}))
	synctest.Wait()
}

func (s suite) deletePod(name string) {
	s.t.Helper()
	controllertest.Must[any](s.t)(nil, s.Client.CoreV1().Pods("ns").Delete(ctx, name, metav1.DeleteOptions{}))
	synctest.Wait()
}

// attach sets the status of an attachment, as a driver's attacher does.
func (s suite) attach(node string, status storage.VolumeAttachmentStatus) {
	s.t.Helper()
	va := controllertest.Must[*storage.VolumeAttachment](s.t)(s.Client.StorageV1().VolumeAttachments().Get(ctx, Name(source, node), metav1.GetOptions{}))
	va.Status = status
	controllertest.Must[*storage.VolumeAttachment](s.t)(s.Client.StorageV1().VolumeAttachments().UpdateStatus(ctx, va, metav1.UpdateOptions{}))
	synctest.Wait()
}

// node changes a node's status and taints.
func (s suite) node(name string, change func(*v1.Node)) {
	s.t.Helper()
	n := controllertest.Must[*v1.Node](s.t)(s.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}))
	change(n)
	controllertest.Must[*v1.Node](s.t)(s.Client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{}))
	synctest.Wait()
}

func use(n *v1.Node) { n.Status.VolumesInUse = []v1.UniqueVolumeName{UniqueName(source)} }

// want checks the nodes that the volume is to be attached to, and those that
// report it as attached.
func (s suite) want(attachments, reported []string) {
	s.t.Helper()
	synctest.Wait()
	list := controllertest.Must[*storage.VolumeAttachmentList](s.t)(s.Client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{}))
	if len(list.Items) != len(attachments) {
		s.t.Errorf("%d attachments, want %v", len(list.Items), attachments)
	}
	for _, n := range attachments {
		controllertest.Must[*storage.VolumeAttachment](s.t)(s.Client.StorageV1().VolumeAttachments().Get(ctx, Name(source, n), metav1.GetOptions{}))
	}
	for _, name := range []string{"n1", "n2"} {
		n := controllertest.Must[*v1.Node](s.t)(s.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}))
		want := 0
		for _, r := range reported {
			if r == name {
				want = 1
			}
		}
		if len(n.Status.VolumesAttached) != want || want == 1 && n.Status.VolumesAttached[0].Name != "kubernetes.io/csi/d^h" {
			s.t.Errorf("node %s: attached %v, want %d", name, n.Status.VolumesAttached, want)
		}
	}
}

func TestLife(t *testing.T) {
	run(t, func(s suite) {
		s.pod("p", "n1")
		s.want([]string{"n1"}, nil)
		s.attach("n1", storage.VolumeAttachmentStatus{AttachError: &storage.VolumeError{Message: "no luck"}})
		s.HasEvent(`Warning FailedAttachVolume AttachVolume.Attach failed for volume "v" : no luck`)
		s.attach("n1", storage.VolumeAttachmentStatus{Attached: true})
		s.want([]string{"n1"}, []string{"n1"})
		s.HasEvent(`Normal SuccessfulAttachVolume AttachVolume.Attach succeeded for volume "v" `)
		s.node("n1", use)
		s.deletePod("p")
		s.want([]string{"n1"}, []string{"n1"}) // the node still uses it
		s.Restart()
		s.want([]string{"n1"}, []string{"n1"})
		s.node("n1", func(n *v1.Node) { n.Status.VolumesInUse = nil })
		s.want(nil, nil)
	})
}

func TestTaken(t *testing.T) {
	run(t, func(s suite) {
		s.pod("a", "n1")
		s.attach("n1", storage.VolumeAttachmentStatus{Attached: true})
		s.pod("b", "n2")
		s.want([]string{"n1"}, []string{"n1"})
		s.HasEvent(`Warning FailedAttachVolume Multi-Attach error for volume "v" Volume is already used by pod(s) a`)
		s.deletePod("a")
		s.want([]string{"n2"}, nil)
	})
}

// TestForce checks that a volume that a node uses is detached after six minutes
// without a heartbeat, or when the node has the out-of-service taint.
func TestForce(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*v1.Node)
		after  time.Duration
		gone   bool
	}{
		"healthy":   {func(*v1.Node) {}, time.Hour, false},
		"unhealthy": {func(n *v1.Node) { n.Status.Conditions[0].Status = v1.ConditionUnknown }, maxUnmount + time.Second, true},
		"not long":  {func(n *v1.Node) { n.Status.Conditions[0].Status = v1.ConditionUnknown }, maxUnmount - time.Second, false},
		"out of service": {func(n *v1.Node) {
			n.Spec.Taints = []v1.Taint{{Key: v1.TaintNodeOutOfService, Effect: v1.TaintEffectNoExecute}}
		}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(s suite) {
				s.pod("p", "n1")
				s.attach("n1", storage.VolumeAttachmentStatus{Attached: true})
				s.node("n1", use)
				s.deletePod("p")
				s.node("n1", c.change)
				s.Advance(c.after)
				if c.gone {
					s.want(nil, nil)
				} else {
					s.want([]string{"n1"}, []string{"n1"})
				}
			})
		})
	}
}

// TestNotAttached checks that volumes of drivers that need no attaching have no
// attachment, and that attachments that others made stay.
func TestNotAttached(t *testing.T) {
	run(t, func(s suite) {
		controllertest.Must[*storage.CSIDriver](t)(s.Client.StorageV1().CSIDrivers().Create(ctx, &storage.CSIDriver{
			ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: storage.CSIDriverSpec{AttachRequired: ptr.To(false)}}, metav1.CreateOptions{}))
		s.pod("p", "n1")
		s.want(nil, nil)
		controllertest.Must[*storage.VolumeAttachment](t)(s.Client.StorageV1().VolumeAttachments().Create(ctx, &storage.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: "mine", UID: types.UID("u")},
			Spec:       storage.VolumeAttachmentSpec{Attacher: "e2e", NodeName: "n1", Source: storage.VolumeAttachmentSource{PersistentVolumeName: ptr.To("v")}},
		}, metav1.CreateOptions{}))
		s.Advance(time.Hour)
		controllertest.Must[*storage.VolumeAttachment](t)(s.Client.StorageV1().VolumeAttachments().Get(ctx, "mine", metav1.GetOptions{}))
	})
}

// TestMigrated checks that volumes of drivers that were once in the tree are attached by
// those that took over: a claim's by its PersistentVolume, a pod's own by its description.
func TestMigrated(t *testing.T) {
	run(t, func(s suite) {
		v := controllertest.Must[*v1.PersistentVolume](t)(s.Client.CoreV1().PersistentVolumes().Get(ctx, "v", metav1.GetOptions{}))
		v.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{AWSElasticBlockStore: &v1.AWSElasticBlockStoreVolumeSource{VolumeID: "vol-1"}}
		controllertest.Must[*v1.PersistentVolume](t)(s.Client.CoreV1().PersistentVolumes().Update(ctx, v, metav1.UpdateOptions{}))
		controllertest.Must[*v1.Pod](t)(s.Client.CoreV1().Pods("ns").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "own"}, Spec: v1.PodSpec{NodeName: "n1",
			Volumes: []v1.Volume{{Name: "x", VolumeSource: v1.VolumeSource{GCEPersistentDisk: &v1.GCEPersistentDiskVolumeSource{PDName: "disk"}}}}}}, metav1.CreateOptions{}))
		s.pod("p", "n1")
		all := controllertest.Must[*storage.VolumeAttachmentList](t)(s.Client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{}))
		for _, va := range all.Items {
			switch source := va.Spec.Source; {
			case va.Spec.Attacher == "ebs.csi.aws.com" && ptr.Deref(source.PersistentVolumeName, "") == "v":
			case va.Spec.Attacher == "pd.csi.storage.gke.io" && source.InlineVolumeSpec != nil && source.InlineVolumeSpec.CSI != nil:
			default:
				t.Errorf("attachment %+v", va.Spec)
			}
		}
		if len(all.Items) != 2 {
			t.Errorf("%d attachments", len(all.Items))
		}
		for _, name := range []string{"p", "own"} {
			if err := s.Client.CoreV1().Pods("ns").Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if all := controllertest.Must[*storage.VolumeAttachmentList](t)(s.Client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})); len(all.Items) != 0 {
			t.Errorf("left: %v", all.Items)
		}
	})
}
