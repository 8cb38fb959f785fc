package csi

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

// callTimeout is how long a driver has for a call, as upstream's.
const callTimeout = 2 * time.Minute

// Plugin makes volumes of CSI drivers.
type Plugin struct {
	// Root is the node's folder: pods and plugins are below it.
	Root string
	// Node is the node's name.
	Node   string
	Client kubernetes.Interface
	// Recorder records events of pods about changes while they run.
	Recorder record.EventRecorder
	Clock    clock.WithTicker
	// SELinux has the labels that volumes are mounted with.
	SELinux volume.SELinux
	// Calls observes the calls of drivers (NewCalls); nil does not.
	Calls prometheus.ObserverVec

	mu      sync.Mutex
	drivers map[string]*driver
	inUse   sync.Mutex
	// volumes are held while something is done with a volume: two pods may come
	// and go with it.
	volumes locks // by driver and handle
	// stray is set when something may be staged that no pod has.
	stray atomic.Bool
}

// Name is kubernetes.io/csi.
func (*Plugin) Name() string { return "kubernetes.io/csi" }

// Supports reports whether the volume is a driver's.
func (*Plugin) Supports(s *volume.Spec) bool {
	if s.Persistent != nil {
		return s.Persistent.Spec.CSI != nil
	}
	return s.Volume.CSI != nil
}

// request holds the parameters of a driver's calls for a pod's volume.
type request struct {
	driver     *driver
	settings   *storage.CSIDriver // nil where there is none
	data       *published
	capability *csi.VolumeCapability
	readOnly   bool
	labelled   bool // it is mounted with an SELinux label
	attributes map[string]string
	publish    map[string]string // what attaching gave
	secrets    map[string]string // to publish with
	stage      map[string]string // to stage with; nil where nothing is staged
}

func (p *Plugin) lock(d *published) func() { return p.volumes.lock(d.Driver + "^" + d.Handle) }

// Mount stages and publishes the volume. All its calls may be made again: a
// driver answers as it did the first time.
func (p *Plugin) Mount(ctx context.Context, s *volume.Spec) (volume.Mounted, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, migratedKey{}, s.Migrated), callTimeout)
	defer cancel()
	r, err := p.request(ctx, s)
	if err != nil {
		return volume.Mounted{}, err
	}
	defer p.lock(r.data)()
	if err := p.attached(ctx, s, r); err != nil {
		return volume.Mounted{}, err
	}
	if err := r.data.write(s.Dir); err != nil {
		return volume.Mounted{}, err
	}
	if r.data.Staging != "" {
		if err := p.stageVolume(ctx, r); err != nil {
			return volume.Mounted{}, err
		}
	}
	if err := p.publishVolume(ctx, s, r); err != nil {
		return volume.Mounted{}, err
	}
	if err := p.expand(ctx, s, r); err != nil {
		return volume.Mounted{}, err
	}
	out := volume.Mounted{ReadOnly: r.readOnly, Relabel: !r.data.Block && !r.labelled}
	if r.data.Block {
		out.Device = r.data.Target
	} else {
		out.HostPath = r.data.Target
	}
	return out, nil
}

