package scheduler

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/component"
)

// Start starts the scheduler for a term, with the term's informers.
func Start(t component.Term, client kubernetes.Interface, clk clock.WithTicker) error {
	s, err := New(client, t.Informers, Options{Clock: clk, Recorder: t.Recorder(client, v1.DefaultSchedulerName, ""), Metrics: t.Metrics})
	if err != nil {
		return err
	}
	t.Go(func() { _ = s.Run(t.Ctx) })
	return nil
}

// RunProcess runs the scheduler in a process of its own until ctx is done.
func RunProcess(ctx context.Context, o component.Options) error {
	return o.Run(ctx, "kube-scheduler", func(t component.Term, _ *rest.Config, client kubernetes.Interface) error {
		return Start(t, client, clock.RealClock{})
	})
}
