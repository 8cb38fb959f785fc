package catalogue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"

	"keelson.dev/keelson/internal/api"
)

var knownVerbs = sets.New("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

func TestBuiltinRowsAreWellFormed(t *testing.T) {
	seen := sets.New[schema.GroupVersionResource]()
	prefixes := map[string]string{}
	now := time.Now()
	for _, r := range Builtin() {
		t.Run(r.Group+"/"+r.Version+"/"+r.Resource, func(t *testing.T) {
			if seen.Has(r.GroupVersionResource) {
				t.Fatal("the row is there twice")
			}
			seen.Insert(r.GroupVersionResource)
			if r.Singular != strings.ToLower(r.Kind) && r.Group != "metrics.k8s.io" { // metrics-server has none
				t.Errorf("singular is %q, kind %q", r.Singular, r.Kind)
			}
			if !slices.IsSorted(r.ServedVerbs()) || !knownVerbs.HasAll(r.ServedVerbs()...) {
				t.Errorf("verbs are %q", r.ServedVerbs())
			}
			gvks, _, err := Scheme.ObjectKinds(r.New())
			if err != nil || !slices.Contains(gvks, r.GVK()) {
				t.Errorf("New makes %v (%v), want %v", gvks, err, r.GVK())
			}
			for name := range r.Updates {
				if slices.ContainsFunc(r.Subresources, func(s api.Subresource) bool { return s.Name == name }) {
					t.Errorf("subresource %s is both an update and one with a handler", name)
				}
			}
			for _, s := range r.Subresources {
				if s.Name == "" || s.Kind.Kind == "" || len(s.Verbs) == 0 {
					t.Errorf("subresource %+v is incomplete", s)
				}
			}
			if r.HasVerb("list") {
				gvks, _, err := Scheme.ObjectKinds(r.NewList())
				if err != nil || !slices.Contains(gvks, r.GroupVersion().WithKind(r.Kind+"List")) {
					t.Errorf("NewList makes %v (%v)", gvks, err)
				}
				if _, err := meta.ListAccessor(r.NewList()); err != nil {
					t.Error(err)
				}
				obj := r.New()
				if r.Default != nil {
					r.Default(obj)
				}
				if len(r.Columns) == 0 || r.Cells == nil {
					t.Fatal("there is no table")
				}
				for what, cells := range map[string][]any{"an empty": r.Cells(r.New(), now), "a defaulted": r.Cells(obj, now)} {
					if len(cells) != len(r.Columns) {
						t.Fatalf("%s object has %d cells, the table %d columns", what, len(cells), len(r.Columns))
					}
					for i, cell := range cells {
						checkCell(t, r.Columns[i], cell)
					}
				}
			}
			if r.NotStored {
				return
			}
			if r.StoragePrefix == "" || strings.Trim(r.StoragePrefix, "/") != r.StoragePrefix {
				t.Errorf("storage prefix is %q", r.StoragePrefix)
			}
			if other, taken := prefixes[r.StoragePrefix]; taken && r.Hub == nil {
				t.Errorf("storage prefix %q is that of %s too", r.StoragePrefix, other)
			}
			if r.Hub == nil {
				prefixes[r.StoragePrefix] = r.Resource + "." + r.Group
			}
			checkStrategy(t, r)
		})
	}
	for _, r := range Builtin() {
		if r.Hub == nil {
			continue
		}
		hub := New(Builtin()).Lookup(r.Hub.Resource.Group, r.Hub.Resource.Version, r.Hub.Resource.Resource)
		if hub == nil || hub.Hub != nil || hub.StoragePrefix != r.StoragePrefix {
			t.Errorf("hub of %s is %v, which does not store it", r.GroupVersionResource, r.Hub.Resource)
		}
	}
}

// checkCell checks that a cell is of its column's type; "<none>" may stand for a
// missing number.
func checkCell(t *testing.T, c metav1.TableColumnDefinition, cell any) {
	t.Helper()
	switch v := cell.(type) {
	case string, nil, bool, int64, float64:
	default:
		t.Errorf("column %s has a cell of type %T, which is none of JSON's", c.Name, v)
	}
}

// checkStrategy runs the functions on an empty object: none may panic, and
// defaulting twice is the same as once.
func checkStrategy(t *testing.T, r *api.Resource) {
	t.Helper()
	one := r.New()
	if r.Default != nil {
		r.Default(one)
		two := one.DeepCopyObject()
		r.Default(two)
		if a, b := fmt.Sprintf("%#v", one), fmt.Sprintf("%#v", two); len(a) != len(b) {
			t.Errorf("defaults are not idempotent:\n%s\n%s", a, b)
		}
	}
	old := one.DeepCopyObject()
	if r.PrepareForCreate != nil {
		r.PrepareForCreate(one)
	}
	if r.Validate != nil {
		r.Validate(one)
	}
	if r.PrepareForUpdate != nil {
		r.PrepareForUpdate(one, old)
	}
	if r.ValidateUpdate != nil {
		r.ValidateUpdate(one, old)
	}
	updates := []*api.UpdateStrategy{r.Status}
	for _, u := range r.Updates {
		updates = append(updates, u)
	}
	for _, u := range updates {
		if u == nil {
			continue
		}
		if u.PrepareForUpdate != nil {
			u.PrepareForUpdate(one, old)
		}
		if u.ValidateUpdate != nil {
			u.ValidateUpdate(one, old)
		}
	}
	if r.Fields != nil {
		given := sets.KeySet(r.Fields(one))
		if want := sets.New(r.FieldLabels...); !given.Equal(want) {
			t.Errorf("the selectable fields are %q, the labels of them %q", sets.List(given), sets.List(want))
		}
	}
	if r.Hub != nil {
		hub, err := r.Hub.ToHub(old)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Hub.FromHub(hub); err != nil {
			t.Fatal(err)
		}
	}
}

// served lists the resources of v1.37's stable groups: version, kind, resource
// and subresources ("*" before a resource: it has namespaces).
const served = `
v1 Binding *bindings
v1 ComponentStatus componentstatuses
v1 ConfigMap *configmaps
v1 Endpoints *endpoints
v1 Event *events
v1 LimitRange *limitranges
v1 Namespace namespaces finalize status
v1 Node nodes proxy status
v1 PersistentVolumeClaim *persistentvolumeclaims status
v1 PersistentVolume persistentvolumes status
v1 Pod *pods attach binding ephemeralcontainers eviction exec log portforward proxy resize status
v1 PodTemplate *podtemplates
v1 ReplicationController *replicationcontrollers scale status
v1 ResourceQuota *resourcequotas status
v1 Secret *secrets
v1 ServiceAccount *serviceaccounts token
v1 Service *services proxy status
admissionregistration.k8s.io/v1 MutatingAdmissionPolicy mutatingadmissionpolicies
admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding mutatingadmissionpolicybindings
admissionregistration.k8s.io/v1 MutatingWebhookConfiguration mutatingwebhookconfigurations
admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy validatingadmissionpolicies status
admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding validatingadmissionpolicybindings
admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration validatingwebhookconfigurations
apiextensions.k8s.io/v1 CustomResourceDefinition customresourcedefinitions status
apiregistration.k8s.io/v1 APIService apiservices status
apps/v1 ControllerRevision *controllerrevisions
apps/v1 DaemonSet *daemonsets status
apps/v1 Deployment *deployments scale status
apps/v1 ReplicaSet *replicasets scale status
apps/v1 StatefulSet *statefulsets scale status
authentication.k8s.io/v1 SelfSubjectReview selfsubjectreviews
authentication.k8s.io/v1 TokenReview tokenreviews
authorization.k8s.io/v1 LocalSubjectAccessReview *localsubjectaccessreviews
authorization.k8s.io/v1 SelfSubjectAccessReview selfsubjectaccessreviews
authorization.k8s.io/v1 SelfSubjectRulesReview selfsubjectrulesreviews
authorization.k8s.io/v1 SubjectAccessReview subjectaccessreviews
autoscaling/v1 HorizontalPodAutoscaler *horizontalpodautoscalers status
autoscaling/v2 HorizontalPodAutoscaler *horizontalpodautoscalers status
batch/v1 CronJob *cronjobs status
batch/v1 Job *jobs status
certificates.k8s.io/v1 CertificateSigningRequest certificatesigningrequests approval status
certificates.k8s.io/v1 ClusterTrustBundle clustertrustbundles
certificates.k8s.io/v1 PodCertificateRequest *podcertificaterequests status
coordination.k8s.io/v1 Lease *leases
discovery.k8s.io/v1 EndpointSlice *endpointslices
events.k8s.io/v1 Event *events
flowcontrol.apiserver.k8s.io/v1 FlowSchema flowschemas status
flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration prioritylevelconfigurations status
networking.k8s.io/v1 Ingress *ingresses status
networking.k8s.io/v1 IngressClass ingressclasses
networking.k8s.io/v1 IPAddress ipaddresses
networking.k8s.io/v1 NetworkPolicy *networkpolicies
networking.k8s.io/v1 ServiceCIDR servicecidrs status
node.k8s.io/v1 RuntimeClass runtimeclasses
policy/v1 PodDisruptionBudget *poddisruptionbudgets status
rbac.authorization.k8s.io/v1 ClusterRole clusterroles
rbac.authorization.k8s.io/v1 ClusterRoleBinding clusterrolebindings
rbac.authorization.k8s.io/v1 Role *roles
rbac.authorization.k8s.io/v1 RoleBinding *rolebindings
resource.k8s.io/v1 DeviceClass deviceclasses
resource.k8s.io/v1 DeviceTaintRule devicetaintrules status
resource.k8s.io/v1 ResourceClaim *resourceclaims status
resource.k8s.io/v1 ResourceClaimTemplate *resourceclaimtemplates
resource.k8s.io/v1 ResourceSlice resourceslices
scheduling.k8s.io/v1 PriorityClass priorityclasses
storage.k8s.io/v1 CSIDriver csidrivers
storage.k8s.io/v1 CSINode csinodes
storage.k8s.io/v1 CSIStorageCapacity *csistoragecapacities
storage.k8s.io/v1 StorageClass storageclasses
storage.k8s.io/v1 VolumeAttachment volumeattachments status
storage.k8s.io/v1 VolumeAttributesClass volumeattributesclasses
storagemigration.k8s.io/v1 StorageVersionMigration storageversionmigrations status
storagemigration.k8s.io/v1beta1 StorageVersionMigration storageversionmigrations status
`

// partVerbs are the verbs of what does not serve all.
var partVerbs = map[string]string{
	"bindings": "create", "componentstatuses": "get list", "namespaces": "create delete get list patch update watch",
	"tokenreviews": "create", "selfsubjectreviews": "create", "localsubjectaccessreviews": "create",
	"selfsubjectaccessreviews": "create", "selfsubjectrulesreviews": "create", "subjectaccessreviews": "create",
}

func TestBuiltinServesTheStableAPI(t *testing.T) {
	rows := map[string]*api.Resource{}
	for _, r := range Builtin() {
		rows[r.GroupVersion().String()+" "+r.Resource] = r
	}
	for line := range strings.Lines(strings.TrimSpace(served)) {
		f := strings.Fields(line)
		name, namespaced := strings.CutPrefix(f[2], "*")
		r := rows[f[0]+" "+name]
		delete(rows, f[0]+" "+name)
		if r == nil {
			t.Errorf("%s %s is not served", f[0], name)
			continue
		}
		if r.Kind != f[1] || r.Namespaced != namespaced {
			t.Errorf("%s %s is of kind %s, namespaced %v; want %s, %v", f[0], name, r.Kind, r.Namespaced, f[1], namespaced)
		}
		if got, want := subresources(r), f[3:]; !slices.Equal(got, want) {
			t.Errorf("%s %s has the subresources %q, want %q", f[0], name, got, want)
		}
		want := "create delete deletecollection get list patch update watch"
		if part, ok := partVerbs[name]; ok {
			want = part
		}
		if got := strings.Join(r.ServedVerbs(), " "); got != want {
			t.Errorf("%s %s serves %q, want %q", f[0], name, got, want)
		}
	}
	for key := range rows {
		if strings.HasPrefix(key, "metrics.k8s.io/") {
			continue // metrics-server's, which is no part of upstream's API server
		}
		t.Errorf("%s is served, which upstream's stable API does not have", key)
	}
}

func subresources(r *api.Resource) []string {
	list := []string{}
	if r.Status != nil {
		list = append(list, "status")
	}
	if r.Scale != nil {
		list = append(list, "scale")
	}
	for name := range r.Updates {
		list = append(list, name)
	}
	for _, s := range r.Subresources {
		list = append(list, s.Name)
	}
	slices.Sort(list)
	return list
}

func TestSchemeHasTheMetaTypes(t *testing.T) {
	for _, gvk := range []schema.GroupVersionKind{
		{Version: "v1", Kind: "WatchEvent"}, {Version: "v1", Kind: "Status"}, {Version: "v1", Kind: "DeleteOptions"},
		{Group: "apps", Version: "v1", Kind: "WatchEvent"}, {Group: "apps", Version: "v1", Kind: "ListOptions"},
		{Group: "autoscaling", Version: "v1", Kind: "Scale"}, {Group: "policy", Version: "v1", Kind: "Eviction"},
		{Group: "meta.k8s.io", Version: "v1", Kind: "Table"}, {Group: "meta.k8s.io", Version: "v1", Kind: "PartialObjectMetadataList"},
		{Group: "apidiscovery.k8s.io", Version: "v2", Kind: "APIGroupDiscoveryList"},
	} {
		if !Scheme.Recognizes(gvk) {
			t.Errorf("the scheme does not know %v", gvk)
		}
	}
}
