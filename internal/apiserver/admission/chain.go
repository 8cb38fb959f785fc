package admission

import (
	"context"
	"time"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/metrics"

	"keelson.dev/keelson/internal/trace"
)

// The phases, as upstream's metrics name them.
const (
	phaseAdmit    = "admit"
	phaseValidate = "validate"
)

// named is a plug-in. One without a name is not measured by itself.
type named struct {
	name string
	admission.Interface
}

// step is a plug-in's part in a phase.
type step struct {
	named
	concerns func(a admission.Attributes) bool
	run      func(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error
}

// chain calls plug-ins in their order: first all that change an object, once more
// where one that calls others asks for it, and later all that check it. The time that
// each takes for the requests that concern it, and that of the phases, are upstream's
// metrics.
type chain struct {
	admitting, validating []step
}

func newChain(plugins ...named) *chain {
	c := &chain{}
	for _, p := range plugins {
		concerns := func(admission.Attributes) bool { return true }
		if own, ok := p.Interface.(interface {
			concerns(admission.Attributes) bool
		}); ok {
			concerns = own.concerns
		}
		own, isPlain := p.Interface.(*plain)
		if m, ok := p.Interface.(admission.MutationInterface); ok && !isPlain {
			c.admitting = append(c.admitting, step{p, concerns, m.Admit})
		} else if isPlain && own.admits != nil {
			c.admitting = append(c.admitting, step{p, own.admits.concerns, own.admits.step})
		}
		if v, ok := p.Interface.(admission.ValidationInterface); ok && !isPlain {
			c.validating = append(c.validating, step{p, concerns, v.Validate})
		} else if isPlain && own.validates != nil {
			c.validating = append(c.validating, step{p, own.validates.concerns, own.validates.step})
		}
	}
	return c
}

// Handles implements admission.Interface.
func (*chain) Handles(admission.Operation) bool { return true }

// Admit implements admission.MutationInterface.
func (c *chain) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	start := time.Now()
	err := pass(ctx, c.admitting, a, o, phaseAdmit)
	if again := a.GetReinvocationContext(); err == nil && again.ShouldReinvoke() {
		again.SetIsReinvoke()
		err = pass(ctx, c.admitting, a, o, phaseAdmit)
	}
	metrics.Metrics.ObserveAdmissionStep(ctx, time.Since(start), err != nil, a, phaseAdmit)
	return err
}

// Validate implements admission.ValidationInterface.
func (c *chain) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	start := time.Now()
	err := pass(ctx, c.validating, a, o, phaseValidate)
	metrics.Metrics.ObserveAdmissionStep(ctx, time.Since(start), err != nil, a, phaseValidate)
	return err
}

// slow is how long a plug-in takes to be named in the trace of a request.
const slow = 500 * time.Microsecond

func verdict(err error) string {
	if err != nil {
		return "refused it"
	}
	return ""
}

// pass takes a through the steps of a phase, up to the first that refuses it.
func pass(ctx context.Context, steps []step, a admission.Attributes, o admission.ObjectInterfaces, phase string) error {
	for i := range steps {
		s := &steps[i]
		if !s.Handles(a.GetOperation()) || !s.concerns(a) {
			continue
		}
		start := time.Now()
		err := s.run(ctx, a, o)
		if s.name != "" {
			took := time.Since(start)
			metrics.Metrics.ObserveAdmissionController(ctx, took, err != nil, a, phase, s.name)
			if t := trace.TimingFrom(ctx); t != nil && (took >= slow || err != nil) {
				t.Part(s.name, verdict(err), took)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
