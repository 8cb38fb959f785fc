package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/csimigration"
)

// The pauses after a volume that failed, upstream's.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 2*time.Minute + 2*time.Second
	// lastWait is the longest pause of a volume that waits for others.
	lastWait = 2 * time.Second
)

// Manager makes and keeps the volumes of pods.
type Manager struct {
	// Root holds <uid>/volumes/<kind>/<name>.
	Root    string
	Plugins []Plugin
	// Client reads the claims of pods, and their volumes.
	Client kubernetes.Interface
	// Node returns the node's labels, which a PersistentVolume's affinity is checked
	// against; nil checks none.
	Node  func(ctx context.Context) (map[string]string, error)
	Clock clock.WithTicker
	// Metrics observes operations; nil does not.
	Metrics *Metrics

	mu   sync.Mutex
	pods map[types.UID]*pod
	// claims are those whose volumes are to be looked at now.
	claims map[types.UID]bool
	wake   chan struct{}
}

// pod is a pod with volumes.
type pod struct {
	sync.Mutex // over the making of its volumes
	object     *v1.Pod
	ready      map[string]Mounted
	specs      map[string]*Spec // of those that are ready
	failed     map[string]*pause
	gone       bool
	stats      map[string]*statsapi.FsStats // by Measurers; m.mu is over it
	kinds      map[string]kind              // of its volumes, for the metrics; m.mu is over it
}

// pause is the time until a volume that failed is tried again.
type pause struct {
	length time.Duration
	until  time.Time
	err    error
}

func (p *pause) failed(err error, now time.Time) {
	p.length = min(max(2*p.length, firstPause), lastPause)
	p.until, p.err = now.Add(p.length), err
}

// Pending is the error of a volume that waits for others than this node: it is no
// failure yet.
type Pending struct{ Err error }

func (p *Pending) Error() string { return p.Err.Error() }

// Unwrap returns what is waited for.
func (p *Pending) Unwrap() error { return p.Err }

// Exhausted is the error of a volume that cannot be attached because the node has as
// many as it can have: its pod is not to run here.
type Exhausted struct{ Err error }

func (e *Exhausted) Error() string { return e.Err.Error() }

// Unwrap gives what attaching failed with.
func (e *Exhausted) Unwrap() error { return e.Err }

// Failed is the error of volumes that could not be made ready.
type Failed struct {
	// Errors holds the errors of this attempt, by volume. A volume that waits for
	// others has none.
	Errors map[string]error
	// Retry is when to try again.
	Retry time.Duration
}

func (f *Failed) Error() string {
	var all []string
	for name, err := range f.Errors {
		all = append(all, Message(name, err))
	}
	return strings.Join(all, "; ")
}

// Exhausted reports whether the node has too many volumes for one of these.
func (f *Failed) Exhausted() bool {
	for _, err := range f.Errors {
		if _, ok := errors.AsType[*Exhausted](err); ok {
			return true
		}
	}
	return false
}

// Message returns upstream's message for a volume that could not be made ready.
func Message(name string, err error) string {
	step := "SetUp"
	if s, ok := errors.AsType[*stepError](err); ok {
		step = s.step
	}
	verb := "MountVolume"
	if _, block := errors.AsType[*blockError](err); block {
		verb = "MapVolume"
		switch step {
		case "SetUp":
			step = "MapPodDevice"
		case "MountDevice":
			step = "SetUpDevice"
		}
	}
	return fmt.Sprintf("%s.%s failed for volume %q : %v", verb, step, name, err)
}

// Reason returns the reason of the event about a volume that could not be made ready.
func Reason(err error) string {
	if _, block := errors.AsType[*blockError](err); block {
		return "FailedMapVolume"
	}
	return "FailedMount"
}

// blockError is an error of a volume that the pod sees as a device.
type blockError struct{ error }

func (e *blockError) Unwrap() error { return e.error }

// stepError is an error of a step before the last one.
type stepError struct {
	step string
	error
}

func (e *stepError) Unwrap() error { return e.error }

// During returns the error of a step of making a volume ready, as upstream names it:
// WaitForAttach or MountDevice.
func During(step string, err error) error { return &stepError{step, err} }

