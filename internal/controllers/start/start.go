package start

import (
	"context"
	"crypto/x509"
	"fmt"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/accounttoken"
	"keelson.dev/keelson/internal/controllers/bootstraptoken"
	"keelson.dev/keelson/internal/controllers/certificates"
	"keelson.dev/keelson/internal/controllers/clusterrole"
	"keelson.dev/keelson/internal/controllers/deployment"
	"keelson.dev/keelson/internal/controllers/endpointslice"
	"keelson.dev/keelson/internal/controllers/garbagecollector"
	"keelson.dev/keelson/internal/controllers/namespace"
	"keelson.dev/keelson/internal/controllers/nodelifecycle"
	"keelson.dev/keelson/internal/controllers/podgc"
	"keelson.dev/keelson/internal/controllers/policystatus"
	"keelson.dev/keelson/internal/controllers/replicaset"
	"keelson.dev/keelson/internal/controllers/resourcequota"
	"keelson.dev/keelson/internal/controllers/rootca"
	"keelson.dev/keelson/internal/controllers/serviceaccount"
	"keelson.dev/keelson/internal/controllers/storageversionmigrator"
	"keelson.dev/keelson/internal/controllers/volumeprotection"
)

// Context is what the controllers of a cluster are started with.
type Context struct {
	// Client gives a client with the identity
	// system:serviceaccount:kube-system:<name>.
	Client    func(name string) kubernetes.Interface
	Informers informers.SharedInformerFactory
	// Metadata and Discovery reach every resource. Where one is nil no garbage is
	// collected and no namespace is emptied.
	Metadata  metadata.Interface
	Discovery discovery.DiscoveryInterface
	// RESTMapper may be nil: one is then made from Discovery.
	RESTMapper meta.RESTMapper
	// Clock may be nil: the real one is used then.
	Clock clock.WithTicker
	// RootCA is the PEM bundle that clients verify the API server with. Where it
	// is empty it is not published.
	RootCA []byte
	// Sign and LegacyToken are those of controllers.Context. Where one is nil no
	// certificates are signed, or no secrets filled with tokens.
	Sign        func(template *x509.Certificate, public any) ([]byte, error)
	LegacyToken func(account *v1.ServiceAccount, secret *v1.Secret) (string, error)
}

type starter struct {
	name  string
	start func(context.Context, controllers.Context) error
}

// starters are all controllers, those that a new pod waits for first.
func starters(c Context) []starter {
	all := []starter{
		{"deployment", deployment.Start},
		{"replicaset", replicaset.Start},
		{"serviceaccount", serviceaccount.Start},
		{"replicationcontroller", replicaset.StartReplicationController},
		{"endpointslice", endpointslice.Start},
		{"node-lifecycle", nodelifecycle.Start},
		{"pod-garbage-collector", podgc.Start},
		{"resourcequota", resourcequota.Start},
		{"pvc-protection", volumeprotection.StartClaims},
		{"pv-protection", volumeprotection.StartVolumes},
		{"clusterrole-aggregation", clusterrole.Start},
		{"bootstrap-signer", bootstraptoken.StartSigner},
		{"token-cleaner", bootstraptoken.StartCleaner},
		{"certificatesigningrequest-approving", certificates.StartApprover},
		{"certificatesigningrequest-cleaner", certificates.StartCleaner},
	}
	if c.Sign != nil {
		all = append(all, starter{"certificatesigningrequest-signing", certificates.StartSigner})
	}
	if c.LegacyToken != nil {
		all = append(all, starter{"serviceaccount-token", accounttoken.Start})
	}
	if c.Metadata != nil && c.Discovery != nil {
		all = append(all,
			starter{"namespace", namespace.Start},
			starter{"validatingadmissionpolicy-status", policystatus.Start},
			starter{"storage-version-migrator", storageversionmigrator.Start},
			starter{"garbage-collector", garbagecollector.Start(watched(c)...)})
	}
	if len(c.RootCA) > 0 {
		all = append(all, starter{"root-ca-certificate-publisher", rootca.Start})
	}
	return all
}

// watched are the resources that controllers have informers for, which the
// garbage collector shares.
func watched(c Context) []schema.GroupVersionResource {
	all := []schema.GroupVersionResource{
		v1.SchemeGroupVersion.WithResource("namespaces"),
		v1.SchemeGroupVersion.WithResource("pods"),
		v1.SchemeGroupVersion.WithResource("replicationcontrollers"),
		v1.SchemeGroupVersion.WithResource("serviceaccounts"),
		apps.SchemeGroupVersion.WithResource("deployments"),
		apps.SchemeGroupVersion.WithResource("replicasets"),
	}
	if len(c.RootCA) > 0 {
		all = append(all, v1.SchemeGroupVersion.WithResource("configmaps"))
	}
	return all
}

// Start registers the informers that the controllers need and starts each
// controller; they run until ctx is done. It returns at once. The caller starts
// the informer factory afterwards.
func Start(ctx context.Context, c Context) error {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.RESTMapper == nil && c.Discovery != nil {
		c.RESTMapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.Discovery))
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(sink(c.Client))
	shared := controllers.Context{
		Client: c.Client, Informers: c.Informers, Metadata: c.Metadata, Discovery: c.Discovery,
		RESTMapper: c.RESTMapper, Clock: c.Clock, Broadcaster: broadcaster, RootCA: c.RootCA, Sign: c.Sign, LegacyToken: c.LegacyToken,
	}
	for _, s := range starters(c) {
		if err := s.start(ctx, shared); err != nil {
			return fmt.Errorf("starting controller %q: %w", s.name, err)
		}
	}
	context.AfterFunc(ctx, broadcaster.Shutdown)
	return nil
}

// sink writes each event as the controller that it comes from.
type sink func(name string) kubernetes.Interface

// identities are the components whose service account has another name.
var identities = map[string]string{
	"daemonset-controller":      "daemon-set-controller",
	"taint-eviction-controller": "node-controller",
	"controllermanager":         "disruption-controller",
}

func (s sink) events(e *v1.Event) typedv1.EventInterface {
	name := e.Source.Component
	if id, ok := identities[name]; ok {
		name = id
	}
	return s(name).CoreV1().Events(e.Namespace)
}

// Create implements record.EventSink.
func (s sink) Create(e *v1.Event) (*v1.Event, error) {
	return s.events(e).Create(context.Background(), e, metav1.CreateOptions{})
}

// Update implements record.EventSink.
func (s sink) Update(e *v1.Event) (*v1.Event, error) {
	return s.events(e).Update(context.Background(), e, metav1.UpdateOptions{})
}

// Patch implements record.EventSink.
func (s sink) Patch(e *v1.Event, data []byte) (*v1.Event, error) {
	return s.events(e).Patch(context.Background(), e.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
}
