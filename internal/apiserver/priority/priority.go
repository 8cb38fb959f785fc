package priority

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
	"k8s.io/client-go/informers"
	flowcontrolclient "k8s.io/client-go/kubernetes/typed/flowcontrol/v1"
	flowcontrollisters "k8s.io/client-go/listers/flowcontrol/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver/fairqueue"
)

// Selection bounds the requests that are answered at once, by upstream's flags.
type Selection struct {
	// Off has no request wait for its turn.
	Off bool
	// InFlight and MutatingInFlight are added up (if both are 0, to upstream's 600).
	// With Off each is the limit of its kind of requests, beyond which they are
	// refused; 0 is none.
	InFlight, MutatingInFlight int
}

// Validate reports the values that cannot be.
func (f Selection) Validate() error {
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

func (f Selection) limit() int {
	if n := f.InFlight + f.MutatingInFlight; n > 0 {
		return n
	}
	return 600
}

// Config configures a Fairness.
type Config struct {
	Selection
	Informers informers.SharedInformerFactory
	// Client acts as the API server.
	Client flowcontrolclient.FlowcontrolV1Interface
	// Patience is how long a request waits for its turn.
	Patience time.Duration
	// Catalogue has the defaults of the objects.
	Catalogue *catalogue.Catalogue
}

// Fairness decides when it is a request's turn. Its controller of the levels
// starts when the first request has to wait for its turn, or something asks for
// it: where only administrators and components of this process are at work, as
// in tests, there is nothing for it to do.
type Fairness struct {
	flowcontrol.Interface
	Config
	ctx     context.Context
	wg      *sync.WaitGroup
	schemas flowcontrollisters.FlowSchemaLister
	levels  flowcontrollisters.PriorityLevelConfigurationLister
	once    sync.Once
}

// New makes one, or nil where cfg is Off. What it starts ends with ctx, and wg
// counts it.
func New(ctx context.Context, wg *sync.WaitGroup, cfg Config) *Fairness {
	metrics.Register()
	if cfg.Off {
		return nil
	}
	api := cfg.Informers.Flowcontrol().V1()
	f := &Fairness{ctx: ctx, wg: wg, Config: cfg, schemas: api.FlowSchemas().Lister(), levels: api.PriorityLevelConfigurations().Lister()}
	f.Interface = flowcontrol.NewTestable(flowcontrol.TestableConfig{
		Name: "Controller", Clock: clock.RealClock{}, AsFieldManager: flowcontrol.ConfigConsumerAsFieldManager,
		FoundToDangling: func(found bool) bool { return !found },
		InformerFactory: cfg.Informers, FlowcontrolClient: cfg.Client, ServerConcurrencyLimit: cfg.limit(),
		ReqsGaugeVec: metrics.PriorityLevelConcurrencyGaugeVec, ExecSeatsGaugeVec: metrics.PriorityLevelExecutionSeatsGaugeVec,
		QueueSetFactory: &fairqueue.Factory{Clock: clock.RealClock{}, Patience: cfg.Patience},
	})
	return f
}

// Objects returns the flow schemas and priority levels that a cluster has from its
// first start.
func Objects() (out []runtime.Object) {
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

// Handle implements flowcontrol.Interface.
func (f *Fairness) Handle(ctx context.Context, digest flowcontrol.RequestDigest, note func(*flowcontrolv1.FlowSchema, *flowcontrolv1.PriorityLevelConfiguration, string),
	estimate func() flowcontrolrequest.WorkEstimate, queued fairqueuing.QueueNoteFn, execute func()) {
	f.Wake(ctx)
	f.Interface.Handle(ctx, digest, note, estimate, queued, execute)
}

// WakeLimit is how long a request waits for the controller at most; then it is one of
// the schema catch-all, the only one that a controller without configuration has.
const WakeLimit = 10 * time.Second

// Wake starts the controller if it does not run, and waits until it has taken in the
// schemas and levels.
func (f *Fairness) Wake(ctx context.Context) {
	f.once.Do(func() {
		f.wg.Go(func() {
			if err := f.Run(f.ctx.Done()); err != nil && f.ctx.Err() == nil {
				klog.FromContext(f.ctx).Error(err, "Priority and fairness ended")
			}
		})
		_ = wait.PollUntilContextTimeout(ctx, time.Millisecond, WakeLimit, true, func(context.Context) (bool, error) { return f.ready(), nil })
	})
}

// ready reports whether the controller has the limits of every level with queues,
// and has told so in the schemas' status.
func (f *Fairness) ready() bool {
	api := f.Informers.Flowcontrol().V1()
	if !api.PriorityLevelConfigurations().Informer().HasSynced() || !api.FlowSchemas().Informer().HasSynced() {
		return false // of none, all are ready
	}
	levels, err := f.levels.List(labels.Everything())
	if err != nil || slices.ContainsFunc(levels, func(l *flowcontrolv1.PriorityLevelConfiguration) bool {
		return l.Spec.Limited != nil && l.Spec.Limited.LimitResponse.Queuing != nil && f.GetMaxSeats(l.Name) == 0
	}) {
		return false
	}
	schemas, err := f.schemas.List(labels.Everything())
	return err == nil && !slices.ContainsFunc(schemas, func(s *flowcontrolv1.FlowSchema) bool { return len(s.Status.Conditions) == 0 })
}

// Exempt returns the UIDs of the schema and the level of requests without a limit.
func (f *Fairness) Exempt() (schema, level types.UID) {
	if fs, err := f.schemas.Get(flowcontrolv1.FlowSchemaNameExempt); err == nil {
		schema = fs.UID
	}
	if pl, err := f.levels.Get(flowcontrolv1.PriorityLevelConfigurationNameExempt); err == nil {
		level = pl.UID
	}
	return schema, level
}

// Keep makes mandatory objects anew when they are deleted or changed, and
// suggested ones when they are deleted.
func (f *Fairness) Keep() {
	api := f.Informers.Flowcontrol().V1()
	wake := make(chan struct{}, 1)
	changed := func(any) {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	for _, i := range []cache.SharedIndexInformer{api.FlowSchemas().Informer(), api.PriorityLevelConfigurations().Informer()} {
		_, _ = i.AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: changed, UpdateFunc: func(_, o any) { changed(o) }})
	}
	f.wg.Go(func() {
		retry := time.NewTimer(0)
		<-retry.C
		for {
			select {
			case <-wake:
			case <-retry.C:
			case <-f.ctx.Done():
				return
			}
			if err := f.restore(f.ctx); err != nil && f.ctx.Err() == nil {
				klog.FromContext(f.ctx).Error(err, "Restoring flow schemas and priority levels failed; trying again")
				retry.Reset(time.Second)
			}
		}
	})
}

// restore makes anew what Keep keeps.
func (f *Fairness) restore(ctx context.Context) error {
	for _, o := range Objects() {
		var err error
		switch want := o.(type) {
		case *flowcontrolv1.PriorityLevelConfiguration:
			f.setDefaults("prioritylevelconfigurations", want)
			have, lerr := f.levels.Get(want.Name)
			switch {
			case apierrors.IsNotFound(lerr):
				_, err = f.Client.PriorityLevelConfigurations().Create(ctx, want, metav1.CreateOptions{})
			case kept(have) && !equality.Semantic.DeepEqual(have.Spec, want.Spec):
				next := have.DeepCopy()
				next.Spec = want.Spec
				_, err = f.Client.PriorityLevelConfigurations().Update(ctx, next, metav1.UpdateOptions{})
			}
		case *flowcontrolv1.FlowSchema:
			f.setDefaults("flowschemas", want)
			have, lerr := f.schemas.Get(want.Name)
			switch {
			case apierrors.IsNotFound(lerr):
				_, err = f.Client.FlowSchemas().Create(ctx, want, metav1.CreateOptions{})
			case kept(have) && !equality.Semantic.DeepEqual(have.Spec, want.Spec):
				next := have.DeepCopy()
				next.Spec = want.Spec
				_, err = f.Client.FlowSchemas().Update(ctx, next, metav1.UpdateOptions{})
			}
		}
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}

func (f *Fairness) setDefaults(resource string, obj runtime.Object) {
	f.Catalogue.Lookup(flowcontrolv1.GroupName, "v1", resource).Default(obj)
}

// kept reports whether the object is to be as it was made: by its annotation.
func kept(o metav1.Object) bool {
	return o.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey] == "true"
}
