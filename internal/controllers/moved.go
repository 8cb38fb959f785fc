package controllers

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/reconcile"
	"time"
)

// The names that the loop had in this package, for what is being written now.
type (
	Queue                  = reconcile.Queue
	Result                 = reconcile.Result
	Keys                   = reconcile.Keys
	Run                    = reconcile.Run
	Loop[T runtime.Object] = reconcile.Loop[T]
)

func NewQueue(name string, clk clock.WithTicker) Queue { return reconcile.NewQueue(name, clk) }
func Together(runs ...Run) Run                         { return reconcile.Together(runs...) }
func Every(clk clock.WithTicker, period time.Duration, do Run, reads ...cache.SharedIndexInformer) Run {
	return reconcile.Every(clk, period, do, reads...)
}
func WaitFor(ctx context.Context, informers ...cache.SharedIndexInformer) bool {
	return reconcile.WaitFor(ctx, informers...)
}
func Key(obj any) string                           { return reconcile.Key(obj) }
func SplitKey(key string) (namespace, name string) { return reconcile.SplitKey(key) }
func Deleted[T any](obj any) (T, bool)             { return reconcile.Deleted[T](obj) }
func Ignore[T any](T)                              {}
func Enqueue[T any](queue Queue) func(T)           { return reconcile.Enqueue[T](queue) }
func Handle[T any](inf cache.SharedIndexInformer, add func(T), update func(old, cur T), del func(T)) {
	reconcile.Handle(inf, add, update, del)
}
func HandleListed[T any](inf cache.SharedIndexInformer, add func(o T, listed bool), update func(old, cur T), del func(T)) {
	reconcile.HandleListed(inf, add, update, del)
}
