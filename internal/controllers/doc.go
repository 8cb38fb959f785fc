// Package controllers holds what every controller of a cluster shares: the context
// it is made with, creation and deletion expectations, adoption by owner reference,
// and a few facts about pods; the loop is of package reconcile. Each controller is
// a package below this one, and a row of the table in package manager, which runs
// them.
//
// # Adding a controller
//
// Make a folder named after what it does, with a doc.go, and in it a constructor
// that takes a Context and returns a Run:
//
//	func New(c controllers.Context) (reconcile.Run, error) {
//		jobs, pods := c.Informers.Batch().V1().Jobs(), c.Informers.Core().V1().Pods().Informer()
//		j := &controller{client: c.Client(), recorder: c.Recorder(), clock: c.Clock, queue: c.Queue("job")}
//		reconcile.Handle(jobs.Informer(), reconcile.Enqueue[*batch.Job](j.queue), nil, nil)
//		reconcile.Handle(pods, j.podChanged, nil, nil) // queues the job that the pod is of
//		return reconcile.Loop[*batch.Job]{
//			Queue: j.queue, Workers: 5, For: jobs.Informer(), Reads: []cache.SharedIndexInformer{pods}, Reconcile: j.reconcile,
//		}.Run, nil
//	}
//
//	func (j *controller) reconcile(ctx context.Context, job *batch.Job) (reconcile.Result, error)
//
// Then add its row to the table, and print docs/controllers.md anew. Tests of
// package manager check the row: its account has a role (internal/apiserver/authz),
// and its Watches are the informers that New asks for.
//
//   - New registers handlers and indexes, and starts nothing. What is to run, Run
//     starts; it returns when all of that has ended. Together puts several loops
//     into one Run, Every is for what is done from time to time.
//   - An object from an informer is shared: reconcile copies it before it changes
//     it. All its reads and writes take ctx, which carries the object as their
//     cause.
//   - An error has the key come again with exponential backoff. To come back at a
//     certain time, return Result{RequeueAfter: d}. Bad input that only its author
//     can mend is told in an event and a condition, and is no error.
//   - A cache may be behind what reconcile has written: see Expectations for
//     objects with generated names, and the preconditions of updates and deletes.
//   - Messages, reasons and events are upstream's. Recorder names the row's
//     component as their source.
//   - Tests run New in testing/synctest with package controllertest. Its Trial
//     kills the controller, loses its answers and lets its informers lag; its
//     Misfit checks that an object that cannot be reconciled makes it do a bounded
//     number of requests, and holds up no other.
//   - What is configured is in Tuning, under kube-controller-manager's flags.
//
// It may import client-go, apimachinery, internal/reconcile, internal/trace and
// internal/network/lb, whose options its context has, nothing else of this module.
package controllers
