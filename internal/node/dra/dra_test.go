package dra

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	drahealth "k8s.io/kubelet/pkg/apis/dra-health/v1"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	drabeta "k8s.io/kubelet/pkg/apis/dra/v1beta1"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

// server is a driver that notes what it is asked.
type server struct {
	dra.UnimplementedDRAPluginServer
	mu    sync.Mutex
	calls []string
	fail  string
}

func (s *server) note(call string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	return s.fail
}

func (s *server) NodePrepareResources(_ context.Context, r *dra.NodePrepareResourcesRequest) (*dra.NodePrepareResourcesResponse, error) {
	out := &dra.NodePrepareResourcesResponse{Claims: map[string]*dra.NodePrepareResourceResponse{}}
	for _, c := range r.Claims {
		out.Claims[c.Uid] = &dra.NodePrepareResourceResponse{Error: s.note("prepare " + c.Name), Devices: []*dra.Device{
			{RequestNames: []string{"a"}, PoolName: "pool", DeviceName: "one", CdiDeviceIds: []string{"example.com/gpu=one"}},
			{RequestNames: []string{"b/sub"}, PoolName: "pool", DeviceName: "two", CdiDeviceIds: []string{"example.com/gpu=two"}},
		}}
	}
	return out, nil
}

func (s *server) NodeUnprepareResources(_ context.Context, r *dra.NodeUnprepareResourcesRequest) (*dra.NodeUnprepareResourcesResponse, error) {
	out := &dra.NodeUnprepareResourcesResponse{Claims: map[string]*dra.NodeUnprepareResourceResponse{}}
	for _, c := range r.Claims {
		out.Claims[c.Uid] = &dra.NodeUnprepareResourceResponse{Error: s.note("unprepare " + c.Name)}
	}
	return out, nil
}

// called checks that these were the driver's calls since the last time.
func (s *server) called(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.calls, want) {
		t.Errorf("calls %q, want %q", s.calls, want)
	}
	s.calls = nil
}

func serve(t *testing.T) (*server, string) {
	t.Helper()
	s, g := &server{}, grpc.NewServer()
	dra.RegisterDRAPluginServer(g, s)
	path := filepath.Join(t.TempDir(), "dra.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return s, path
}

const driverName = "dra.example.com"

func pod(uid types.UID) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p-" + string(uid), Namespace: "n", UID: uid}, Spec: v1.PodSpec{ResourceClaims: []v1.PodResourceClaim{{Name: "devices", ResourceClaimName: ptr.To("c")}}}}
}

func allocated(pods ...types.UID) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "n", UID: "cu"}, Status: resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{
		Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "a", Driver: driverName, Pool: "pool", Device: "one"}}}}}}
	for _, p := range pods {
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: "p-" + string(p), UID: p})
	}
	return c
}

// TestSharedClaim checks that a claim of two pods is prepared once and given back
// after both, by an agent after the one that prepared it, too.
func TestSharedClaim(t *testing.T) {
	s, socket := serve(t)
	client := fake.NewClientset(allocated("1", "2"))
	file := filepath.Join(t.TempDir(), "state")
	start := func() *Manager {
		m := New(client, "node", file, clock.RealClock{})
		if err := m.Register(t.Context(), driverName, socket, []string{dra.DRAPluginService}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Deregister(driverName) })
		return m
	}
	m := start()
	for range 2 {
		if err := errors.Join(m.Prepare(t.Context(), pod("1")), m.Prepare(t.Context(), pod("2"))); err != nil {
			t.Fatal(err)
		}
	}
	s.called(t, "prepare c")
	for request, want := range map[string][]string{"": {"example.com/gpu=one", "example.com/gpu=two"}, "a": {"example.com/gpu=one"}, "b": {"example.com/gpu=two"}, "none": nil} {
		c := &v1.Container{Resources: v1.ResourceRequirements{Claims: []v1.ResourceClaim{{Name: "devices", Request: request}}}}
		if got := m.CDI(pod("1"), c); !slices.Equal(got, want) {
			t.Errorf("request %q: devices %q, want %q", request, got, want)
		}
	}
	if got := m.CDI(pod("1"), &v1.Container{}); len(got) != 0 {
		t.Errorf("a container without claims has %q", got)
	}
	if err := m.Unprepare(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	s.called(t)
	m = start()
	s.fail = "busy"
	if err := m.Unprepare(t.Context(), "2"); err == nil || !strings.Contains(err.Error(), "failed for ResourceClaim c: busy") {
		t.Errorf("error %v", err)
	}
	s.fail = ""
	if err := m.Sweep(t.Context(), func(types.UID) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := m.Sweep(t.Context(), func(types.UID) bool { return false }); err != nil {
		t.Fatal(err)
	}
	s.called(t, "unprepare c", "unprepare c")
}

// TestPrepareRefuses checks that a pod gets no devices of a claim that is not
// its.
func TestPrepareRefuses(t *testing.T) {
	s, socket := serve(t)
	free := allocated("1")
	free.Status.Allocation = nil
	for what, c := range map[string]struct {
		claim      *resourcev1.ResourceClaim
		unknown    bool
		fail, want string
	}{
		"of another pod":    {allocated("2"), false, "", "is not allowed to use ResourceClaim n/c"},
		"not allocated":     {free, false, "", "is not allocated"},
		"unknown driver":    {allocated("1"), true, "", "DRA driver dra.example.com is not registered"},
		"the driver's word": {allocated("1"), false, "no such device", "failed for ResourceClaim c: no such device"},
	} {
		m := New(fake.NewClientset(c.claim), "node", filepath.Join(t.TempDir(), "state"), clock.RealClock{})
		if !c.unknown {
			if err := m.Register(t.Context(), driverName, socket, []string{dra.DRAPluginService}); err != nil {
				t.Fatal(err)
			}
		}
		s.mu.Lock()
		s.fail = c.fail
		s.mu.Unlock()
		if err := m.Prepare(t.Context(), pod("1")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", what, err, c.want)
		}
		m.Deregister(driverName)
	}
}

func TestRegister(t *testing.T) {
	m := New(fake.NewClientset(), "node", filepath.Join(t.TempDir(), "state"), clock.RealClock{})
	for versions, want := range map[string]bool{dra.DRAPluginService: true, drabeta.DRAPluginService: true, "1.0.0": false, "": false} {
		if err := m.Register(t.Context(), "d", "/no/such/socket", []string{versions}); (err == nil) != want {
			t.Errorf("%q: %v", versions, err)
		}
	}
	m.Deregister("d")
}

// TestWipe checks that the devices of a driver that has gone are taken out of the
// cluster, and those of others stay.
func TestWipe(t *testing.T) {
	slice := func(name, driver, node string) *resourcev1.ResourceSlice {
		return &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.ResourceSliceSpec{Driver: driver, NodeName: &node}}
	}
	client := fake.NewClientset(slice("gone", "gone.example.com", "node"))
	m := New(client, "node", filepath.Join(t.TempDir(), "state"), clock.RealClock{})
	if err := m.wipe(t.Context()); err != nil {
		t.Fatal(err)
	}
	var selectors []string
	for _, a := range client.Actions() {
		if d, ok := a.(interface {
			GetListOptions() metav1.ListOptions
		}); ok && a.GetVerb() == "delete-collection" {
			selectors = append(selectors, d.GetListOptions().FieldSelector)
		}
	}
	if want := []string{"spec.nodeName=node,spec.driver=gone.example.com"}; !slices.Equal(selectors, want) {
		t.Errorf("deleted by %q, want %q", selectors, want)
	}
}

