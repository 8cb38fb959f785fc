package dra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/statefile"
)

// Manager prepares the claims of a node's pods.
type Manager struct {
	Client kubernetes.Interface
	Node   string
	// File is where it keeps what is prepared.
	File  string
	Clock clock.Clock

	work sync.Mutex // over preparing and giving back: a claim may be of several pods

	mu      sync.Mutex
	drivers map[string]*driver
	claims  map[types.UID]*claim // nil before they have been read
	gone    chan struct{}
	// healths are what drivers tell of their devices.
	healths map[device]health
	changed func([]types.UID)
}

// OnChange makes the manager call f with the pods of devices whose health has changed.
func (m *Manager) OnChange(f func(pods []types.UID)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = f
}

// New makes a manager that keeps its state in the file.
func New(client kubernetes.Interface, node, file string, c clock.Clock) *Manager {
	return &Manager{Client: client, Node: node, File: file, Clock: c, gone: make(chan struct{}, 1)}
}

// claim is one that is being prepared, or is prepared.
type claim struct {
	Namespace, Name string
	Pods            []types.UID
	// Drivers holds the drivers that have been asked to prepare it.
	Drivers []string
	Devices []Device
	// Done reports whether all of them have prepared it.
	Done bool
}

// Device is one that a driver has prepared.
type Device struct {
	Driver, Pool, Device string
	// Share is the ID of the part of a device that several claims have, "" for all of it.
	Share         string
	Requests, CDI []string
}

// Has reports whether the pod has claims.
func Has(pod *v1.Pod) bool {
	return len(pod.Spec.ResourceClaims) > 0 || pod.Status.ExtendedResourceClaimStatus != nil
}

// Prepare calls the drivers to prepare the pod's claims.
func (m *Manager) Prepare(ctx context.Context, pod *v1.Pod) error {
	m.work.Lock()
	defer m.work.Unlock()
	if err := m.load(); err != nil {
		return err
	}
	for i := range pod.Spec.ResourceClaims {
		name, owned, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return fmt.Errorf("prepare resource claim: %w", err)
		}
		if name == nil {
			continue // it needs none
		}
		if err := m.prepare(ctx, pod, *name, owned); err != nil {
			return err
		}
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		return m.prepare(ctx, pod, s.ResourceClaimName, true)
	}
	return nil
}

func (m *Manager) prepare(ctx context.Context, pod *v1.Pod, name string, owned bool) error {
	c, err := m.Client.ResourceV1().ResourceClaims(pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("fetch ResourceClaim %s/%s: %w", pod.Namespace, name, err)
	}
	if owned {
		if err := resourceclaim.IsForPod(pod, c, false); err != nil {
			return err
		}
	}
	if !resourceclaim.IsReservedForPod(pod, c, false) {
		return fmt.Errorf("pod %s/%s (%s) is not allowed to use ResourceClaim %s/%s (%s)", pod.Namespace, pod.Name, pod.UID, c.Namespace, c.Name, c.UID)
	}
	if c.Status.Allocation == nil {
		return fmt.Errorf("ResourceClaim %s/%s is not allocated", c.Namespace, c.Name)
	}
	has := m.claims[c.UID]
	if has == nil {
		has = &claim{Namespace: c.Namespace, Name: c.Name}
		m.set(c.UID, has)
	}
	drivers := driversOf(c, resourcev1.SkipNodeOperationNodePrepareResources)
	if has.Done && slices.Contains(has.Pods, pod.UID) {
		return nil
	}
	if !slices.Contains(has.Pods, pod.UID) {
		m.mu.Lock()
		has.Pods = append(slices.Clone(has.Pods), pod.UID)
		m.mu.Unlock()
	}
	// Kept before a driver does anything: else what it did would not be given back.
	has.Drivers = slices.Sorted(maps.Keys(driversOf(c, resourcev1.SkipNodeOperationNodeUnprepareResources)))
	if err := m.save(); err != nil || has.Done {
		return err
	}
	var devices []Device
	for _, name := range slices.Sorted(maps.Keys(drivers)) {
		got, err := m.ask(ctx, name, c)
		if err != nil {
			return err
		}
		devices = append(devices, got...)
	}
	m.mu.Lock()
	has.Devices, has.Done = devices, true
	m.mu.Unlock()
	return m.save()
}

// driversOf returns the drivers of the claim's devices, without those all of whose
// devices skip the operation.
func driversOf(c *resourcev1.ResourceClaim, operation resourcev1.SkipNodeOperation) map[string]bool {
	out := map[string]bool{}
	for i := range c.Status.Allocation.Devices.Results {
		r := &c.Status.Allocation.Devices.Results[i]
		if !slices.Contains(r.SkipNodeOperations, operation) && !slices.Contains(r.SkipNodeOperations, resourcev1.SkipNodeOperationAll) {
			out[r.Driver] = true
		}
	}
	return out
}

// ask calls one driver to prepare a claim.
func (m *Manager) ask(ctx context.Context, name string, c *resourcev1.ResourceClaim) ([]Device, error) {
	d := m.driver(name)
	if d == nil {
		return nil, fmt.Errorf("DRA driver %s is not registered", name)
	}
	out := &dra.NodePrepareResourcesResponse{}
	in := &dra.NodePrepareResourcesRequest{Claims: []*dra.Claim{{Namespace: c.Namespace, Uid: string(c.UID), Name: c.Name}}}
	if err := d.call(ctx, d.prepare, in, out); err != nil {
		return nil, fmt.Errorf("NodePrepareResources of driver %s: %w", name, err)
	}
	r := out.Claims[string(c.UID)]
	switch {
	case r == nil:
		return nil, fmt.Errorf("NodePrepareResources of driver %s: no answer for claim %s/%s", name, c.Namespace, c.Name)
	case r.Error != "":
		return nil, fmt.Errorf("NodePrepareResources of driver %s failed for ResourceClaim %s: %s", name, c.Name, r.Error)
	}
	var devices []Device
	for _, v := range r.Devices {
		devices = append(devices, Device{Driver: name, Pool: v.PoolName, Device: v.DeviceName, Share: v.GetShareId(), Requests: v.RequestNames, CDI: v.CdiDeviceIds})
	}
	return devices, nil
}

