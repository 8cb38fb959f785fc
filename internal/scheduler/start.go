package scheduler

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/remote"
)

// Start starts the scheduler for a term, with the term's informers.
func Start(t component.Term, client kubernetes.Interface, clk clock.WithTicker, to *trace.Reporter) error {
	s, err := New(client, t.Informers, Options{Clock: clk, Trace: to, Recorder: t.Recorder(client, v1.DefaultSchedulerName, ""), Metrics: t.Metrics})
	if err != nil {
		return err
	}
	t.Go(func() { _ = s.Run(t.Ctx) })
	return nil
}

// RunProcess runs the scheduler in a process of its own until ctx is done.
func RunProcess(ctx context.Context, o component.Options) error {
	return o.Run(ctx, "kube-scheduler", func(t component.Term, _ *rest.Config, client kubernetes.Interface) error {
		steps := remote.New(client.Discovery().RESTClient(), "scheduler", "")
		t.Go(func() { steps.Run(t.Ctx) })
		return Start(t, client, clock.RealClock{}, steps.Reporter())
	})
}
