package manager

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net/netip"
	"testing"
	"time"

	admissionregistration "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	v2 "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	certificates "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	resourceapi "k8s.io/api/resource/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/api/storagemigration/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/network/lb"
	"keelson.dev/keelson/internal/reconcile"
)

// refusals are the answers to every write, by what is wrong.
var refusals = map[string]error{
	"forbidden":         apierrors.NewForbidden(schema.GroupResource{}, "x", errors.New("no")),
	"invalid":           apierrors.NewInvalid(schema.GroupKind{}, "x", field.ErrorList{field.Required(field.NewPath("x"), "")}),
	"conflict":          apierrors.NewConflict(schema.GroupResource{}, "x", errors.New("no")),
	"gone":              apierrors.NewNotFound(schema.GroupResource{}, "x"),
	"there already":     apierrors.NewAlreadyExists(schema.GroupResource{}, "x"),
	"broken":            apierrors.NewInternalError(errors.New("no")),
	"not available":     apierrors.NewServiceUnavailable("no"),
	"too many":          apierrors.NewTooManyRequests("no", 1),
	"not to be reached": errors.New("connection refused"),
}

// tries is how many requests of a kind the longest backoff makes of the objects of the world
// in an hour, and retried how many those controllers may do that look at them periodically.
const tries = 20

var retried = map[string]int{
	"horizontal-pod-autoscaler-controller":     tries + 3600/15,  // each evaluation
	"namespace-controller":                     tries + 90,       // what goes in the background is looked at again
	"node-lifecycle-controller":                tries + 2*3600/5, // both nodes
	"pod-garbage-collector-controller":         tries + 3600/20,  // the pod without a node
	"podcertificaterequest-cleaner-controller": tries + 60,
}

// TestRefusedWrites checks that no controller of the table spins, or ends, where each of its
// writes is refused: by quotas, webhooks or missing rights, or because objects change under
// it all the time.
func TestRefusedWrites(t *testing.T) {
	world := needy(t)
	for i := range table {
		row := &table[i]
		switch row.Name {
		case "cluster-autoscaler-controller": // it needs a provider of nodes, and has tests of its own with refusals
			continue
		case "persistentvolume-expander-controller", "selinux-warning-controller": // they write events only
			continue
		}
		for name, refusal := range refusals {
			t.Run(row.Name+"/"+name, func(t *testing.T) {
				t.Parallel()
				tried := false
				bounded(t, row, world, func(clienttesting.Action) error {
					tried = true
					return refusal
				})
				if !tried {
					t.Error("it has not written: give it work in the world of this test")
				}
			})
		}
	}
}

// TestMisfits checks that no controller of the table spins over objects that it can do
// nothing with, or that another component would have to mend.
func TestMisfits(t *testing.T) {
	world := broken()
	for i := range table {
		if row := &table[i]; row.Name != "cluster-autoscaler-controller" {
			t.Run(row.Name, func(t *testing.T) {
				t.Parallel()
				bounded(t, row, world, nil)
			})
		}
	}
}

// bounded runs a controller in a world for some hours, and bounds its requests.
func bounded(t *testing.T, row *controllers.Row, world []controllertest.Object, refuse func(clienttesting.Action) error) {
	t.Helper()
	most := max(retried[row.Name], tries)
	controllertest.Misfit{
		Controllers: []controllertest.Constructor{func(c controllers.Context) (reconcile.Run, error) { return row.New(c.For(row)) }},
		Context: func(c *controllers.Context) {
			c.RootCA = []byte("pem")
			c.Sign = func(*x509.Certificate, any) ([]byte, error) { return []byte("pem"), nil }
			c.LegacyToken = func(*v1.ServiceAccount, *v1.Secret) (string, error) { return "token", nil }
			c.LoadBalancer = &lb.Options{}
			c.PodRanges = []controllers.PodRange{{Cluster: netip.MustParsePrefix("10.0.0.0/24"), NodeBits: 24}} // which one node exhausts
			c.Configs = func(string) *rest.Config { return &rest.Config{Host: "127.0.0.1:1"} }
		},
		World: world, Refuse: refuse, Reads: most, Writes: most,
	}.Bounded(t)
}

