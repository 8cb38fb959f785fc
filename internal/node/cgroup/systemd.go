package cgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	systemddbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// systemdTimeout is the time that systemd has for one slice.
const systemdTimeout = 30 * time.Second

// property is a property of a unit by systemd's name, an unsigned number or a
// truth.
type property struct {
	name  string
	value any
}

// properties returns the resources as systemd keeps them for a slice; what systemd
// does not know would be taken back when it reloads.
func properties(r Resources, v2 bool) []property {
	unsigned := func(v int64) uint64 {
		if v == Unlimited {
			return math.MaxUint64
		}
		return uint64(v)
	}
	var out []property
	add := func(set bool, name string, v uint64) {
		if set {
			out = append(out, property{name, v})
		}
	}
	if v2 {
		add(r.CPUShares != 0, "CPUWeight", Weight(r.CPUShares))
		add(r.Memory != 0, "MemoryMax", unsigned(r.Memory))
		add(true, "MemoryMin", uint64(r.Protection.Min))
		add(true, "MemoryLow", uint64(r.Protection.Low))
	} else {
		add(r.CPUShares != 0, "CPUShares", r.CPUShares)
		add(r.Memory != 0, "MemoryLimit", unsigned(r.Memory))
	}
	perSecond := unsigned(r.CPUQuota)
	if r.CPUQuota > 0 {
		// systemd counts in steps of 10 ms; a limit may not become smaller.
		const step = 10_000
		perSecond = (uint64(r.CPUQuota)*1_000_000/Period + step - 1) / step * step
	}
	add(r.CPUQuota != 0, "CPUQuotaPerSecUSec", perSecond)
	add(r.Pids != 0, "TasksMax", unsigned(r.Pids))
	return out
}

// systemd makes slices over D-Bus.
type systemd struct{}

func (systemd) connect() (context.Context, context.CancelFunc, *systemddbus.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), systemdTimeout)
	c, err := systemddbus.NewSystemConnectionContext(ctx)
	if err != nil {
		cancel()
		return nil, nil, nil, fmt.Errorf("systemd does not answer on D-Bus: %w; is this machine's init systemd? Else use the driver %s", err, Cgroupfs)
	}
	return ctx, cancel, c, nil
}

func (s systemd) Apply(slice string, properties []property) error {
	ctx, cancel, c, err := s.connect()
	if err != nil {
		return err
	}
	defer cancel()
	defer c.Close()
	var set []systemddbus.Property
	for _, p := range properties {
		set = append(set, systemddbus.Property{Name: p.name, Value: dbus.MakeVariant(p.value)})
	}
	unit := []systemddbus.Property{systemddbus.PropDescription("pods of Kubernetes")}
	for _, name := range []string{"CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"} {
		unit = append(unit, systemddbus.Property{Name: name, Value: dbus.MakeVariant(true)})
	}
	unit = append(unit, systemddbus.Property{Name: "DefaultDependencies", Value: dbus.MakeVariant(false)})
	done := make(chan string, 1)
	_, err = c.StartTransientUnitContext(ctx, slice, "replace", append(unit, set...), done)
	var refused dbus.Error
	switch {
	case errors.As(err, &refused) && strings.HasSuffix(refused.Name, "UnitExists"):
		return c.SetUnitPropertiesContext(ctx, slice, true, set...)
	case err != nil:
		return err
	}
	return finished(ctx, slice, done)
}

func (s systemd) Remove(slice string) error {
	ctx, cancel, c, err := s.connect()
	if err != nil {
		return err
	}
	defer cancel()
	defer c.Close()
	done := make(chan string, 1)
	_, err = c.StopUnitContext(ctx, slice, "replace", done)
	var refused dbus.Error
	if errors.As(err, &refused) && strings.HasSuffix(refused.Name, "NoSuchUnit") {
		return nil
	}
	if err != nil {
		return err
	}
	return finished(ctx, slice, done)
}

// finished waits for the end of systemd's job.
func finished(ctx context.Context, slice string, done <-chan string) error {
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("systemd: slice %s: %s", slice, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("systemd: slice %s: %w", slice, context.Cause(ctx))
	}
}
