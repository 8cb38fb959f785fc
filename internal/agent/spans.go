package agent

import (
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/trace/otlp"
)

// spans returns what sends the node's steps to its own collector, nil if it has none.
func (o *Options) spans(process *component.Process) (*otlp.Component, error) {
	if o.Tracing == "" {
		return nil, nil
	}
	to, err := otlp.ParseConfig(o.Tracing)
	if err != nil {
		return nil, err
	}
	c, err := otlp.NewComponent(process.Ctx, to)
	if err != nil {
		return nil, err
	}
	process.Go(func() { c.Run(process.Ctx) })
	return c, nil
}