// needy returns objects with which each controller has something to do.
func needy(t *testing.T) []controllertest.Object {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request := func(name, signer string, dns []string, usage certificates.KeyUsage, conditions ...certificates.CertificateSigningRequestCondition) *certificates.CertificateSigningRequest {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:a", Organization: []string{"system:nodes"}}, DNSNames: dns}, key)
		if err != nil {
			t.Fatal(err)
		}
		return &certificates.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificates.CertificateSigningRequestSpec{
			Username: "system:node:a", Groups: []string{"system:nodes"}, SignerName: signer, Usages: []certificates.KeyUsage{certificates.UsageDigitalSignature, usage},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})},
			Status: certificates.CertificateSigningRequestStatus{Conditions: conditions}}
	}
	old := metav1.NewTime(time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC))
	in := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "ns", Name: name} }
	of := func(name string) (map[string]string, *metav1.LabelSelector, v1.PodTemplateSpec) {
		l := map[string]string{"app": name}
		return l, &metav1.LabelSelector{MatchLabels: l}, v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}
	}
	pod := func(name, node string, change func(*v1.Pod)) *v1.Pod {
		p := &v1.Pod{ObjectMeta: in(name), Spec: v1.PodSpec{NodeName: node, Containers: []v1.Container{{Name: "c", Image: "i"}}}}
		if change != nil {
			change(p)
		}
		return p
	}
	controlled := func(kind, name string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: "gone", Controller: ptr.To(true)}}
	}
	claim := func(name, volume string) *v1.PersistentVolumeClaim {
		return &v1.PersistentVolumeClaim{ObjectMeta: in(name), Spec: v1.PersistentVolumeClaimSpec{VolumeName: volume, StorageClassName: ptr.To("class"), AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("2Gi")}}}}
	}
	deployLabels, deploySelector, deployTemplate := of("deployment")
	_, setSelector, setTemplate := of("set")
	controllerLabels, _, controllerTemplate := of("controller")
	_, daemonSelector, daemonTemplate := of("daemon")
	_, statefulSelector, statefulTemplate := of("stateful")
	_, _, jobTemplate := of("job")
	jobTemplate.Spec.RestartPolicy = v1.RestartPolicyNever
	job := batch.JobSpec{Parallelism: ptr.To[int32](1), Completions: ptr.To[int32](1), BackoffLimit: ptr.To[int32](6), Template: jobTemplate, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"job": "job"}}}
	job.Template.Labels = map[string]string{"job": "job"}
	done := batch.JobSpec{Parallelism: ptr.To[int32](1), Template: jobTemplate, TTLSecondsAfterFinished: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"job": "done"}}}
	bound := claim("bound", "volume")
	bound.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
	bound.UID, bound.Status = "bound", v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound, Capacity: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}}
	going := claim("going", "")
	going.Finalizers, going.DeletionTimestamp = []string{"kubernetes.io/pvc-protection"}, &old
	ready := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, LastHeartbeatTime: old, LastTransitionTime: old}
	return []controllertest.Object{
		&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}, Spec: v1.NamespaceSpec{Finalizers: []v1.FinalizerName{v1.FinalizerKubernetes}}},
		&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "going", DeletionTimestamp: &old, Finalizers: []string{"x/y"}}, Spec: v1.NamespaceSpec{Finalizers: []v1.FinalizerName{v1.FinalizerKubernetes}}},
		&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "going", Name: "c"}},

		&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
			Spec:   v1.NodeSpec{Taints: []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoExecute}}},
			Status: v1.NodeStatus{Conditions: []v1.NodeCondition{ready}, Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "192.0.2.1"}, {Type: v1.NodeHostName, Address: "a"}}}},
		&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Status: v1.NodeStatus{Conditions: []v1.NodeCondition{ready}, Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "192.0.2.2"}}}},

		&apps.Deployment{ObjectMeta: in("deployment"), Spec: apps.DeploymentSpec{Replicas: ptr.To[int32](1), Selector: deploySelector, Template: deployTemplate, Strategy: apps.DeploymentStrategy{Type: apps.RecreateDeploymentStrategyType}}},
		&apps.ReplicaSet{ObjectMeta: in("set"), Spec: apps.ReplicaSetSpec{Replicas: ptr.To[int32](1), Selector: setSelector, Template: setTemplate}},
		&v1.ReplicationController{ObjectMeta: in("controller"), Spec: v1.ReplicationControllerSpec{Replicas: ptr.To[int32](1), Selector: controllerLabels, Template: &controllerTemplate}},
		&apps.DaemonSet{ObjectMeta: in("daemon"), Spec: apps.DaemonSetSpec{Selector: daemonSelector, Template: daemonTemplate, UpdateStrategy: apps.DaemonSetUpdateStrategy{Type: apps.OnDeleteDaemonSetStrategyType}}},
		&apps.StatefulSet{ObjectMeta: in("stateful"), Spec: apps.StatefulSetSpec{Replicas: ptr.To[int32](1), Selector: statefulSelector, Template: statefulTemplate,
			VolumeClaimTemplates: []v1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "v"}}}}},
		&batch.Job{ObjectMeta: in("job"), Spec: job},
		&batch.Job{ObjectMeta: in("done"), Spec: done, Status: batch.JobStatus{CompletionTime: &old, Conditions: []batch.JobCondition{{Type: batch.JobComplete, Status: v1.ConditionTrue, LastTransitionTime: old}}}},
		&batch.CronJob{ObjectMeta: in("cron"), Spec: batch.CronJobSpec{Schedule: "* * * * *", JobTemplate: batch.JobTemplateSpec{Spec: job}}},
		&v2.HorizontalPodAutoscaler{ObjectMeta: in("scaler"), Spec: v2.HorizontalPodAutoscalerSpec{MaxReplicas: 3, ScaleTargetRef: v2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "set"}}},
		&policy.PodDisruptionBudget{ObjectMeta: in("budget"), Spec: policy.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: deployLabels}}},
		&v1.ResourceQuota{ObjectMeta: in("quota"), Spec: v1.ResourceQuotaSpec{Hard: v1.ResourceList{v1.ResourcePods: resource.MustParse("1")}}},

		pod("served", "b", func(p *v1.Pod) {
			p.Labels = map[string]string{"app": "service"}
			p.Status = v1.PodStatus{Phase: v1.PodRunning, PodIP: "10.0.0.1", PodIPs: []v1.PodIP{{IP: "10.0.0.1"}}, Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}}
		}),
		pod("tainted", "a", nil),
		pod("orphan", "nowhere", nil),
		pod("dependent", "b", func(p *v1.Pod) { p.OwnerReferences = controlled("ReplicaSet", "nobody") }),
		pod("mounts", "a", func(p *v1.Pod) {
			p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "bound"}}},
				{Name: "e", VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{VolumeClaimTemplate: &v1.PersistentVolumeClaimTemplate{}}}}}
			p.Spec.SecurityContext = &v1.PodSecurityContext{SELinuxOptions: &v1.SELinuxOptions{Level: "s0:c1,c2"}}
		}),
		pod("claims", "b", func(p *v1.Pod) {
			p.UID = "claims"
			p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "made", ResourceClaimTemplateName: ptr.To("template")}, {Name: "has", ResourceClaimName: ptr.To("device")}}
		}),
		&resourceapi.ResourceClaimTemplate{ObjectMeta: in("template")},
		&resourceapi.ResourceClaim{ObjectMeta: in("device"), Status: resourceapi.ResourceClaimStatus{ReservedFor: []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "claims", UID: "claims"}},
			Allocation: &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{{Driver: "d", Pool: "p", Device: "gpu"}}}}}},
		&resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "slice"}, Spec: resourceapi.ResourceSliceSpec{Driver: "d", Pool: resourceapi.ResourcePool{Name: "p", Generation: 1, ResourceSliceCount: 1},
			Devices: []resourceapi.Device{{Name: "gpu", Taints: []resourceapi.DeviceTaint{{Key: "k", Effect: resourceapi.DeviceTaintEffectNoExecute, TimeAdded: &old}}}}}},

		&v1.Service{ObjectMeta: in("service"), Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "service"}, ClusterIP: "10.96.0.2", ClusterIPs: []string{"10.96.0.2"},
			IPFamilies: []v1.IPFamily{v1.IPv4Protocol}, Ports: []v1.ServicePort{{Port: 80, Protocol: v1.ProtocolTCP}}}},
		&v1.Service{ObjectMeta: in("own"), Spec: v1.ServiceSpec{ClusterIP: "10.96.0.3", ClusterIPs: []string{"10.96.0.3"}, IPFamilies: []v1.IPFamily{v1.IPv4Protocol}, Ports: []v1.ServicePort{{Port: 80, Protocol: v1.ProtocolTCP}}}},
		&v1.Endpoints{ObjectMeta: in("own"), Subsets: []v1.EndpointSubset{{Addresses: []v1.EndpointAddress{{IP: "192.0.2.9"}}, Ports: []v1.EndpointPort{{Port: 80, Protocol: v1.ProtocolTCP}}}}},
		&networking.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "range"}, Spec: networking.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}},

		claim("unbound", ""), bound, going,
		&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "volume", Annotations: map[string]string{"volume.kubernetes.io/storage-resizer": "kubernetes.io/d"}}, Spec: v1.PersistentVolumeSpec{StorageClassName: "class",
			AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, Capacity: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}, ClaimRef: &v1.ObjectReference{Namespace: "ns", Name: "bound", UID: "bound"},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}}}, Status: v1.PersistentVolumeStatus{Phase: v1.VolumeBound}},
		&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "free"}, Spec: v1.PersistentVolumeSpec{StorageClassName: "class", AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Capacity: v1.ResourceList{v1.ResourceStorage: resource.MustParse("2Gi")}, PersistentVolumeSource: v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/x"}}}},
		&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "going", DeletionTimestamp: &old, Finalizers: []string{"kubernetes.io/pv-protection"}}, Spec: v1.PersistentVolumeSpec{
			PersistentVolumeSource: v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/y"}}}},
		&storage.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "class"}, Provisioner: "d", AllowVolumeExpansion: ptr.To(true), VolumeBindingMode: ptr.To(storage.VolumeBindingImmediate)},
		&storage.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: storage.CSIDriverSpec{AttachRequired: ptr.To(true), SELinuxMount: ptr.To(true)}},
		&storage.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, DriverName: "d"},

		&rbac.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "whole"}, AggregationRule: &rbac.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"part": "yes"}}}}},
		&rbac.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "part", Labels: map[string]string{"part": "yes"}}, Rules: []rbac.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}},
		&admissionregistration.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "policy", Generation: 1}},
		&v1beta1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: "migration"}, Spec: v1beta1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Resource: "configmaps"}}},

		&v1.ServiceAccount{ObjectMeta: in("robot")},
		&v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "token", Annotations: map[string]string{v1.ServiceAccountNameKey: "robot"}}, Type: v1.SecretTypeServiceAccountToken},
		&v1.ServiceAccount{ObjectMeta: in("old"), Secrets: []v1.ObjectReference{{Name: "unused"}}},
		&v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "unused", CreationTimestamp: old, Annotations: map[string]string{v1.ServiceAccountNameKey: "old"}}, Type: v1.SecretTypeServiceAccountToken},
		&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: token.TrackingConfigMap}, Data: map[string]string{"since": "1990-01-01"}},
		&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: api.ConfigMapClusterInfo}, Data: map[string]string{api.KubeConfigKey: "one"}},
		&v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: api.BootstrapTokenSecretPrefix + "aaaaaa"}, Type: api.SecretTypeBootstrapToken,
			Data: map[string][]byte{api.BootstrapTokenIDKey: []byte("aaaaaa"), api.BootstrapTokenSecretKey: []byte("0123456789abcdef"), api.BootstrapTokenUsageSigningKey: []byte("true")}},
		&v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: api.BootstrapTokenSecretPrefix + "bbbbbb"}, Type: api.SecretTypeBootstrapToken,
			Data: map[string][]byte{api.BootstrapTokenIDKey: []byte("bbbbbb"), api.BootstrapTokenSecretKey: []byte("0123456789abcdef"), api.BootstrapTokenExpirationKey: []byte("1990-01-01T00:00:00Z")}},

		request("client", certificates.KubeAPIServerClientKubeletSignerName, nil, certificates.UsageClientAuth),
		request("serving", certificates.KubeletServingSignerName, []string{"a"}, certificates.UsageServerAuth),
		request("approved", certificates.KubeAPIServerClientKubeletSignerName, nil, certificates.UsageClientAuth, certificates.CertificateSigningRequestCondition{Type: certificates.CertificateApproved, LastUpdateTime: metav1.NewTime(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))}),
		request("denied", certificates.KubeAPIServerClientKubeletSignerName, nil, certificates.UsageClientAuth, certificates.CertificateSigningRequestCondition{Type: certificates.CertificateDenied, LastUpdateTime: old}),
		&certificates.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "request", CreationTimestamp: old}},
	}
}

