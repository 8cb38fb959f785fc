package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	configapi "k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
)

// Environment holds what the plug-ins are made with.
type Environment struct {
	Store     store.Store
	Catalogue *catalogue.Catalogue
	Informers informers.SharedInformerFactory
	// Client and Dynamic are the API server's own clients of itself.
	Client     func() kubernetes.Interface
	Dynamic    func() dynamic.Interface
	RESTMapper meta.RESTMapper
	Authorizer authorizer.Authorizer
	// Services finds the webhooks that are named by a Service.
	Services   webhook.ServiceResolver
	Namespaces Namespaces
	Accounts   ServiceAccounts
	Pods       Pods
	Grants     Grants
	// Types are the schemas that policies merge objects by.
	Types Types
	// Configuration is the content of --admission-control-config-file.
	Configuration admission.ConfigProvider
	Done          <-chan struct{}
	// Selection is the one that New is called with.
	Selection Selection
}

// found returns what a lister answers, or the object of the store where the lister has none
// of that name: its informer may be behind a request that has just been answered.
func found[T any](ctx context.Context, e *Environment, group, resource, name string, obj T, err error) (T, error) {
	if !apierrors.IsNotFound(err) {
		return obj, err
	}
	entry, failed := e.Store.Get(ctx, e.Catalogue.Must(group, "v1", resource).Key("", name))
	if failed != nil {
		return obj, failed
	}
	if entry == nil {
		return obj, err
	}
	return entry.Object().(T), nil
}

// plugin is a row of the table.
type plugin struct {
	name string
	on   bool // by default
	make func(*Environment) (admission.Interface, error)
}

// with makes a plug-in that cannot fail to be made.
func with[P admission.Interface](f func(*Environment) P) func(*Environment) (admission.Interface, error) {
	return func(e *Environment) (admission.Interface, error) { return f(e), nil }
}

// fixed returns a plug-in that needs nothing.
func fixed(p *plain) func(*Environment) (admission.Interface, error) {
	return func(*Environment) (admission.Interface, error) { return p, nil }
}

// Operations that plug-ins are for.
const (
	create, update, remove, connect = admission.Create, admission.Update, admission.Delete, admission.Connect
)

// table has every plug-in under upstream's name, in upstream's order.
var table = []plugin{
	{"AlwaysAdmit", false, fixed(validates(onRequest(alwaysAdmit), create, update, remove, connect))},
	{"NamespaceAutoProvision", false, with(func(e *Environment) *plain { return admits(onRequest(e.provisionNamespace), create) })},
	{"NamespaceLifecycle", true, with(func(e *Environment) *plain { return admits(onRequest(e.namespaceLifecycle), create, update, remove) })},
	{"NamespaceExists", false, with(func(e *Environment) *plain { return validates(onRequest(e.namespaceExists), create, update, remove) })},
	{"LimitPodHardAntiAffinityTopology", false, fixed(validates(onObject(limitAntiAffinity), create, update))},
	{"LimitRanger", true, with(newLimitRanger)},
	{"ServiceAccount", true, with(newServiceAccount)},
	{"NodeRestriction", true, with(newNodeRestriction)},
	{"TaintNodesByCondition", true, fixed(admits(onObject(taintNewNode), create))},
	{"AlwaysPullImages", false, fixed(both(onObject(alwaysPull, "", "ephemeralcontainers"), onObject(validatePull, "", "ephemeralcontainers"), create, update))},
	{"PodSecurity", true, newPodSecurity},
	{"PodNodeSelector", false, newPodNodeSelector},
	{"Priority", true, with(newPriority)},
	{"DefaultTolerationSeconds", true, with(newTolerationSeconds)},
	{"ExtendedResourceToleration", false, fixed(admits(onObject(tolerateExtended), create, update))},
	{"DefaultStorageClass", true, with(defaultStorageClass)},
	{"StorageObjectInUseProtection", true, fixed(admits(either(onObject(protectClaim), onObject(protectVolume)), create))},
	{"PersistentVolumeClaimResize", true, with(claimResize)},
	{"RuntimeClass", true, with(newRuntimeClass)},
	{"CertificateApproval", true, with(func(e *Environment) *plain {
		return validates(onObject(signers{e.Authorizer}.approve, "approval"), update)
	})},
	{"CertificateSigning", true, with(func(e *Environment) *plain { return validates(onObject(signers{e.Authorizer}.sign, "status"), update) })},
	{"ClusterTrustBundleAttest", true, with(func(e *Environment) *plain { return validates(onObject(signers{e.Authorizer}.attest), create, update) })},
	{"CertificateSubjectRestriction", true, fixed(validates(onObject(restrictSubject), create))},
	{"DefaultIngressClass", true, with(defaultIngressClass)},
	{"PodTopologyLabels", true, with(newTopologyLabels)},
	{"DenyServiceExternalIPs", false, fixed(validates(onObject(denyExternalIPs), create, update))},
	{"MutatingAdmissionPolicy", true, newMutatingPolicy},
	{"MutatingAdmissionWebhook", true, newMutatingWebhook},
	{"ValidatingAdmissionPolicy", true, newValidatingPolicy},
	{"ValidatingAdmissionWebhook", true, newValidatingWebhook},
	{"ResourceQuota", true, newResourceQuota},
	{"AlwaysDeny", false, fixed(both(onRequest(alwaysDeny), onRequest(alwaysDeny), create, update, remove, connect))},
}

