package admission

import (
	"context"

	"k8s.io/apiserver/pkg/admission"
)

// Chain calls plug-ins in their order: first all that change an object, once
// more where one that calls others asks for it, and later all that check it.
type Chain struct {
	mutating   []admission.MutationInterface
	validating []admission.ValidationInterface
}

// NewChain makes a chain of plug-ins.
func NewChain(plugins ...admission.Interface) *Chain {
	c := &Chain{}
	for _, p := range plugins {
		if m, ok := p.(admission.MutationInterface); ok {
			c.mutating = append(c.mutating, m)
		}
		if v, ok := p.(admission.ValidationInterface); ok {
			c.validating = append(c.validating, v)
		}
	}
	return c
}

// Handles implements admission.Interface.
func (*Chain) Handles(admission.Operation) bool { return true }

// Admit implements admission.MutationInterface.
func (c *Chain) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if err := c.admit(ctx, a, o); err != nil {
		return err
	}
	again := a.GetReinvocationContext()
	if !again.ShouldReinvoke() {
		return nil
	}
	again.SetIsReinvoke()
	return c.admit(ctx, a, o)
}

func (c *Chain) admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	for _, m := range c.mutating {
		if m.Handles(a.GetOperation()) {
			if err := m.Admit(ctx, a, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (c *Chain) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	for _, v := range c.validating {
		if v.Handles(a.GetOperation()) {
			if err := v.Validate(ctx, a, o); err != nil {
				return err
			}
		}
	}
	return nil
}