// broken returns objects that contradict themselves or each other, or name what there is not.
func broken() []controllertest.Object {
	old := metav1.NewTime(time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC))
	in := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "ns", Name: name} }
	whole := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
	ofOwner := func(name, kind, owner, uid string) metav1.ObjectMeta {
		m := in(name)
		m.UID = types.UID("uid-" + name)
		m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: owner, UID: types.UID(uid), Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true)}}
		return m
	}
	bad := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Perhaps"}}}
	app := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "app"}}
	matching := v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "app"}}}
	other := v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "other"}}}
	pod := func(name string, spec v1.PodSpec) *v1.Pod { return &v1.Pod{ObjectMeta: in(name), Spec: spec} }
	claim := func(name string, spec v1.PersistentVolumeClaimSpec) *v1.PersistentVolumeClaim {
		spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}
		spec.Resources.Requests = v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Ei")}
		return &v1.PersistentVolumeClaim{ObjectMeta: in(name), Spec: spec}
	}
	volume := func(name string, policy v1.PersistentVolumeReclaimPolicy, namespace string) *v1.PersistentVolume {
		return &v1.PersistentVolume{ObjectMeta: whole(name), Spec: v1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: policy, ClaimRef: &v1.ObjectReference{Namespace: namespace, Name: "unbound", UID: "another"},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: "nobody", VolumeHandle: name}}}}
	}
	service := func(name string, port int32, change func(*v1.ServiceSpec)) *v1.Service {
		s := &v1.Service{ObjectMeta: in(name), Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"}, IPFamilies: []v1.IPFamily{v1.IPv4Protocol},
			Ports: []v1.ServicePort{{Port: port, Protocol: v1.ProtocolTCP}}}}
		if change != nil {
			change(&s.Spec)
		}
		return s
	}
	request := func(name, signer string, conditions ...certificates.CertificateSigningRequestCondition) *certificates.CertificateSigningRequest {
		return &certificates.CertificateSigningRequest{ObjectMeta: whole(name), Spec: certificates.CertificateSigningRequestSpec{Username: "system:node:nobody", Groups: []string{"system:nodes"}, SignerName: signer,
			Usages: []certificates.KeyUsage{"flying"}, Request: []byte("no request")}, Status: certificates.CertificateSigningRequestStatus{Conditions: conditions}}
	}
	approved := certificates.CertificateSigningRequestCondition{Type: certificates.CertificateApproved}
	secret := func(namespace, name string, kind v1.SecretType, annotations map[string]string, data map[string][]byte) *v1.Secret {
		return &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: annotations, CreationTimestamp: old}, Type: kind, Data: data}
	}
	held := in("held")
	held.DeletionTimestamp, held.Finalizers = &old, []string{"example.com/hold", metav1.FinalizerDeleteDependents}
	role := func(name string, selector metav1.LabelSelector) *rbac.ClusterRole {
		m := whole(name)
		m.Labels = map[string]string{"to": "all"}
		return &rbac.ClusterRole{ObjectMeta: m, AggregationRule: &rbac.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{selector}},
			Rules: []rbac.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{name}}}}
	}
	return []controllertest.Object{
		&v1.Namespace{ObjectMeta: whole("ns"), Spec: v1.NamespaceSpec{Finalizers: []v1.FinalizerName{v1.FinalizerKubernetes}}},
		&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "going", DeletionTimestamp: &old, Finalizers: []string{"x/y"}}, Spec: v1.NamespaceSpec{Finalizers: []v1.FinalizerName{v1.FinalizerKubernetes}}},
		&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "going", Name: "held", Finalizers: []string{"example.com/hold"}}},
		&v1.Node{ObjectMeta: whole("a"), Spec: v1.NodeSpec{PodCIDR: "no range", PodCIDRs: []string{"no range"}, ProviderID: "?"}},
		&v1.Node{ObjectMeta: whole("b"), Status: v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: "Perhaps"}}}},

		&apps.Deployment{ObjectMeta: in("bad"), Spec: apps.DeploymentSpec{Replicas: ptr.To[int32](-1), Selector: bad, Template: other}},
		&apps.Deployment{ObjectMeta: in("other"), Spec: apps.DeploymentSpec{Replicas: ptr.To[int32](2), Selector: app, Template: other, Strategy: apps.DeploymentStrategy{Type: "Sideways"}}},
		&apps.ReplicaSet{ObjectMeta: in("bad"), Spec: apps.ReplicaSetSpec{Replicas: ptr.To[int32](1), Selector: bad}},
		&v1.ReplicationController{ObjectMeta: in("bad"), Spec: v1.ReplicationControllerSpec{Replicas: ptr.To[int32](1), Selector: map[string]string{"app": "app"}, Template: &matching}},
		&apps.DaemonSet{ObjectMeta: in("bad"), Spec: apps.DaemonSetSpec{Selector: bad, Template: other}},
		&apps.StatefulSet{ObjectMeta: in("bad"), Spec: apps.StatefulSetSpec{Replicas: ptr.To[int32](1), Selector: bad, ServiceName: "nobody", UpdateStrategy: apps.StatefulSetUpdateStrategy{Type: "Sideways"}}},
		&batch.Job{ObjectMeta: in("bad"), Spec: batch.JobSpec{Selector: bad, CompletionMode: ptr.To(batch.CompletionMode("Backwards")), Completions: ptr.To[int32](-1), Parallelism: ptr.To[int32](-1), TTLSecondsAfterFinished: ptr.To[int32](-1)},
			Status: batch.JobStatus{Conditions: []batch.JobCondition{{Type: batch.JobComplete, Status: "Perhaps"}}}},
		&batch.Job{ObjectMeta: in("timeless"), Spec: batch.JobSpec{Selector: app, TTLSecondsAfterFinished: ptr.To[int32](1)}, Status: batch.JobStatus{Conditions: []batch.JobCondition{{Type: batch.JobComplete, Status: v1.ConditionTrue}}}},
		&batch.CronJob{ObjectMeta: in("bad"), Spec: batch.CronJobSpec{Schedule: "never", TimeZone: ptr.To("Moon/Tycho")}},
		&batch.CronJob{ObjectMeta: in("past"), Spec: batch.CronJobSpec{Schedule: "0 0 30 2 *", StartingDeadlineSeconds: ptr.To[int64](-1)}},
		&v2.HorizontalPodAutoscaler{ObjectMeta: in("self"), Spec: v2.HorizontalPodAutoscalerSpec{MaxReplicas: -1, ScaleTargetRef: v2.CrossVersionObjectReference{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler", Name: "self"}}},
		&v2.HorizontalPodAutoscaler{ObjectMeta: in("bad"), Spec: v2.HorizontalPodAutoscalerSpec{ScaleTargetRef: v2.CrossVersionObjectReference{APIVersion: "a/b/c", Kind: "?"}}},
		&policy.PodDisruptionBudget{ObjectMeta: in("bad"), Spec: policy.PodDisruptionBudgetSpec{Selector: bad, MinAvailable: ptr.To(intstr.FromString("many"))}},
		&policy.PodDisruptionBudget{ObjectMeta: in("many"), Spec: policy.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{}, MinAvailable: ptr.To(intstr.FromString("many"))}},
		&v1.ResourceQuota{ObjectMeta: in("quota"), Spec: v1.ResourceQuotaSpec{Hard: v1.ResourceList{"count/bears.zoo": resource.MustParse("1"), "": resource.MustParse("-1")}, Scopes: []v1.ResourceQuotaScope{"Moon"}}},

		&v1.Pod{ObjectMeta: ofOwner("circle", "ReplicaSet", "circle", "uid-circle-set"), Spec: v1.PodSpec{NodeName: "nowhere"}},
		&apps.ReplicaSet{ObjectMeta: ofOwner("circle-set", "ReplicaSet", "circle-set", "uid-circle-set"), Spec: apps.ReplicaSetSpec{Replicas: ptr.To[int32](1), Selector: app, Template: matching}},
		&v1.ConfigMap{ObjectMeta: ofOwner("of-no-kind", "Bear", "bear", "uid-bear")},
		&v1.ConfigMap{ObjectMeta: held},
		pod("volumes", v1.PodSpec{NodeName: "a", SecurityContext: &v1.PodSecurityContext{SELinuxOptions: &v1.SELinuxOptions{Level: "?"}}, Volumes: []v1.Volume{
			{Name: "none", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "nobody"}}},
			{Name: "e", VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{}}},
			{Name: "f", VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{VolumeClaimTemplate: &v1.PersistentVolumeClaimTemplate{}}}}}}),
		claim("volumes-f", v1.PersistentVolumeClaimSpec{}), // which is not the pod's
		pod("claims", v1.PodSpec{NodeName: "a", ResourceClaims: []v1.PodResourceClaim{{Name: "a", ResourceClaimTemplateName: ptr.To("nobody")}, {Name: "b", ResourceClaimName: ptr.To("nobody")}, {Name: "c"}}}),
		&resourceapi.ResourceClaim{ObjectMeta: in("strange"), Status: resourceapi.ResourceClaimStatus{ReservedFor: []resourceapi.ResourceClaimConsumerReference{{APIGroup: "zoo", Resource: "bears", Name: "b", UID: "b"}},
			Allocation: &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{{Driver: "nobody", Pool: "p", Device: "gpu"}}}}}},
		&resourceapi.ResourceSlice{ObjectMeta: whole("slice"), Spec: resourceapi.ResourceSliceSpec{Driver: "nobody", Pool: resourceapi.ResourcePool{Name: "p", Generation: 1, ResourceSliceCount: 7},
			Devices: []resourceapi.Device{{Name: "gpu", Taints: []resourceapi.DeviceTaint{{Key: "k", Effect: resourceapi.DeviceTaintEffectNoExecute}}}}}},

		service("one", 80, func(s *v1.ServiceSpec) { s.Selector = map[string]string{"app": "?!"} }), service("two", 80, nil),
		service("classy", 80, func(s *v1.ServiceSpec) { s.LoadBalancerClass = ptr.To("nobody.example.com/x") }),
		service("own", 80, func(s *v1.ServiceSpec) { s.Type, s.LoadBalancerIP = v1.ServiceTypeLoadBalancer, "no address" }),
		&v1.Endpoints{ObjectMeta: in("own"), Subsets: []v1.EndpointSubset{{Addresses: []v1.EndpointAddress{{IP: "no address"}, {IP: "192.0.2.1"}}, Ports: []v1.EndpointPort{{Port: -1}}}}},
		&networking.ServiceCIDR{ObjectMeta: whole("bad"), Spec: networking.ServiceCIDRSpec{CIDRs: []string{"no range"}}},
		&networking.IPAddress{ObjectMeta: whole("no-address")},

		claim("unbound", v1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("nobody")}), claim("named", v1.PersistentVolumeClaimSpec{VolumeName: "nobody"}),
		claim("provisioned", v1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("class"), VolumeAttributesClassName: ptr.To("nobody")}), claim("plain", v1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("")}),
		volume("recycled", v1.PersistentVolumeReclaimRecycle, "ns"), volume("deleted", v1.PersistentVolumeReclaimDelete, "nowhere"), volume("odd", "Burn", "ns"),
		&storage.StorageClass{ObjectMeta: whole("class"), Provisioner: "nobody.example.com", VolumeBindingMode: ptr.To(storage.VolumeBindingMode("Sideways"))},
		&storage.VolumeAttachment{ObjectMeta: whole("lost"), Spec: storage.VolumeAttachmentSpec{Attacher: "nobody", NodeName: "nowhere", Source: storage.VolumeAttachmentSource{PersistentVolumeName: ptr.To("nobody")}}},
		&storage.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: "held", DeletionTimestamp: &old, Finalizers: []string{"kubernetes.io/vac-protection", "x/y"}}},

		role("all", metav1.LabelSelector{MatchLabels: map[string]string{"to": "all"}}), role("also", metav1.LabelSelector{MatchLabels: map[string]string{"to": "all"}}), role("bad", *bad),
		&admissionregistration.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "bad", Generation: 1}, Spec: admissionregistration.ValidatingAdmissionPolicySpec{
			Validations: []admissionregistration.Validation{{Expression: "1 +"}, {Expression: "object.nothing == nothing"}}}},
		&v1beta1.StorageVersionMigration{ObjectMeta: whole("unicorns"), Spec: v1beta1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Group: "zoo", Resource: "unicorns"}}},

		secret("ns", "nobody", v1.SecretTypeServiceAccountToken, map[string]string{v1.ServiceAccountNameKey: "nobody"}, nil), secret("ns", "nameless", v1.SecretTypeServiceAccountToken, nil, nil),
		secret("ns", "another", v1.SecretTypeServiceAccountToken, map[string]string{v1.ServiceAccountNameKey: "default", v1.ServiceAccountUIDKey: "another"}, nil),
		&v1.ServiceAccount{ObjectMeta: in("default"), Secrets: []v1.ObjectReference{{Name: "nowhere"}}},
		&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: token.TrackingConfigMap}, Data: map[string]string{"since": "long ago"}},
		&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: api.ConfigMapClusterInfo}, Data: map[string]string{api.JWSSignatureKeyPrefix: "?"}},
		secret(metav1.NamespaceSystem, "bootstrap-token-x", api.SecretTypeBootstrapToken, nil, map[string][]byte{api.BootstrapTokenIDKey: []byte("?"), api.BootstrapTokenExpirationKey: []byte("soon"), api.BootstrapTokenUsageSigningKey: []byte("true")}),

		request("bad", certificates.KubeAPIServerClientKubeletSignerName), request("served", certificates.KubeletServingSignerName), request("approved", certificates.KubeletServingSignerName, approved),
		request("strange", "nobody.example.com/x", approved), request("also", certificates.KubeAPIServerClientSignerName, approved, certificates.CertificateSigningRequestCondition{Type: certificates.CertificateDenied}),
		&certificates.PodCertificateRequest{ObjectMeta: in("bad"), Spec: certificates.PodCertificateRequestSpec{SignerName: "?"}},
		&certificates.ClusterTrustBundle{ObjectMeta: whole("kubernetes.io:kube-apiserver-serving:forged"), Spec: certificates.ClusterTrustBundleSpec{SignerName: "kubernetes.io/kube-apiserver-serving", TrustBundle: "?"}},
	}
}