// Mount makes the pod's volumes ready: those that are not, and whose pause is
// over.
func (m *Manager) Mount(ctx context.Context, object *v1.Pod) (map[string]Mounted, error) {
	m.mu.Lock()
	if m.pods == nil {
		m.pods = map[types.UID]*pod{}
	}
	p := m.pods[object.UID]
	if p == nil {
		p = &pod{ready: map[string]Mounted{}, specs: map[string]*Spec{}, failed: map[string]*pause{}}
		m.pods[object.UID] = p
	}
	p.object = object
	m.mu.Unlock()

	p.Lock()
	defer p.Unlock()
	f := &Failed{Errors: map[string]error{}, Retry: lastPause}
	waiting := false
	for i := range object.Spec.Volumes {
		v := &object.Spec.Volumes[i]
		if _, ok := p.ready[v.Name]; ok {
			continue
		}
		again := p.failed[v.Name]
		now := m.Clock.Now()
		if again == nil || !now.Before(again.until) {
			mounted, spec, err := m.one(ctx, object, v)
			name := spec.Name()
			if err == nil {
				p.ready[v.Name], p.specs[v.Name] = mounted, spec
				delete(p.failed, v.Name)
				continue
			}
			if spec.Block() {
				err = &blockError{err}
			}
			if again == nil {
				again = &pause{}
				p.failed[v.Name] = again
			}
			again.failed(err, now)
			var pending *Pending
			if errors.As(err, &pending) {
				again.length = min(again.length, lastWait)
				again.until = now.Add(again.length)
			} else {
				f.Errors[name] = err
			}
		}
		waiting = true
		f.Retry = min(f.Retry, again.until.Sub(now))
	}
	if waiting {
		return nil, f
	}
	out := make(map[string]Mounted, len(p.ready))
	for name, mounted := range p.ready {
		out[name] = mounted
	}
	return out, nil
}

func (m *Manager) plugin(s *Spec) Plugin {
	for _, p := range m.Plugins {
		if p.Supports(s) {
			return p
		}
	}
	return nil
}

func folder(p Plugin) string { return strings.ReplaceAll(p.Name(), "/", "~") }

// one makes a volume ready, and returns what is known of it.
func (m *Manager) one(ctx context.Context, object *v1.Pod, v *v1.Volume) (Mounted, *Spec, error) {
	s := &Spec{Pod: object, Volume: v}
	if name := podspec.ClaimName(object, v); name != "" {
		if err := m.resolve(ctx, s, name); err != nil {
			return Mounted{}, s, err
		}
	} else if pv, err := csimigration.Inline(v, object.Namespace); err != nil {
		return Mounted{}, s, err
	} else if pv != nil {
		s.Persistent, s.Migrated = pv, true
	}
	p := m.plugin(s)
	switch {
	case v.GitRepo != nil:
		return Mounted{}, s, errors.New("git-repo volume plugin has been disabled")
	case p == nil:
		return Mounted{}, s, errors.New("no volume plugin matched")
	}
	s.Dir = filepath.Join(m.volumes(object.UID), folder(p), s.Name())
	if err := os.MkdirAll(filepath.Dir(s.Dir), 0o750); err != nil {
		return Mounted{}, s, err
	}
	label := s.label(p)
	m.note(object.UID, v.Name, kind{label, false})
	begun := m.Clock.Now()
	mounted, err := p.Mount(ctx, s)
	operation := "volume_mount"
	if s.Block() {
		operation = "map_volume"
	}
	m.Metrics.done(label, operation, s.Migrated, m.Clock.Since(begun), err)
	m.note(object.UID, v.Name, kind{label, err == nil})
	return mounted, s, err
}

func (m *Manager) volumes(uid types.UID) string { return filepath.Join(m.Root, string(uid), "volumes") }

// Refresh brings the volumes up to date for which uses says so, of all pods of
// the namespace, or of all namespaces ("" without a UID), or of the one with the UID. object is the pod as it is now, nil
// if it has not changed.
func (m *Manager) Refresh(ctx context.Context, namespace string, uid types.UID, object *v1.Pod, uses func(*v1.Volume) bool) {
	m.mu.Lock()
	var due []*pod
	for id, p := range m.pods {
		if uid != "" && id != uid || uid == "" && namespace != "" && p.object.Namespace != namespace {
			continue
		}
		if object != nil {
			p.object = object
		}
		due = append(due, p)
	}
	m.mu.Unlock()
	for _, p := range due {
		m.refresh(ctx, p, uses)
	}
}

// period is how often volumes of Periodic plug-ins are looked at.
const period = time.Minute

// Run looks at the volumes of Periodic plug-ins, and measures those of Measurers, until
// ctx is done.
func (m *Manager) Run(ctx context.Context) {
	var measuring sync.WaitGroup
	defer measuring.Wait()
	measuring.Go(func() { m.measureAll(ctx) })
	tick := m.Clock.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
			m.look(ctx, func(*Spec) bool { return true })
		case <-m.woken():
			m.mu.Lock()
			due := m.claims
			m.claims = nil
			m.mu.Unlock()
			m.look(ctx, func(s *Spec) bool { return s.Claim != nil && due[s.Claim.UID] })
		}
	}
}

