package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node"
)

// Config is what a Manager is made of.
type Config struct {
	// RootDir holds pods/<uid>/volumes/...
	RootDir   string
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Clock     clock.WithTicker
	// Allocatable is what the downward API gives for limits that are not set.
	Allocatable func() v1.ResourceList
}

// Manager makes and keeps volumes.
type Manager struct {
	Config
	configMaps corelisters.ConfigMapLister
	secrets    corelisters.SecretLister
	pods       corelisters.PodLister
	synced     []cache.InformerSynced

	mu      sync.Mutex
	mounted map[types.UID]*pod
	tokens  map[tokenKey]token
}

// pod is a pod with volumes.
type pod struct {
	object *v1.Pod
	// refresh is when a token of it is to be made anew; zero is never.
	refresh time.Time
}

type tokenKey struct {
	pod      types.UID
	audience string
	path     string
}

type token struct {
	value   string
	issued  time.Time
	expires time.Time
}

// New registers what the manager needs with the informers.
func New(c Config) *Manager {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	m := &Manager{Config: c, mounted: map[types.UID]*pod{}, tokens: map[tokenKey]token{}}
	core := c.Informers.Core().V1()
	m.configMaps, m.secrets, m.pods = core.ConfigMaps().Lister(), core.Secrets().Lister(), core.Pods().Lister()
	m.synced = []cache.InformerSynced{core.ConfigMaps().Informer().HasSynced, core.Secrets().Informer().HasSynced}
	on := func(namespace, name string, uses func(*v1.Volume, string) bool) {
		for _, p := range m.users(namespace, name, uses) {
			m.update(p)
		}
	}
	_, _ = core.ConfigMaps().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c := o.(*v1.ConfigMap); on(c.Namespace, c.Name, usesConfigMap) },
		UpdateFunc: func(_, o any) { c := o.(*v1.ConfigMap); on(c.Namespace, c.Name, usesConfigMap) },
	})
	_, _ = core.Secrets().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s := o.(*v1.Secret); on(s.Namespace, s.Name, usesSecret) },
		UpdateFunc: func(_, o any) { s := o.(*v1.Secret); on(s.Namespace, s.Name, usesSecret) },
	})
	_, _ = core.Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: func(old, o any) {
		a, b := old.(*v1.Pod), o.(*v1.Pod)
		if equalMaps(a.Labels, b.Labels) && equalMaps(a.Annotations, b.Annotations) {
			return
		}
		m.mu.Lock()
		p := m.mounted[b.UID]
		if p != nil {
			p.object = b
		}
		m.mu.Unlock()
		if p != nil {
			m.update(b)
		}
	}})
	return m
}

func equalMaps(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func usesConfigMap(v *v1.Volume, name string) bool {
	if v.ConfigMap != nil && v.ConfigMap.Name == name {
		return true
	}
	if v.Projected != nil {
		for i := range v.Projected.Sources {
			if s := v.Projected.Sources[i].ConfigMap; s != nil && s.Name == name {
				return true
			}
		}
	}
	return false
}

func usesSecret(v *v1.Volume, name string) bool {
	if v.Secret != nil && v.Secret.SecretName == name {
		return true
	}
	if v.Projected != nil {
		for i := range v.Projected.Sources {
			if s := v.Projected.Sources[i].Secret; s != nil && s.Name == name {
				return true
			}
		}
	}
	return false
}

func (m *Manager) users(namespace, name string, uses func(*v1.Volume, string) bool) (out []*v1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.mounted {
		if p.object.Namespace != namespace {
			continue
		}
		for i := range p.object.Spec.Volumes {
			if uses(&p.object.Spec.Volumes[i], name) {
				out = append(out, p.object)
				break
			}
		}
	}
	return out
}

// update brings a pod's files up to date.
func (m *Manager) update(p *v1.Pod) {
	if _, err := m.make(context.Background(), p); err != nil {
		klog.Background().V(2).Info("Updating the volumes of a pod failed", "pod", klog.KObj(p), "err", err)
	}
}

// Run makes tokens anew before they end, until ctx is done.
func (m *Manager) Run(ctx context.Context) {
	t := m.Clock.NewTicker(30 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C():
		case <-ctx.Done():
			return
		}
		var due []*v1.Pod
		m.mu.Lock()
		for _, p := range m.mounted {
			if !p.refresh.IsZero() && !m.Clock.Now().Before(p.refresh) {
				due = append(due, p.object)
			}
		}
		m.mu.Unlock()
		for _, p := range due {
			m.update(p)
		}
	}
}