// Selection names the plug-ins that are on beside the default ones, and the
// default ones that are off.
type Selection struct {
	Enable, Disable []string
	// ConfigFile is an AdmissionConfiguration of apiserver.config.k8s.io.
	ConfigFile string
	// NotReadySeconds and UnreachableSeconds are how long a pod without a toleration
	// of its own stays on a node that is not ready or not reachable; nil is
	// upstream's 300.
	NotReadySeconds, UnreachableSeconds *int64
}

// Names returns the names of all plug-ins, in the order in which they are called.
func Names() []string {
	out := make([]string, len(table))
	for i, p := range table {
		out[i] = p.name
	}
	return out
}

// DefaultNames returns the names of the plug-ins that are on by default.
func DefaultNames() (out []string) {
	for _, p := range table {
		if p.on {
			out = append(out, p.name)
		}
	}
	return out
}

// Validate returns an error for an invalid selection.
func (s *Selection) Validate() error {
	for _, t := range []struct {
		flag    string
		seconds *int64
	}{{"default-not-ready-toleration-seconds", s.NotReadySeconds}, {"default-unreachable-toleration-seconds", s.UnreachableSeconds}} {
		if t.seconds != nil && *t.seconds < 0 {
			return fmt.Errorf("--%s can not be a negative value", t.flag)
		}
	}
	known := Names()
	for _, list := range []struct {
		flag  string
		names []string
	}{{"enable-admission-plugins", s.Enable}, {"disable-admission-plugins", s.Disable}} {
		for _, n := range list.names {
			if !slices.Contains(known, n) {
				return fmt.Errorf("%s plugin %q is unknown", list.flag, n)
			}
		}
	}
	var both []string
	for _, n := range s.Enable {
		if slices.Contains(s.Disable, n) {
			both = append(both, n)
		}
	}
	if len(both) > 0 {
		return fmt.Errorf("[%v] in enable-admission-plugins and disable-admission-plugins overlapped", strings.Join(both, " "))
	}
	return nil
}

func (s *Selection) has(p plugin) bool {
	return (p.on || slices.Contains(s.Enable, p.name)) && !slices.Contains(s.Disable, p.name)
}

// New makes the chain of the selected plug-ins, in their order. The check against
// granting rights that the user does not hold comes last and cannot be switched off.
func New(e Environment, s Selection) (admission.Interface, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	e.Selection = s
	scheme := runtime.NewScheme()
	if s.ConfigFile != "" {
		configapi.Install(scheme)
	}
	var err error
	if e.Configuration, err = admission.ReadAdmissionConfiguration(Names(), s.ConfigFile, scheme); err != nil {
		return nil, fmt.Errorf("failed to read plugin config: %w", err)
	}
	var plugins []named
	for _, p := range table {
		if !s.has(p) {
			continue
		}
		made, err := p.make(&e)
		if s, ok := made.(starter); ok && err == nil {
			err = s.begin()
		}
		if err != nil {
			return nil, fmt.Errorf("couldn't init admission plugin %q: %w", p.name, err)
		}
		plugins = append(plugins, named{p.name, made})
	}
	plugins = append(plugins, named{"", newRoleEscalation(&e)})
	return admission.WithAudit(newChain(plugins...)), nil
}