// Look has Run look at the volumes of a claim now, which has changed.
func (m *Manager) Look(claim types.UID) {
	wake := m.woken()
	m.mu.Lock()
	if m.claims == nil {
		m.claims = map[types.UID]bool{}
	}
	m.claims[claim] = true
	m.mu.Unlock()
	select {
	case wake <- struct{}{}:
	default:
	}
}

func (m *Manager) woken() chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wake == nil {
		m.wake = make(chan struct{}, 1)
	}
	return m.wake
}

// look brings volumes up to date that are due.
func (m *Manager) look(ctx context.Context, due func(*Spec) bool) {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.pods))
	m.mu.Unlock()
	for _, p := range all {
		m.again(ctx, p, due)
	}
}

func (m *Manager) again(ctx context.Context, p *pod, due func(*Spec) bool) {
	p.Lock()
	defer p.Unlock()
	for name, spec := range p.specs {
		plugin, ok := m.plugin(spec).(Periodic)
		if p.gone || !ok || !due(spec) {
			continue
		}
		if err := plugin.Again(ctx, spec); err != nil {
			klog.FromContext(ctx).Info("Bringing a volume up to date failed", "pod", klog.KObj(spec.Pod), "volume", name, "err", err)
		}
	}
}

func (m *Manager) refresh(ctx context.Context, p *pod, uses func(*v1.Volume) bool) {
	p.Lock()
	defer p.Unlock()
	m.mu.Lock()
	object := p.object
	m.mu.Unlock()
	for i := range object.Spec.Volumes {
		v := &object.Spec.Volumes[i]
		if _, ready := p.ready[v.Name]; p.gone || !ready || !uses(v) {
			continue
		}
		if _, _, err := m.one(ctx, object, v); err != nil {
			klog.FromContext(ctx).Info("Bringing a volume up to date failed", "pod", klog.KObj(object), "volume", v.Name, "err", err)
		}
	}
}

// Unmount takes down what the pod has mounted, and its files.
func (m *Manager) Unmount(ctx context.Context, uid types.UID) error {
	m.mu.Lock()
	p := m.pods[uid]
	delete(m.pods, uid)
	m.mu.Unlock()
	if p != nil {
		p.Lock()
		defer p.Unlock()
		p.gone = true
	}
	if err := DetachBelow(m.subPaths(uid)); err != nil {
		return err
	}
	if err := os.RemoveAll(m.subPaths(uid)); err != nil {
		return err
	}
	// A driver that is away does not keep the others' volumes.
	var errs []error
	for _, plugin := range m.Plugins {
		dirs, err := filepath.Glob(filepath.Join(m.volumes(uid), folder(plugin), "*"))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			begun := m.Clock.Now()
			err := plugin.Unmount(ctx, dir)
			m.Metrics.done(plugin.Name(), "volume_unmount", false, m.Clock.Since(begun), err)
			if err != nil {
				errs = append(errs, fmt.Errorf("UnmountVolume.TearDown failed for volume %q (UniqueName: %q) pod %q : %w", filepath.Base(dir), plugin.Name(), uid, err))
			}
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	// What a container has mounted in a volume, and shared with the machine, is
	// not to be removed with the folder.
	if err := DetachBelow(m.volumes(uid)); err != nil {
		return err
	}
	return os.RemoveAll(m.volumes(uid))
}

// Mounted returns a volume of a pod, if it is ready. It does not wait for those
// that are being made.
func (m *Manager) Mounted(uid types.UID, name string) (Mounted, bool) {
	m.mu.Lock()
	p := m.pods[uid]
	m.mu.Unlock()
	if p == nil {
		return Mounted{}, false
	}
	if !p.TryLock() {
		return Mounted{}, false
	}
	defer p.Unlock()
	v, ok := p.ready[name]
	return v, ok
}

// Pods returns the pods that have volumes, or parts of them, on this machine.
func (m *Manager) Pods() []types.UID {
	var out []types.UID
	for _, dir := range []string{m.volumes("*"), m.subPaths("*")} {
		found, _ := filepath.Glob(dir)
		for _, d := range found {
			if uid := types.UID(filepath.Base(filepath.Dir(d))); !slices.Contains(out, uid) {
				out = append(out, uid)
			}
		}
	}
	return out
}