// reporter reports what a test sends.
type reporter struct {
	drahealth.UnimplementedDRAResourceHealthServer
	reports chan *drahealth.NodeWatchResourcesResponse
}

func (r *reporter) NodeWatchResources(_ *drahealth.NodeWatchResourcesRequest, s grpc.ServerStreamingServer[drahealth.NodeWatchResourcesResponse]) error {
	for {
		select {
		case m := <-r.reports:
			if err := s.Send(m); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

// TestHealth checks that what a driver reports of a device is told with the container
// that has it, until it is too old.
func TestHealth(t *testing.T) {
	r := &reporter{reports: make(chan *drahealth.NodeWatchResourcesResponse)}
	s, g := &server{}, grpc.NewServer()
	dra.RegisterDRAPluginServer(g, s)
	drahealth.RegisterDRAResourceHealthServer(g, r)
	path := filepath.Join(t.TempDir(), "dra.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	clk := testingclock.NewFakeClock(time.Unix(1, 0))
	m := New(fake.NewClientset(allocated("1")), "node", filepath.Join(t.TempDir(), "state"), clk)
	told := make(chan []types.UID)
	m.OnChange(func(pods []types.UID) { told <- pods })
	if err := m.Register(t.Context(), driverName, path, []string{dra.DRAPluginService, drahealth.DRAResourceHealthService}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Deregister(driverName) })
	p := pod("1")
	if err := m.Prepare(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	c := &v1.Container{Resources: v1.ResourceRequirements{Claims: []v1.ResourceClaim{{Name: "devices", Request: "a"}}}}
	is := func(want v1.ResourceHealthStatus, message *string) {
		t.Helper()
		got := m.Statuses(p, c)
		if w := []v1.ResourceStatus{{Name: "claim:devices/a", Resources: []v1.ResourceHealth{{ResourceID: "example.com/gpu=one", Health: want, Message: message}}}}; !reflect.DeepEqual(got, w) {
			t.Errorf("got %+v, want %+v", got, w)
		}
	}
	is(v1.ResourceHealthStatusUnknown, nil)
	for _, x := range []struct {
		report  drahealth.HealthStatus
		message *string
		want    v1.ResourceHealthStatus
	}{{drahealth.HealthStatus_HEALTHY, nil, v1.ResourceHealthStatusHealthy}, {drahealth.HealthStatus_UNHEALTHY, ptr.To("hot"), v1.ResourceHealthStatusUnhealthy}} {
		r.reports <- &drahealth.NodeWatchResourcesResponse{Devices: []*drahealth.DeviceHealth{{Device: &drahealth.DeviceIdentifier{PoolName: "pool", DeviceName: "one"}, Health: x.report, Message: ptr.Deref(x.message, "")}}}
		if pods := <-told; !slices.Equal(pods, []types.UID{"1"}) {
			t.Errorf("told of %q", pods)
		}
		is(x.want, x.message)
	}
	for !clk.HasWaiters() { // until the watch waits for the end of the report
		time.Sleep(time.Millisecond)
	}
	clk.Step(healthTimeout + time.Second)
	<-told
	is(v1.ResourceHealthStatusUnknown, nil)
}
