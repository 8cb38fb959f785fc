package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing"
	"k8s.io/apiserver/pkg/util/flowcontrol/metrics"
	flowcontrolrequest "k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/apiserver/fairqueue"
)

// Fairness bounds the requests that are answered at once.
type Fairness struct {
	// Off has no request wait for its turn.
	Off bool
	// InFlight and MutatingInFlight are added up (if both are 0, to upstream's 600).
	// With Off each is the limit of its kind of requests, beyond which they are
	// refused; 0 is none.
	InFlight, MutatingInFlight int
}

// Validate says what cannot be of what the flags say.
func (f Fairness) Validate() error {
	var errs []error
	if f.InFlight < 0 {
		errs = append(errs, errors.New("--max-requests-inflight can not be negative value"))
	}
	if f.MutatingInFlight < 0 {
		errs = append(errs, errors.New("--max-mutating-requests-inflight can not be negative value"))
	}
	if !f.Off && f.InFlight+f.MutatingInFlight <= 0 {
		errs = append(errs, fmt.Errorf("invalid configuration: MaxRequestsInFlight=%d and MaxMutatingRequestsInFlight=%d; they must add up to something positive",
			f.InFlight, f.MutatingInFlight))
	}
	return errors.Join(errs...)
}

func (f Fairness) limit() int {
	if n := f.InFlight + f.MutatingInFlight; n > 0 {
		return n
	}
	return 600
}

// priorities are the flow schemas and priority levels that a cluster has from its
// first start.
func priorities() (out []runtime.Object) {
	for _, l := range [][]*flowcontrolv1.PriorityLevelConfiguration{bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations} {
		for _, o := range l {
			out = append(out, o.DeepCopy())
		}
	}
	for _, l := range [][]*flowcontrolv1.FlowSchema{bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas} {
		for _, o := range l {
			out = append(out, o.DeepCopy())
		}
	}
	return out
}

// newFairness makes what decides when it is a request's turn; nil if nothing
// does.
func (c *Cluster) newFairness() flowcontrol.Interface {
	metrics.Register()
	if c.Fairness.Off {
		return nil
	}
	f := &onDemand{c: c}
	f.Interface = flowcontrol.NewTestable(flowcontrol.TestableConfig{
		Name: "Controller", Clock: clock.RealClock{}, AsFieldManager: flowcontrol.ConfigConsumerAsFieldManager,
		FoundToDangling: func(found bool) bool { return !found },
		InformerFactory: c.Informers, FlowcontrolClient: c.Client(apiServer).FlowcontrolV1(), ServerConcurrencyLimit: c.Fairness.limit(),
		ReqsGaugeVec: metrics.PriorityLevelConcurrencyGaugeVec, ExecSeatsGaugeVec: metrics.PriorityLevelExecutionSeatsGaugeVec,
		QueueSetFactory: &fairqueue.Factory{Clock: clock.RealClock{}, Patience: c.API.RequestTimeout / 4},
	})
	return f
}

// onDemand starts the controller of the levels when the first request has to wait
// for its turn, or somebody looks: where only administrators and components of this
// process are at work, as in tests, there is nothing for it to do.
type onDemand struct {
	flowcontrol.Interface
	c    *Cluster
	once sync.Once
}

// Handle implements flowcontrol.Interface.
func (f *onDemand) Handle(ctx context.Context, digest flowcontrol.RequestDigest, note func(*flowcontrolv1.FlowSchema, *flowcontrolv1.PriorityLevelConfiguration, string),
	estimate func() flowcontrolrequest.WorkEstimate, queued fairqueuing.QueueNoteFn, execute func()) {
	f.Wake(ctx)
	f.Interface.Handle(ctx, digest, note, estimate, queued, execute)
}

// wakeLimit is how long a request waits for the controller at most; then it is one of
// the schema catch-all, the only one that a controller without configuration has.
const wakeLimit = 2 * time.Second

// Wake starts the controller if it does not run, and waits until it has taken in the
// schemas and levels.
func (f *onDemand) Wake(ctx context.Context) {
	f.once.Do(func() {
		f.c.wg.Go(func() {
			if err := f.Run(f.c.ctx.Done()); err != nil && f.c.ctx.Err() == nil {
				klog.FromContext(f.c.ctx).Error(err, "Priority and fairness ended")
			}
		})
		_ = wait.PollUntilContextTimeout(ctx, time.Millisecond, wakeLimit, true, func(context.Context) (bool, error) { return f.ready(), nil })
	})
}