// ConfigMap reads one; from the informer, else as it is now.
func (m *Manager) ConfigMap(ctx context.Context, ns, name string) (*v1.ConfigMap, error) {
	if c, err := m.configMaps.ConfigMaps(ns).Get(name); err == nil {
		return c, nil
	}
	return m.Client.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
}

// Secret reads one; from the informer, else as it is now.
func (m *Manager) Secret(ctx context.Context, ns, name string) (*v1.Secret, error) {
	if s, err := m.secrets.Secrets(ns).Get(name); err == nil {
		return s, nil
	}
	return m.Client.CoreV1().Secrets(ns).Get(ctx, name, metav1.GetOptions{})
}

func (m *Manager) podDir(uid types.UID) string {
	return filepath.Join(m.RootDir, "pods", string(uid), "volumes")
}

// Mount makes the pod's volumes.
func (m *Manager) Mount(ctx context.Context, p *v1.Pod) (map[string]node.Mounted, error) {
	m.mu.Lock()
	if m.mounted[p.UID] == nil {
		m.mounted[p.UID] = &pod{object: p}
	}
	m.mu.Unlock()
	return m.make(ctx, p)
}

func (m *Manager) make(ctx context.Context, p *v1.Pod) (map[string]node.Mounted, error) {
	out := map[string]node.Mounted{}
	var errs []error
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		mt, err := m.one(ctx, p, v)
		if err != nil {
			errs = append(errs, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err))
			continue
		}
		out[v.Name] = mt
	}
	return out, utilerrors.NewAggregate(errs)
}

func (m *Manager) one(ctx context.Context, p *v1.Pod, v *v1.Volume) (node.Mounted, error) {
	plugin := func(kind string) string { return filepath.Join(m.podDir(p.UID), "kubernetes.io~"+kind, v.Name) }
	var gid *int64
	if s := p.Spec.SecurityContext; s != nil {
		gid = s.FSGroup
	}
	files := func(kind string, sources []v1.VolumeProjection, mode *int32) (node.Mounted, error) {
		dir := plugin(kind)
		content, err := m.files(ctx, p, v.Name, sources, os.FileMode(ptr.Deref(mode, 0o644)))
		if err != nil {
			return node.Mounted{}, err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return node.Mounted{}, err
		}
		return node.Mounted{HostPath: dir, ReadOnly: true}, write(dir, content, gid)
	}
	switch {
	case v.EmptyDir != nil:
		return node.Mounted{HostPath: plugin("empty-dir")}, emptyDir(plugin("empty-dir"), v.EmptyDir, gid)
	case v.ConfigMap != nil:
		return files("configmap", []v1.VolumeProjection{{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v.ConfigMap.LocalObjectReference, Items: v.ConfigMap.Items, Optional: v.ConfigMap.Optional}}}, v.ConfigMap.DefaultMode)
	case v.Secret != nil:
		return files("secret", []v1.VolumeProjection{{Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: v.Secret.SecretName}, Items: v.Secret.Items, Optional: v.Secret.Optional}}}, v.Secret.DefaultMode)
	case v.DownwardAPI != nil:
		return files("downward-api", []v1.VolumeProjection{{DownwardAPI: &v1.DownwardAPIProjection{Items: v.DownwardAPI.Items}}}, v.DownwardAPI.DefaultMode)
	case v.Projected != nil:
		return files("projected", v.Projected.Sources, v.Projected.DefaultMode)
	case v.HostPath != nil:
		return node.Mounted{HostPath: v.HostPath.Path}, hostPath(v.HostPath)
	}
	return node.Mounted{}, errors.New("this kind of volume is not supported by this node")
}

