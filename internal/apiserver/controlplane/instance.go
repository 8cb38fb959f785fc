package controlplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/auditing"
	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/apiserver/kubelet"
	"keelson.dev/keelson/internal/apiserver/serviceip"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/apiserver/tracing"
	"keelson.dev/keelson/internal/apiserver/usage"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/store/encryption"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/otlp"
)

// Instance is a running API server with its store.
type Instance struct {
	Options
	Store     store.Store
	Server    *apiserver.Server
	Catalogue *catalogue.Catalogue
	Informers *inprocess.Informers
	Certs     *certs.Bundle
	Trace     *trace.Recorder
	// Meter measures nodes and pods for metrics.k8s.io.
	Meter *usage.Meter
	// FollowsAddress reports whether the API server is advertised by the machine's current
	// address; Advertise is then the one that it had at the start.
	FollowsAddress bool
	// Address is where the API server listens; empty if it does not.
	Address string
	// Process ends before the store is closed.
	Process *component.Process
	// Why, while a step of the start takes long, holds what it waits for: a string
	// that begins with a colon.
	Why atomic.Value

	http       *http.Server
	nodes      *kubelet.Transport
	tokens     *token.Authority
	auditor    *auditing.Auditor // nil if nothing is logged
	encryption *encryption.Codec // nil if nothing is encrypted
	codec      store.Codec
	addresses  *serviceip.Keeper
	shared     *tracing.Shared // with the servers on the same etcd; nil if nothing is recorded
	services   webhook.ServiceResolver
}

// builtinTypes are shared by the servers of a process. The first write needs them,
// and Start has them read while it does other things.
var builtinTypes = sync.OnceValue(func() managedfields.TypeConverter { return apiserver.NewTypes(catalogue.Scheme) })

// Start starts a server and returns when it is ready. It ends when ctx does; Stop
// waits for the end.
func Start(ctx context.Context, o Options) (*Instance, error) {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.API.RequestTimeout == 0 {
		o.API.RequestTimeout = time.Minute
	}
	if !o.ServiceCIDR.IsValid() {
		o.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")
	}
	follows := !o.Advertise.IsValid()
	if follows {
		o.Advertise = component.Address()
	}
	if service, public := o.ServiceCIDR.Addr().Is6(), o.Advertise.Unmap().Is6(); service != public {
		return nil, fmt.Errorf("the range of the services' addresses, %s, must be of the family of the address that the API server is advertised by, %s: give --advertise-address, or the other family's range first", o.ServiceCIDR, o.Advertise)
	}
	hidden, err := o.API.RuntimeConfig.Hidden(catalogue.Builtin())
	if err != nil {
		return nil, err
	}
	c := &Instance{Options: o, Catalogue: catalogue.NewHiding(catalogue.Builtin(), hidden), Trace: trace.NewRecorder(cmp.Or(o.TraceMemory, trace.DefaultLimit)), Process: component.NewProcess(ctx), FollowsAddress: follows}
	if o.OTLP.Enabled() {
		spans, err := otlp.New(ctx, o.OTLP, c.Trace)
		if err != nil {
			return nil, err
		}
		c.Process.Go(func() { spans.Run(c.Process.Ctx) })
	}
	go builtinTypes()
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Instance) start() error {
	var listener net.Listener
	if c.Listen != "" {
		// First, because it is what fails most often.
		err := c.Step("listen", func() (err error) {
			listener, err = c.Serving.Listen(c.Process.Ctx, c.Listen)
			if err != nil {
				return fmt.Errorf("%w: stop the program that listens there, or choose another address with --listen", err)
			}
			c.Address = listener.Addr().String()
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"store", c.openStore}, {"certificates", c.ensureCerts}, {"bootstrap", c.bootstrap},
		{"api server", func() error { return c.serve(listener) }},
	} {
		if err := c.Step(s.name, s.do); err != nil {
			if listener != nil {
				listener.Close()
			}
			return err
		}
	}
	return nil
}

// Step does a step of the start, of which Options.Progress and Options.Waiting are
// told.

func (c *Instance) Step(name string, f func() error) error {
	begin := time.Now()
	if c.Waiting != nil {
		done := make(chan struct{})
		defer close(done)
		go func() {
			t := time.NewTicker(waitingPeriod)
			defer t.Stop()
			for {
				select {
				case <-t.C:
					why, _ := c.Why.Load().(string)
					c.Waiting(name, why, time.Since(begin))
				case <-done:
					return
				}
			}
		}()
	}
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if c.Progress != nil {
		c.Progress(name, time.Since(begin))
	}
	return nil
}

// waitingPeriod is the time between two calls of Options.Waiting for a step.
const waitingPeriod = 3 * time.Second

// Done is closed when the server ends by itself or is stopped.
func (c *Instance) Done() <-chan struct{} { return c.Process.Ctx.Done() }

// Stop ends the server: /readyz fails, watches and streams are ended, requests
// finished, the store closed.
func (c *Instance) Stop() error {
	if c.Server != nil {
		c.Server.Drain()
		if c.http != nil && c.ShutdownDelay > 0 {
			select {
			case <-time.After(c.ShutdownDelay):
			case <-c.Process.Ctx.Done():
			}
		}
		if c.http != nil && !c.NoDrain && c.Serving.SendRetryAfter {
			// The watches end first: their clients are told to go elsewhere.
			c.Server.Refuse()
			c.Server.Shutdown()
			ctx, cancel := context.WithTimeout(context.Background(), c.API.RequestTimeout)
			c.Server.Finish(ctx)
			cancel()
		}
		c.Server.Shutdown()
	}
	var errs []error
	if c.http != nil && c.NoDrain {
		errs = append(errs, c.http.Close())
	} else if c.http != nil {
		ctx, cancel := context.WithTimeout(context.Background(), c.API.RequestTimeout)
		if err := c.http.Shutdown(ctx); err != nil {
			errs = append(errs, c.http.Close())
		}
		cancel()
	}
	c.Process.End()
	if c.auditor != nil {
		c.auditor.Shutdown()
	}
	if c.Informers != nil {
		c.Informers.Shutdown()
	}
	c.Process.Wait()
	if c.Store != nil {
		var failed error
		if s, ok := c.Store.(*embedded.Store); ok {
			failed = s.Err()
		}
		errs = append(errs, c.Store.Close(), failed)
	}
	return errors.Join(errs...)
}