// request reads what a volume needs.
func (p *Plugin) request(ctx context.Context, s *volume.Spec) (*request, error) {
	r := &request{attributes: map[string]string{}, data: &published{Volume: s.Name(), Node: p.Node, Block: s.Block(), Lifecycle: string(storage.VolumeLifecyclePersistent)}}
	var fsType string
	var flags []string
	var modes []v1.PersistentVolumeAccessMode
	var secret, stage *v1.SecretReference
	if pv := s.Persistent; pv != nil {
		c := pv.Spec.CSI
		r.data.Driver, r.data.Handle = c.Driver, c.VolumeHandle
		fsType, flags, modes = c.FSType, pv.Spec.MountOptions, pv.Spec.AccessModes
		r.readOnly = c.ReadOnly || s.ReadOnly()
		maps.Copy(r.attributes, c.VolumeAttributes)
		secret, stage = c.NodePublishSecretRef, c.NodeStageSecretRef
	} else {
		c := s.Volume.CSI
		r.data.Driver, r.data.Lifecycle = c.Driver, string(storage.VolumeLifecycleEphemeral)
		r.data.Handle = fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(s.Pod.UID)+s.Volume.Name)))
		fsType, r.readOnly = ptr.Deref(c.FSType, ""), ptr.Deref(c.ReadOnly, false)
		maps.Copy(r.attributes, c.VolumeAttributes)
		if c.NodePublishSecretRef != nil {
			secret = &v1.SecretReference{Namespace: s.Pod.Namespace, Name: c.NodePublishSecretRef.Name}
		}
	}
	var err error
	if r.driver, err = p.driver(r.data.Driver); err != nil {
		return nil, fmt.Errorf("kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: %w", err)
	}
	if r.settings, err = p.settings(ctx, r.data.Driver); err != nil {
		return nil, err
	}
	if err := r.lifecycle(); err != nil {
		return nil, err
	}
	r.data.Target = p.target(s.Dir, s.Name(), s.Pod.UID, r.data.Block)
	if s.Persistent != nil && r.driver.can[csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
		r.data.Staging = p.staging(r.data.Driver, r.data.Handle, s.Name(), r.data.Block)
		if r.stage, err = p.secret(ctx, stage); err != nil {
			return nil, fmt.Errorf("fetching NodeStageSecretRef %s/%s failed: %w", stage.Namespace, stage.Name, err)
		}
	}
	if r.secrets, err = p.secret(ctx, secret); err != nil {
		return nil, fmt.Errorf("fetching NodePublishSecretRef %s/%s failed: %w", secret.Namespace, secret.Name, err)
	}
	if r.settings != nil {
		if ptr.Deref(r.settings.Spec.PodInfoOnMount, false) {
			maps.Copy(r.attributes, map[string]string{
				"csi.storage.k8s.io/pod.name": s.Pod.Name, "csi.storage.k8s.io/pod.namespace": s.Pod.Namespace, "csi.storage.k8s.io/pod.uid": string(s.Pod.UID),
				"csi.storage.k8s.io/serviceAccount.name": s.Pod.Spec.ServiceAccountName, "csi.storage.k8s.io/ephemeral": strconv.FormatBool(s.Persistent == nil),
			})
		}
		if err := p.addTokens(ctx, s.Pod, r); err != nil {
			return nil, err
		}
	}
	r.capability = &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode(modes, r.driver)}}
	if r.data.Block {
		r.capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		return r, nil
	}
	if s.Persistent != nil && r.settings != nil && ptr.Deref(r.settings.Spec.SELinuxMount, false) {
		label, err := p.SELinux.Label(s.Pod, s.Volume.Name)
		if err != nil {
			return nil, err
		}
		if r.labelled = label != ""; r.labelled {
			flags = append(slices.Clone(flags), fmt.Sprintf("context=%q", label))
		}
	}
	m := &csi.VolumeCapability_MountVolume{FsType: fsType, MountFlags: flags}
	if group := s.FSGroup(); group != nil && r.driver.can[csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP] {
		m.VolumeMountGroup = strconv.FormatInt(*group, 10)
	}
	r.capability.AccessType = &csi.VolumeCapability_Mount{Mount: m}
	return r, nil
}

// lifecycle checks that the driver has volumes of this life.
func (r *request) lifecycle() error {
	want := storage.VolumeLifecycleMode(r.data.Lifecycle)
	switch {
	case r.settings == nil && want == storage.VolumeLifecyclePersistent:
		return nil
	case r.settings == nil:
		return fmt.Errorf("volume mode %q not supported by driver %s (no CSIDriver object)", want, r.data.Driver)
	case slices.Contains(r.settings.Spec.VolumeLifecycleModes, want), len(r.settings.Spec.VolumeLifecycleModes) == 0 && want == storage.VolumeLifecyclePersistent:
		return nil
	}
	return fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)", want, r.data.Driver, r.settings.Spec.VolumeLifecycleModes)
}

// mode returns the first of a volume's access modes as CSI names it.
func mode(modes []v1.PersistentVolumeAccessMode, d *driver) csi.VolumeCapability_AccessMode_Mode {
	single := d.can[csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER]
	first := v1.ReadWriteOnce
	if len(modes) > 0 {
		first = modes[0]
	}
	switch {
	case first == v1.ReadWriteMany:
		return csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case first == v1.ReadOnlyMany:
		return csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case first == v1.ReadWriteOncePod && single:
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	case first == v1.ReadWriteOnce && single:
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	}
	return csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
}

func (p *Plugin) secret(ctx context.Context, ref *v1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	s, err := p.Client.CoreV1().Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for k, v := range s.Data {
		out[k] = string(v)
	}
	return out, nil
}

// tokensKey is where a driver finds the pod's tokens: among the attributes, or
// the secrets.
const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens"

