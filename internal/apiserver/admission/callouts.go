package admission

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/generic"
	policymutating "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	policyvalidating "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	webhookinit "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	webhookmutating "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	webhookvalidating "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/apiserver/answer"
)

// callout is one of upstream's plug-ins that ask webhooks or CEL policies. It
// is made when the first configuration for it appears: before that there is
// nothing to ask, and making it takes the time of a CEL environment.
type callout struct {
	*admission.Handler
	configured atomic.Bool
	static     bool // configured by files, from the start
	make       func() (admission.Interface, error)
	// all has the configurations; told is synced when configured has handled those of
	// the start.
	all  cache.Store
	told cache.ResourceEventHandlerRegistration
}

func (e *Environment) newCallout(name string, handles *admission.Handler, configurations cache.SharedIndexInformer, f func(io.Reader) (admission.Interface, error)) (*callout, error) {
	static, err := e.static(name)
	if err != nil {
		return nil, err
	}
	c := &callout{Handler: handles, static: static, make: sync.OnceValues(e.construct(name, f)), all: configurations.GetStore()}
	c.configured.Store(static)
	c.told, err = configurations.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) {
		if !c.configured.Swap(true) {
			go c.make() //nolint:errcheck // whoever needs it gets the error
		}
	}})
	return c, err
}

// concerns reports whether anything is configured.
func (c *callout) concerns(admission.Attributes) bool {
	return c.configured.Load() || !c.told.HasSynced() && len(c.all.ListKeys()) > 0
}

// plugin is nil as long as nothing is configured.
func (c *callout) plugin(a admission.Attributes) (admission.Interface, error) {
	if !c.concerns(a) {
		return nil, nil
	}
	p, err := c.make()
	if err != nil {
		return nil, admission.NewForbidden(a, err)
	}
	if w, ok := p.(interface{ WaitForReady() bool }); ok && !w.WaitForReady() {
		return nil, admission.NewForbidden(a, errors.New("not yet ready to handle request"))
	}
	return p, nil
}

type mutatingCallout struct{ *callout }

// Admit implements admission.MutationInterface.
func (c mutatingCallout) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	p, err := c.plugin(a)
	if p == nil || err != nil {
		return err
	}
	ctx, end := called(ctx)
	err = p.(admission.MutationInterface).Admit(ctx, a, o)
	end(err)
	return err
}

type validatingCallout struct{ *callout }

// Validate implements admission.ValidationInterface.
func (c validatingCallout) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	p, err := c.plugin(a)
	if p == nil || err != nil {
		return err
	}
	ctx, end := called(ctx)
	err = p.(admission.ValidationInterface).Validate(ctx, a, o)
	end(err)
	return err
}

// excluded are the resources that no policy and no webhook sees: they store
// nothing, and a policy that asks an authorizer would call itself.
var excluded = []schema.GroupResource{
	{Group: "authentication.k8s.io", Resource: "selfsubjectreviews"},
	{Group: "authentication.k8s.io", Resource: "tokenreviews"},
	{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"},
	{Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"},
	{Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"},
	{Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
}

// refreshPolicies is how long a policy's change may take to be obeyed.
const refreshPolicies = 20 * time.Millisecond

var fastPolicies = sync.OnceFunc(func() { generic.SetPolicyRefreshIntervalForTests(refreshPolicies) })

// initialize sets the dependencies of one of upstream's plug-ins.
func (e *Environment) initialize(p admission.Interface) error {
	initializer.New(e.Client(), e.Dynamic(), e.Informers, e.Authorizer, utilfeature.DefaultFeatureGate, nil, e.Done, e.RESTMapper).Initialize(p)
	if w, ok := p.(initializer.WantsExcludedAdmissionResources); ok {
		w.SetExcludedAdmissionResources(excluded)
	}
	if w, ok := p.(initializer.WantsManifestLoaders); ok {
		w.SetManifestLoaders(e.loaders())
	}
	webhookinit.NewPluginInitializer(answer.Webhooks, e.Services).Initialize(p)
	// What the plug-in watches may not have been watched before.
	v, ok := p.(admission.InitializationValidator)
	if ok {
		if err := v.ValidateInitialization(); err != nil {
			return err
		}
	}
	e.Informers.Start(e.Done)
	return nil
}

func (e *Environment) construct(name string, f func(io.Reader) (admission.Interface, error)) func() (admission.Interface, error) {
	return func() (admission.Interface, error) {
		config, err := e.Configuration.ConfigFor(name)
		if err != nil {
			return nil, err
		}
		p, err := f(config)
		if err == nil {
			err = e.initialize(p)
		}
		if err != nil {
			return nil, fmt.Errorf("admission plug-in %s: %w", name, err)
		}
		return p, nil
	}
}

func newMutatingWebhook(e *Environment) (admission.Interface, error) {
	inf := e.Informers.Admissionregistration().V1().MutatingWebhookConfigurations().Informer()
	c, err := e.newCallout(webhookmutating.PluginName, admission.NewHandler(admission.Create, admission.Update, admission.Delete, admission.Connect), inf,
		func(r io.Reader) (admission.Interface, error) { return webhookmutating.NewMutatingWebhook(r) })
	return mutatingCallout{c}, err
}

func newValidatingWebhook(e *Environment) (admission.Interface, error) {
	inf := e.Informers.Admissionregistration().V1().ValidatingWebhookConfigurations().Informer()
	c, err := e.newCallout(webhookvalidating.PluginName, admission.NewHandler(admission.Create, admission.Update, admission.Delete, admission.Connect), inf,
		func(r io.Reader) (admission.Interface, error) {
			return webhookvalidating.NewValidatingAdmissionWebhook(r)
		})
	return validatingCallout{c}, err
}

// A policy without a binding has no effect: the bindings call for the plug-in.

func newMutatingPolicy(e *Environment) (admission.Interface, error) {
	f := e.Informers.Admissionregistration().V1()
	f.MutatingAdmissionPolicies().Informer()
	c, err := e.newCallout(policymutating.PluginName, admission.NewHandler(admission.Create, admission.Update, admission.Connect), f.MutatingAdmissionPolicyBindings().Informer(),
		func(r io.Reader) (admission.Interface, error) { fastPolicies(); return newPolicyPlugin(r, e.Types) })
	return mutatingCallout{c}, err
}

func newValidatingPolicy(e *Environment) (admission.Interface, error) {
	f := e.Informers.Admissionregistration().V1()
	f.ValidatingAdmissionPolicies().Informer()
	c, err := e.newCallout(policyvalidating.PluginName, admission.NewHandler(admission.Create, admission.Update, admission.Delete, admission.Connect), f.ValidatingAdmissionPolicyBindings().Informer(),
		func(r io.Reader) (admission.Interface, error) { fastPolicies(); return policyvalidating.NewPlugin(r) })
	return validatingCallout{c}, err
}
