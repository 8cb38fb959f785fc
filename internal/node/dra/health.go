package dra

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	drahealth "k8s.io/kubelet/pkg/apis/dra-health/v1"
	drahealthalpha "k8s.io/kubelet/pkg/apis/dra-health/v1alpha1"
)

const (
	// healthTimeout is how long a driver's report of a device counts, if the driver does
	// not say.
	healthTimeout = 30 * time.Second
	// healthRetry is the pause before a driver is asked again.
	healthRetry = 5 * time.Second
	// maxMessage is the length of a report's message, in bytes.
	maxMessage = 1024
)

// device names a device of the node.
type device struct{ driver, pool, name string }

// health is a driver's report of a device.
type health struct {
	status  v1.ResourceHealthStatus
	message string
	until   time.Time
}

// healthMethod returns the method by which a driver with these services reports the
// health of its devices, "" if it does not.
func healthMethod(services []string) string {
	switch {
	case slices.Contains(services, drahealth.DRAResourceHealthService):
		return drahealth.DRAResourceHealth_NodeWatchResources_FullMethodName
	case slices.Contains(services, drahealthalpha.DRAResourceHealthService):
		return drahealthalpha.DRAResourceHealth_NodeWatchResources_FullMethodName
	}
	return ""
}

// watchHealth takes a driver's reports until ctx ends, or the driver has none; the last
// ones count until they are too old.
func (m *Manager) watchHealth(ctx context.Context, name string, d *driver) {
	log := klog.FromContext(ctx).WithValues("driver", name)
	reports := make(chan []*drahealth.DeviceHealth)
	go func() {
		defer close(reports)
		for {
			err := d.reports(ctx, reports)
			if ctx.Err() != nil || status.Code(err) == codes.Unimplemented {
				return
			}
			log.V(2).Info("The reports of the health of a DRA driver's devices ended; asking again", "err", err)
			select {
			case <-m.Clock.After(healthRetry):
			case <-ctx.Done():
				return
			}
		}
	}()
	for from := (<-chan []*drahealth.DeviceHealth)(reports); ; {
		var expiry <-chan time.Time
		if next, ok := m.expire(name); ok {
			expiry = m.Clock.After(next)
		} else if from == nil {
			return
		}
		select {
		case devices, ok := <-from:
			if !ok {
				from = nil
				continue
			}
			m.report(name, devices)
		case <-expiry:
		}
	}
}

// reports passes on the driver's reports until they end.
func (d *driver) reports(ctx context.Context, to chan<- []*drahealth.DeviceHealth) error {
	// The messages of both versions are the same on the wire.
	s, err := d.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, d.health)
	if err != nil {
		return err
	}
	if err := s.SendMsg(&drahealth.NodeWatchResourcesRequest{}); err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	for {
		r := &drahealth.NodeWatchResourcesResponse{}
		if err := s.RecvMsg(r); err != nil {
			return err
		}
		select {
		case to <- r.Devices:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// report takes what a driver tells of its devices.
func (m *Manager) report(driver string, devices []*drahealth.DeviceHealth) {
	now := m.Clock.Now()
	changed := map[device]bool{}
	m.mu.Lock()
	if m.healths == nil {
		m.healths = map[device]health{}
	}
	for _, r := range devices {
		id := device{driver, r.GetDevice().GetPoolName(), r.GetDevice().GetDeviceName()}
		h := health{status: v1.ResourceHealthStatusUnknown, message: r.Message, until: now.Add(healthTimeout)}
		switch r.Health {
		case drahealth.HealthStatus_HEALTHY:
			h.status = v1.ResourceHealthStatusHealthy
		case drahealth.HealthStatus_UNHEALTHY:
			h.status = v1.ResourceHealthStatusUnhealthy
		}
		if s := r.HealthCheckTimeoutSeconds; s > 0 {
			h.until = now.Add(time.Duration(s) * time.Second)
		}
		if len(h.message) > maxMessage {
			h.message = h.message[:maxMessage-3] + "..."
		}
		if was := m.healths[id]; cmp.Or(was.status, v1.ResourceHealthStatusUnknown) != h.status || was.message != h.message {
			changed[id] = true
		}
		m.healths[id] = h
	}
	m.mu.Unlock()
	m.tell(changed)
}

// expire forgets the driver's reports that count no more, and returns how long the next
// one does.
func (m *Manager) expire(driver string) (next time.Duration, ok bool) {
	now := m.Clock.Now()
	changed := map[device]bool{}
	m.mu.Lock()
	for id, h := range m.healths {
		left := h.until.Sub(now)
		switch {
		case id.driver != driver:
		case left <= 0:
			delete(m.healths, id)
			changed[id] = h.status != v1.ResourceHealthStatusUnknown
		case !ok || left < next:
			next, ok = left, true
		}
	}
	m.mu.Unlock()
	m.tell(changed)
	return next, ok
}

// tell tells of the pods that have one of the devices.
func (m *Manager) tell(changed map[device]bool) {
	m.mu.Lock()
	var pods []types.UID
	for _, c := range m.claims {
		if slices.ContainsFunc(c.Devices, func(d Device) bool { return changed[device{d.Driver, d.Pool, d.Device}] }) {
			pods = append(pods, c.Pods...)
		}
	}
	f := m.changed
	m.mu.Unlock()
	if f != nil && len(pods) > 0 {
		f(pods)
	}
}

// Statuses returns the health of the devices that a container has by claims, for its
// status.
func (m *Manager) Statuses(pod *v1.Pod, c *v1.Container) (out []v1.ResourceStatus) {
	if !Has(pod) {
		return nil
	}
	for _, claim := range m.Of(pod, c) {
		if claim.Use == "" {
			continue
		}
		s := v1.ResourceStatus{Name: claim.Use}
		m.mu.Lock()
		for _, d := range claim.Devices {
			id := d.Driver + "/" + d.Pool + "/" + d.Device
			if len(d.CDI) > 0 {
				id = d.CDI[0]
			}
			if slices.ContainsFunc(s.Resources, func(r v1.ResourceHealth) bool { return r.ResourceID == v1.ResourceID(id) }) {
				continue
			}
			h := m.healths[device{d.Driver, d.Pool, d.Device}]
			r := v1.ResourceHealth{ResourceID: v1.ResourceID(id), Health: cmp.Or(h.status, v1.ResourceHealthStatusUnknown)}
			if h.message != "" {
				r.Message = &h.message
			}
			s.Resources = append(s.Resources, r)
		}
		m.mu.Unlock()
		if len(s.Resources) > 0 {
			out = append(out, s)
		}
	}
	return out
}