// addTokens adds the tokens of the pod that the driver asks for.
func (p *Plugin) addTokens(ctx context.Context, pod *v1.Pod, r *request) error {
	if len(r.settings.Spec.TokenRequests) == 0 {
		return nil
	}
	tokens := map[string]authentication.TokenRequestStatus{}
	for _, t := range r.settings.Spec.TokenRequests {
		var audiences []string
		if t.Audience != "" {
			audiences = []string{t.Audience}
		}
		got, err := p.Client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, &authentication.TokenRequest{
			Spec: authentication.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: t.ExpirationSeconds,
				BoundObjectRef: &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("mounter.SetUpAt failed to get service accoount token attributes: %w", err)
		}
		tokens[t.Audience] = got.Status
	}
	text, err := json.Marshal(tokens)
	if err != nil {
		return err
	}
	if ptr.Deref(r.settings.Spec.ServiceAccountTokenInSecrets, false) {
		if r.secrets == nil {
			r.secrets = map[string]string{}
		}
		r.secrets[tokensKey] = string(text)
	} else {
		r.attributes[tokensKey] = string(text)
	}
	return nil
}

// attached reports the volume as in use and waits until it is attached, if the
// driver's volumes are attached at all.
func (p *Plugin) attached(ctx context.Context, s *volume.Spec, r *request) error {
	if s.Persistent == nil || !attaches(r.settings) {
		return nil
	}
	r.data.Attachment = attachment(r.data.Handle, r.data.Driver, p.Node)
	name := uniqueName(r.data)
	// It is reported before the attachment is read: one that exists then stays.
	if err := p.setInUse(ctx, func(set map[v1.UniqueVolumeName]bool) { set[name] = true }); err != nil {
		return err
	}
	va, err := p.Client.StorageV1().VolumeAttachments().Get(ctx, r.data.Attachment, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsForbidden(err): // a node may not see one that is not there
		return &volume.Pending{Err: fmt.Errorf("volume %s is not attached yet", s.Name())}
	case err != nil:
		return err
	case va.DeletionTimestamp != nil:
		return &volume.Pending{Err: fmt.Errorf("volume %s is being detached", s.Name())}
	case va.Status.Attached:
		r.publish = va.Status.AttachmentMetadata
		return nil
	case va.Status.AttachError != nil:
		if codes.Code(ptr.Deref(va.Status.AttachError.ErrorCode, 0)) == codes.ResourceExhausted && period(r.settings) > 0 {
			if err := p.limit(ctx, r.driver); err != nil { // the scheduler is to know soon
				klog.FromContext(ctx).Error(err, "Updating the node's limit of a driver's volumes failed", "driver", r.driver.name)
			}
			return &volume.Exhausted{Err: errors.New(va.Status.AttachError.Message)}
		}
		return volume.During("WaitForAttach", errors.New(va.Status.AttachError.Message))
	}
	return &volume.Pending{Err: fmt.Errorf("volume %s is being attached", s.Name())}
}

// attaches reports whether a driver's volumes are attached.
func attaches(d *storage.CSIDriver) bool { return d == nil || ptr.Deref(d.Spec.AttachRequired, true) }

// attachment returns the name of the object by which a volume is attached to a node.
func attachment(handle, driver, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}

func uniqueName(d *published) v1.UniqueVolumeName {
	return v1.UniqueVolumeName("kubernetes.io/csi/" + d.Driver + "^" + d.Handle)
}

func (p *Plugin) stageVolume(ctx context.Context, r *request) error {
	if err := os.MkdirAll(r.data.Staging, 0o750); err != nil {
		return err
	}
	if err := r.data.write(p.stagedFolder(r.data)); err != nil {
		return err
	}
	capability := r.capability
	_, err := r.driver.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: r.data.Handle, PublishContext: r.publish, StagingTargetPath: r.data.Staging, VolumeCapability: capability,
		Secrets: r.stage, VolumeContext: without(r.attributes, tokensKey),
	})
	if err != nil {
		return volume.During("MountDevice", fmt.Errorf("kubernetes.io/csi: attacher.MountDevice failed: %w", err))
	}
	return nil
}

// without returns m without a key: a volume is not staged with attributes of
// one pod.
func without(m map[string]string, key string) map[string]string {
	m = maps.Clone(m)
	delete(m, key)
	return m
}

func (p *Plugin) publishVolume(ctx context.Context, s *volume.Spec, r *request) error {
	if err := os.MkdirAll(filepath.Dir(r.data.Target), 0o750); err != nil {
		return err
	}
	_, err := r.driver.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: r.data.Handle, PublishContext: r.publish, StagingTargetPath: r.data.Staging, TargetPath: r.data.Target,
		VolumeCapability: r.capability, Readonly: r.readOnly, Secrets: r.secrets, VolumeContext: r.attributes,
	})
	if err != nil {
		return fmt.Errorf("kubernetes.io/csi: mounter.SetUpAt failed: %w", err)
	}
	group := s.FSGroup()
	if group == nil || r.data.Block || r.capability.GetMount().GetVolumeMountGroup() != "" || !r.groupApplies(s) {
		return nil
	}
	var policy *v1.PodFSGroupChangePolicy
	if c := s.Pod.Spec.SecurityContext; c != nil {
		policy = c.FSGroupChangePolicy
	}
	if err := volume.SetGroup(r.data.Target, *group, policy, r.readOnly); err != nil {
		return fmt.Errorf("applyFSGroup failed for vol %s: %w", r.data.Handle, err)
	}
	return nil
}