// ready says whether the controller has the limits of every level with queues, and has told so in
// the schemas' status.
func (f *onDemand) ready() bool {
	informers := f.c.Informers.Flowcontrol().V1()
	if !informers.PriorityLevelConfigurations().Informer().HasSynced() || !informers.FlowSchemas().Informer().HasSynced() {
		return false // of none, all are ready
	}
	levels, err := informers.PriorityLevelConfigurations().Lister().List(labels.Everything())
	if err != nil || slices.ContainsFunc(levels, func(l *flowcontrolv1.PriorityLevelConfiguration) bool {
		return l.Spec.Limited != nil && l.Spec.Limited.LimitResponse.Queuing != nil && f.GetMaxSeats(l.Name) == 0
	}) {
		return false
	}
	schemas, err := informers.FlowSchemas().Lister().List(labels.Everything())
	return err == nil && !slices.ContainsFunc(schemas, func(s *flowcontrolv1.FlowSchema) bool { return len(s.Status.Conditions) == 0 })
}

// exempt gives the UIDs of what requests without a limit match.
func (c *Cluster) exempt() func() (schema, level types.UID) {
	if c.Fairness.Off {
		return nil
	}
	schemas, levels := c.Informers.Flowcontrol().V1().FlowSchemas().Lister(), c.Informers.Flowcontrol().V1().PriorityLevelConfigurations().Lister()
	return func() (schema, level types.UID) {
		if fs, err := schemas.Get(flowcontrolv1.FlowSchemaNameExempt); err == nil {
			schema = fs.UID
		}
		if pl, err := levels.Get(flowcontrolv1.PriorityLevelConfigurationNameExempt); err == nil {
			level = pl.UID
		}
		return schema, level
	}
}

// keepPriorities makes what is mandatory anew when it is deleted or changed, and
// what is suggested when it is deleted.
func (c *Cluster) keepPriorities() {
	schemas, levels := c.Informers.Flowcontrol().V1().FlowSchemas().Informer(), c.Informers.Flowcontrol().V1().PriorityLevelConfigurations().Informer()
	wake := make(chan struct{}, 1)
	changed := func(any) {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	for _, i := range []cache.SharedIndexInformer{schemas, levels} {
		_, _ = i.AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: changed, UpdateFunc: func(_, o any) { changed(o) }})
	}
	c.wg.Go(func() {
		retry := time.NewTimer(0)
		<-retry.C
		for {
			select {
			case <-wake:
			case <-retry.C:
			case <-c.ctx.Done():
				return
			}
			if err := c.restorePriorities(c.ctx); err != nil && c.ctx.Err() == nil {
				klog.FromContext(c.ctx).Error(err, "Restoring flow schemas and priority levels failed; trying again")
				retry.Reset(time.Second)
			}
		}
	})
}

func (c *Cluster) restorePriorities(ctx context.Context) error {
	client := c.Client(apiServer).FlowcontrolV1()
	schemas, levels := c.Informers.Flowcontrol().V1().FlowSchemas().Lister(), c.Informers.Flowcontrol().V1().PriorityLevelConfigurations().Lister()
	for _, o := range priorities() {
		var err error
		switch want := o.(type) {
		case *flowcontrolv1.PriorityLevelConfiguration:
			have, lerr := levels.Get(want.Name)
			c.row(flowcontrolv1.GroupName, "v1", "prioritylevelconfigurations").Default(want)
			switch {
			case apierrors.IsNotFound(lerr):
				_, err = client.PriorityLevelConfigurations().Create(ctx, want, metav1.CreateOptions{})
			case kept(have) && !equality.Semantic.DeepEqual(have.Spec, want.Spec):
				next := have.DeepCopy()
				next.Spec = want.Spec
				_, err = client.PriorityLevelConfigurations().Update(ctx, next, metav1.UpdateOptions{})
			}
		case *flowcontrolv1.FlowSchema:
			have, lerr := schemas.Get(want.Name)
			c.row(flowcontrolv1.GroupName, "v1", "flowschemas").Default(want)
			switch {
			case apierrors.IsNotFound(lerr):
				_, err = client.FlowSchemas().Create(ctx, want, metav1.CreateOptions{})
			case kept(have) && !equality.Semantic.DeepEqual(have.Spec, want.Spec):
				next := have.DeepCopy()
				next.Spec = want.Spec
				_, err = client.FlowSchemas().Update(ctx, next, metav1.UpdateOptions{})
			}
		}
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}

// kept says that the object is to be as it was made: by its annotation.
func kept(o metav1.Object) bool {
	return o.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey] == "true"
}