// Unprepare gives the pod's claims back, once nothing of it runs.
func (m *Manager) Unprepare(ctx context.Context, pod types.UID) error {
	return m.Sweep(ctx, func(uid types.UID) bool { return uid != pod })
}

// Sweep gives the claims of pods back that are not known.
func (m *Manager) Sweep(ctx context.Context, known func(types.UID) bool) error {
	m.work.Lock()
	defer m.work.Unlock()
	if err := m.load(); err != nil {
		return err
	}
	var errs []error
	for uid, c := range maps.Clone(m.claims) {
		left := slices.DeleteFunc(slices.Clone(c.Pods), func(pod types.UID) bool { return !known(pod) })
		if len(left) == len(c.Pods) {
			continue
		}
		if len(left) == 0 {
			if err := m.unprepare(ctx, uid, c); err != nil {
				errs = append(errs, err)
				continue
			}
			m.set(uid, nil)
		}
		m.mu.Lock()
		c.Pods = left
		m.mu.Unlock()
		errs = append(errs, m.save())
	}
	return errors.Join(errs...)
}

func (m *Manager) unprepare(ctx context.Context, uid types.UID, c *claim) error {
	for _, name := range c.Drivers {
		d := m.driver(name)
		if d == nil {
			return fmt.Errorf("unprepare ResourceClaim %s/%s: DRA driver %s is not registered", c.Namespace, c.Name, name)
		}
		out := &dra.NodeUnprepareResourcesResponse{}
		in := &dra.NodeUnprepareResourcesRequest{Claims: []*dra.Claim{{Namespace: c.Namespace, Uid: string(uid), Name: c.Name}}}
		if err := d.call(ctx, d.unprepare, in, out); err != nil {
			return fmt.Errorf("NodeUnprepareResources of driver %s: %w", name, err)
		}
		r := out.Claims[string(uid)]
		if r == nil {
			return fmt.Errorf("NodeUnprepareResources of driver %s: no answer for claim %s/%s", name, c.Namespace, c.Name)
		}
		if r.Error != "" {
			return fmt.Errorf("NodeUnprepareResources of driver %s failed for ResourceClaim %s: %s", name, c.Name, r.Error)
		}
	}
	return nil
}

// Claim is a claim of a container that is prepared.
type Claim struct {
	Namespace, Name string
	// Use is the container's name of it: claim:NAME, or claim:NAME/REQUEST. It is ""
	// for the claim of extended resources.
	Use     v1.ResourceName
	Devices []Device
}

// Of returns the prepared claims of a container of the pod, each with the devices that
// are for the container.
func (m *Manager) Of(pod *v1.Pod, c *v1.Container) []Claim {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Claim
	add := func(use v1.ResourceName, name, request string) {
		for _, has := range m.claims {
			if has.Namespace == pod.Namespace && has.Name == name && slices.Contains(has.Pods, pod.UID) {
				out = append(out, Claim{has.Namespace, name, use, has.requested(request)})
			}
		}
	}
	for _, use := range c.Resources.Claims {
		for i := range pod.Spec.ResourceClaims {
			if pod.Spec.ResourceClaims[i].Name != use.Name {
				continue
			}
			name, _, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
			if err != nil || name == nil {
				continue
			}
			as := "claim:" + use.Name
			if use.Request != "" {
				as += "/" + use.Request
			}
			add(v1.ResourceName(as), *name, use.Request)
		}
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		for _, r := range s.RequestMappings {
			if r.ContainerName == c.Name {
				add("", s.ResourceClaimName, r.RequestName)
			}
		}
	}
	return out
}

// requested returns the claim's devices for a request, all for "".
func (c *claim) requested(request string) (out []Device) {
	for _, d := range c.Devices {
		is := func(r string) bool { return r == request || resourceclaim.BaseRequestRef(r) == request }
		if request == "" || len(d.Requests) == 0 || slices.ContainsFunc(d.Requests, is) {
			out = append(out, d)
		}
	}
	return out
}

// CDI returns the names of the devices for a container of the pod, whose claims are
// prepared (https://github.com/cncf-tags/container-device-interface).
func (m *Manager) CDI(pod *v1.Pod, c *v1.Container) []string {
	var out []string
	for _, claim := range m.Of(pod, c) {
		for _, d := range claim.Devices {
			for _, id := range d.CDI {
				if !slices.Contains(out, id) {
					out = append(out, id)
				}
			}
		}
	}
	return out
}

// set keeps a claim, or forgets it; m.work is held.
func (m *Manager) set(uid types.UID, c *claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.claims[uid] = c; c == nil {
		delete(m.claims, uid)
	}
}

// load reads the file, once.
func (m *Manager) load() error {
	if m.claims != nil {
		return nil
	}
	// The claims of pods that run are prepared again, and so are known again.
	claims, _, err := statefile.Recover[map[types.UID]*claim](m.File)
	if err != nil {
		return fmt.Errorf("the state of resource claims: %w", err)
	}
	if claims == nil || *claims == nil {
		claims = &map[types.UID]*claim{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.claims = *claims
	return nil
}

func (m *Manager) save() error {
	return errors.Join(os.MkdirAll(filepath.Dir(m.File), 0o750), statefile.Write(m.File, m.claims))
}