// groupApplies reports whether the agent is to give the volume's files to the
// pod's group, by the driver's policy.
func (r *request) groupApplies(s *volume.Spec) bool {
	policy := storage.ReadWriteOnceWithFSTypeFSGroupPolicy
	if r.settings != nil && r.settings.Spec.FSGroupPolicy != nil {
		policy = *r.settings.Spec.FSGroupPolicy
	}
	switch policy {
	case storage.NoneFSGroupPolicy:
		return false
	case storage.FileFSGroupPolicy:
		return true
	}
	if r.readOnly || r.capability.GetMount().GetFsType() == "" || s.Persistent == nil {
		return false
	}
	return slices.ContainsFunc(s.Persistent.Spec.AccessModes, func(m v1.PersistentVolumeAccessMode) bool { return m == v1.ReadWriteOnce || m == v1.ReadWriteOncePod })
}

// Unmount undoes what Mount has done with the volume of a folder, which the file
// in it tells.
func (p *Plugin) Unmount(ctx context.Context, dir string) error {
	d, err := read(dir)
	if err != nil {
		var why error
		if d, why = p.rebuild(ctx, dir); why != nil {
			// The driver cannot be asked: mounts are taken down by force, and what is
			// staged for no other pod is left to Run.
			klog.FromContext(ctx).Error(errors.Join(err, why), "Unmounting a volume without its driver", "dir", dir)
			device := p.target(dir, filepath.Base(dir), podOf(dir), true)
			if err := errors.Join(volume.Detach(filepath.Join(dir, "mount")), volume.Detach(device)); err != nil {
				return err
			}
			if err := os.Remove(device); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			_ = os.Remove(filepath.Dir(device)) // another pod's device may be in it
			p.stray.Store(true)
			return os.Remove(filepath.Join(dir, dataFile))
		}
	}
	if d == nil {
		return nil
	}
	defer p.lock(d)()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	driver, err := p.driver(d.Driver)
	if err != nil {
		return err
	}
	if _, err := driver.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: d.Handle, TargetPath: d.Target}); err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("kubernetes.io/csi: Unmounter.TearDownAt failed: %w", err)
	}
	if err := gone(d.Target); err != nil {
		return err
	}
	if d.Block {
		_ = os.Remove(filepath.Dir(d.Target)) // another pod's device may be in it
	}
	used, err := p.used(d, dir)
	if err != nil {
		return err
	}
	if !used {
		if err := p.unstage(ctx, driver, d); err != nil {
			return err
		}
	}
	// The agent after this one begins anew until here.
	return os.RemoveAll(dir)
}

// gone removes a path that a driver has unmounted: a driver should do so itself.
// What is mounted still is never removed.
func gone(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the driver has unpublished a volume, and left %s: %w", path, err)
	}
	return nil
}

func (p *Plugin) unstage(ctx context.Context, driver *driver, d *published) error {
	if d.Staging != "" {
		if _, err := driver.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: d.Handle, StagingTargetPath: d.Staging}); err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("kubernetes.io/csi: attacher.UnmountDevice failed: %w", err)
		}
		if err := gone(d.Staging); err != nil {
			return err
		}
	}
	if d.Attachment != "" {
		name := uniqueName(d)
		if err := p.setInUse(ctx, func(set map[v1.UniqueVolumeName]bool) { delete(set, name) }); err != nil {
			return err
		}
	}
	if d.Staging == "" {
		return nil
	}
	record := p.stagedFolder(d)
	if err := os.Remove(filepath.Join(record, dataFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = os.Remove(record) // it is in nobody's way
	if d.Block {
		_ = os.Remove(filepath.Dir(record))
	}
	return nil
}

// unstageStray unstages the volumes that no pod has: those of records that were damaged.
func (p *Plugin) unstageStray(ctx context.Context) error {
	var errs []error
	for _, d := range p.allStaged() {
		errs = append(errs, func() error {
			defer p.lock(d)()
			if used, err := p.used(d, ""); err != nil || used {
				return err
			}
			driver, err := p.driver(d.Driver)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			return p.unstage(ctx, driver, d)
		}())
	}
	return errors.Join(errs...)
}