func emptyDir(dir string, e *v1.EmptyDirVolumeSource, gid *int64) error {
	switch e.Medium {
	case v1.StorageMediumDefault, v1.StorageMediumMemory:
	default:
		return fmt.Errorf("medium %q of an emptyDir is not supported by this node", e.Medium)
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if e.Medium == v1.StorageMediumMemory {
		data := ""
		if e.SizeLimit != nil && e.SizeLimit.Value() > 0 {
			data = fmt.Sprintf("size=%d", e.SizeLimit.Value())
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
			return fmt.Errorf("mounting tmpfs: %w", err)
		}
	}
	mode := os.FileMode(0o777)
	if gid != nil {
		if err := os.Chown(dir, -1, int(*gid)); err != nil {
			return err
		}
		mode |= os.ModeSetgid
	}
	return os.Chmod(dir, mode)
}

// hostPath checks that a path of the machine is what its volume says it is, and
// makes it where the volume says so.
func hostPath(h *v1.HostPathVolumeSource) error {
	t := ptr.Deref(h.Type, v1.HostPathUnset)
	if t == v1.HostPathUnset {
		return nil
	}
	info, err := os.Stat(h.Path)
	if errors.Is(err, os.ErrNotExist) {
		switch t {
		case v1.HostPathDirectoryOrCreate:
			return os.MkdirAll(h.Path, 0o755)
		case v1.HostPathFileOrCreate:
			f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_RDWR, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	for _, k := range []struct {
		types []v1.HostPathType
		is    func(fs.FileMode) bool
		name  string
	}{
		{[]v1.HostPathType{v1.HostPathDirectory, v1.HostPathDirectoryOrCreate}, fs.FileMode.IsDir, "directory"},
		{[]v1.HostPathType{v1.HostPathFile, v1.HostPathFileOrCreate}, fs.FileMode.IsRegular, "file"},
		{[]v1.HostPathType{v1.HostPathSocket}, func(m fs.FileMode) bool { return m&fs.ModeSocket != 0 }, "socket file"},
		{[]v1.HostPathType{v1.HostPathCharDev}, func(m fs.FileMode) bool { return m&fs.ModeCharDevice != 0 }, "character device"},
		{[]v1.HostPathType{v1.HostPathBlockDev}, func(m fs.FileMode) bool { return m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0 }, "block device"},
	} {
		if !slices.Contains(k.types, t) {
			continue
		}
		if err != nil || !k.is(info.Mode()) {
			return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, k.name)
		}
		return nil
	}
	return fmt.Errorf("%s is an invalid volume type", t)
}

// files gives the content that sources make.
func (m *Manager) files(ctx context.Context, p *v1.Pod, volume string, sources []v1.VolumeProjection, mode os.FileMode) (map[string]file, error) {
	out := map[string]file{}
	keys := func(kind, name string, items []v1.KeyToPath, data map[string][]byte, optional bool) error {
		if len(items) == 0 {
			for k, b := range data {
				out[k] = file{b, mode}
			}
			return nil
		}
		for _, it := range items {
			b, ok := data[it.Key]
			if !ok {
				if optional {
					continue
				}
				return fmt.Errorf("references non-existent %s key: %s", kind, it.Key)
			}
			md := mode
			if it.Mode != nil {
				md = os.FileMode(*it.Mode)
			}
			path, err := inside(it.Path)
			if err != nil {
				return err
			}
			out[path] = file{b, md}
		}
		return nil
	}
	for i := range sources {
		s := &sources[i]
		switch {
		case s.ConfigMap != nil:
			optional := ptr.Deref(s.ConfigMap.Optional, false)
			c, err := m.ConfigMap(ctx, p.Namespace, s.ConfigMap.Name)
			if apierrors.IsNotFound(err) && optional {
				continue
			}
			if err != nil {
				return nil, err
			}
			data := make(map[string][]byte, len(c.Data)+len(c.BinaryData))
			for k, v := range c.Data {
				data[k] = []byte(v)
			}
			for k, v := range c.BinaryData {
				data[k] = v
			}
			if err := keys("config", c.Name, s.ConfigMap.Items, data, optional); err != nil {
				return nil, err
			}
		case s.Secret != nil:
			optional := ptr.Deref(s.Secret.Optional, false)
			c, err := m.Secret(ctx, p.Namespace, s.Secret.Name)
			if apierrors.IsNotFound(err) && optional {
				continue
			}
			if err != nil {
				return nil, err
			}
			if err := keys("secret", c.Name, s.Secret.Items, c.Data, optional); err != nil {
				return nil, err
			}
		case s.DownwardAPI != nil:
			for _, it := range s.DownwardAPI.Items {
				md := mode
				if it.Mode != nil {
					md = os.FileMode(*it.Mode)
				}
				path, err := inside(it.Path)
				if err != nil {
					return nil, err
				}
				var value string
				switch {
				case it.FieldRef != nil:
					value, err = node.FieldValue(p, it.FieldRef.FieldPath)
				case it.ResourceFieldRef != nil:
					c := containerOf(p, it.ResourceFieldRef.ContainerName)
					if c == nil {
						return nil, fmt.Errorf("container %q not found", it.ResourceFieldRef.ContainerName)
					}
					value, err = node.ResourceValue(c, it.ResourceFieldRef, m.Allocatable())
				}
				if err != nil {
					return nil, err
				}
				out[path] = file{[]byte(value), md}
			}
		case s.ServiceAccountToken != nil:
			path, err := inside(s.ServiceAccountToken.Path)
			if err != nil {
				return nil, err
			}
			t, err := m.token(ctx, p, volume, s.ServiceAccountToken)
			if err != nil {
				return nil, fmt.Errorf("failed to fetch token: %w", err)
			}
			md := os.FileMode(0o600)
			if sc := p.Spec.SecurityContext; sc == nil || sc.FSGroup == nil {
				md = 0o644
			}
			out[path] = file{[]byte(t), md}
		default:
			return nil, errors.New("a source of this projected volume is not supported by this node")
		}
	}
	return out, nil
}

func inside(path string) (string, error) {
	c := filepath.Clean(path)
	if filepath.IsAbs(c) || c == ".." || strings.HasPrefix(c, "../") || strings.HasPrefix(c, "..") {
		return "", fmt.Errorf("invalid path: must be relative and not begin with '..': %s", path)
	}
	return c, nil
}

func containerOf(p *v1.Pod, name string) *v1.Container {
	for _, cs := range [][]v1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range cs {
			if cs[i].Name == name {
				return &cs[i]
			}
		}
	}
	return nil
}

// token gives the pod's token, a new one once four fifths of its life are over.
func (m *Manager) token(ctx context.Context, p *v1.Pod, volume string, s *v1.ServiceAccountTokenProjection) (string, error) {
	key := tokenKey{p.UID, s.Audience, volume + "/" + s.Path}
	now := m.Clock.Now()
	m.mu.Lock()
	t, ok := m.tokens[key]
	m.mu.Unlock()
	renew := func(t token) time.Time { return t.issued.Add(t.expires.Sub(t.issued) * 4 / 5) }
	if ok && now.Before(renew(t)) {
		return t.value, nil
	}
	tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: s.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.UID},
	}}
	if s.Audience != "" {
		tr.Spec.Audiences = []string{s.Audience}
	}
	got, err := m.Client.CoreV1().ServiceAccounts(p.Namespace).CreateToken(ctx, p.Spec.ServiceAccountName, tr, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	t = token{got.Status.Token, now, got.Status.ExpirationTimestamp.Time}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens[key] = t
	if mp := m.mounted[p.UID]; mp != nil {
		if at := renew(t); mp.refresh.IsZero() || !now.Before(mp.refresh) || at.Before(mp.refresh) {
			mp.refresh = at
		}
	}
	return t.value, nil
}

// Unmount takes down what the pod has mounted, and its files.
func (m *Manager) Unmount(_ context.Context, uid types.UID) error {
	m.mu.Lock()
	delete(m.mounted, uid)
	for k := range m.tokens {
		if k.pod == uid {
			delete(m.tokens, k)
		}
	}
	m.mu.Unlock()
	mounts, _ := filepath.Glob(filepath.Join(m.podDir(uid), "kubernetes.io~empty-dir", "*"))
	for _, dir := range mounts {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", dir, err)
		}
	}
	return os.RemoveAll(m.podDir(uid))
}

// Pods are the pods that have volumes on this machine.
func (m *Manager) Pods() []types.UID {
	dirs, _ := filepath.Glob(filepath.Join(m.RootDir, "pods", "*", "volumes"))
	out := make([]types.UID, 0, len(dirs))
	for _, d := range dirs {
		out = append(out, types.UID(filepath.Base(filepath.Dir(d))))
	}
	return out
}
