package admission

import (
	"fmt"
	"slices"
	"strings"

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
	// Types are the schemas that policies merge objects by.
	Types Types
	// Configuration is the content of --admission-control-config-file.
	Configuration admission.ConfigProvider
	Done          <-chan struct{}
	// Selection is the one that New is called with.
	Selection Selection
}

// plugin is a row of the registry.
type plugin struct {
	name string
	on   bool // by default
	make func(*Environment) (admission.Interface, error)
}

// plain makes a plug-in that cannot fail to be made.
func plain[P admission.Interface](f func(*Environment) P) func(*Environment) (admission.Interface, error) {
	return func(e *Environment) (admission.Interface, error) { return f(e), nil }
}

// registry has every plug-in under upstream's name, in upstream's order.
var registry = []plugin{
	{"AlwaysAdmit", false, plain(func(*Environment) *alwaysAdmit { return newAlwaysAdmit() })},
	{"NamespaceAutoProvision", false, plain(newNamespaceAutoProvision)},
	{"NamespaceLifecycle", true, plain(func(e *Environment) *NamespaceLifecycle { return NewNamespaceLifecycle(e.Namespaces) })},
	{"NamespaceExists", false, plain(newNamespaceExists)},
	{"LimitPodHardAntiAffinityTopology", false, plain(func(*Environment) *antiAffinity { return newAntiAffinity() })},
	{"LimitRanger", true, plain(func(e *Environment) *LimitRanger {
		return NewLimitRanger(e.Informers.Core().V1().LimitRanges().Lister())
	})},
	{"ServiceAccount", true, plain(func(e *Environment) *ServiceAccount { return NewServiceAccount(e.Accounts) })},
	{"NodeRestriction", true, plain(newNodeRestriction)},
	{"TaintNodesByCondition", true, plain(func(*Environment) *taintNodes { return newTaintNodes() })},
	{"AlwaysPullImages", false, plain(func(*Environment) *alwaysPull { return newAlwaysPull() })},
	{"PodSecurity", true, newPodSecurity},
	{"PodNodeSelector", false, newPodNodeSelector},
	{"Priority", true, plain(func(e *Environment) *Priority {
		return NewPriority(e.Informers.Scheduling().V1().PriorityClasses().Lister())
	})},
	{"DefaultTolerationSeconds", true, plain(func(e *Environment) DefaultTolerationSeconds {
		return NewDefaultTolerationSeconds(e.Selection.NotReadySeconds, e.Selection.UnreachableSeconds)
	})},
	{"ExtendedResourceToleration", false, plain(func(*Environment) *extendedToleration { return newExtendedToleration() })},
	{"DefaultStorageClass", true, plain(newDefaultStorageClass)},
	{"StorageObjectInUseProtection", true, plain(func(*Environment) *inUseProtection { return newInUseProtection() })},
	{"PersistentVolumeClaimResize", true, plain(newClaimResize)},
	{"RuntimeClass", true, plain(newRuntimeClass)},
	{"CertificateApproval", true, plain(newCertificateApproval)},
	{"CertificateSigning", true, plain(newCertificateSigning)},
	{"ClusterTrustBundleAttest", true, plain(newTrustBundleAttest)},
	{"CertificateSubjectRestriction", true, plain(func(*Environment) *subjectRestriction { return newSubjectRestriction() })},
	{"DefaultIngressClass", true, plain(newDefaultIngressClass)},
	{"PodTopologyLabels", true, plain(newPodTopologyLabels)},
	{"DenyServiceExternalIPs", false, plain(func(*Environment) *denyExternalIPs { return newDenyExternalIPs() })},
	{"MutatingAdmissionPolicy", true, newMutatingPolicy},
	{"MutatingAdmissionWebhook", true, newMutatingWebhook},
	{"ValidatingAdmissionPolicy", true, newValidatingPolicy},
	{"ValidatingAdmissionWebhook", true, newValidatingWebhook},
	{"ResourceQuota", true, newResourceQuota},
	{"AlwaysDeny", false, plain(func(*Environment) *alwaysDeny { return newAlwaysDeny() })},
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

// Names gives the names of all plug-ins, in the order in which they are called.
func Names() []string {
	out := make([]string, len(registry))
	for i, p := range registry {
		out[i] = p.name
	}
	return out
}

// DefaultNames gives the names of the plug-ins that are on by default.
func DefaultNames() (out []string) {
	for _, p := range registry {
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

// New makes the selected plug-ins, in their order.
func New(e Environment, s Selection) ([]admission.Interface, error) {
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
	var out []admission.Interface
	for _, p := range registry {
		if !s.has(p) {
			continue
		}
		made, err := p.make(&e)
		if err != nil {
			return nil, fmt.Errorf("couldn't init admission plugin %q: %w", p.name, err)
		}
		out = append(out, made)
		if s, ok := made.(starter); ok {
			if err := s.begin(); err != nil {
				return nil, fmt.Errorf("couldn't init admission plugin %q: %w", p.name, err)
			}
		}
	}
	return out, nil
}
