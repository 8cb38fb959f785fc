package manager

import (
	admissionregistration "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	certificatesapi "k8s.io/api/certificates/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	resource "k8s.io/api/resource/v1"
	storage "k8s.io/api/storage/v1"
	storagemigration "k8s.io/api/storagemigration/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/accounttoken"
	"keelson.dev/keelson/internal/controllers/attachdetach"
	"keelson.dev/keelson/internal/controllers/bootstraptoken"
	"keelson.dev/keelson/internal/controllers/certificates"
	"keelson.dev/keelson/internal/controllers/clusterautoscaler"
	"keelson.dev/keelson/internal/controllers/clusterrole"
	"keelson.dev/keelson/internal/controllers/cronjob"
	"keelson.dev/keelson/internal/controllers/daemonset"
	"keelson.dev/keelson/internal/controllers/deployment"
	"keelson.dev/keelson/internal/controllers/devicetainteviction"
	"keelson.dev/keelson/internal/controllers/disruption"
	"keelson.dev/keelson/internal/controllers/endpointslice"
	"keelson.dev/keelson/internal/controllers/endpointslicemirroring"
	"keelson.dev/keelson/internal/controllers/ephemeralvolume"
	"keelson.dev/keelson/internal/controllers/garbagecollector"
	"keelson.dev/keelson/internal/controllers/horizontalpodautoscaler"
	"keelson.dev/keelson/internal/controllers/job"
	"keelson.dev/keelson/internal/controllers/legacytoken"
	"keelson.dev/keelson/internal/controllers/namespace"
	"keelson.dev/keelson/internal/controllers/nodeipam"
	"keelson.dev/keelson/internal/controllers/nodelifecycle"
	"keelson.dev/keelson/internal/controllers/nodettl"
	"keelson.dev/keelson/internal/controllers/persistentvolume"
	"keelson.dev/keelson/internal/controllers/podgc"
	"keelson.dev/keelson/internal/controllers/policystatus"
	"keelson.dev/keelson/internal/controllers/replicaset"
	"keelson.dev/keelson/internal/controllers/resourceclaim"
	"keelson.dev/keelson/internal/controllers/resourcequota"
	"keelson.dev/keelson/internal/controllers/rootca"
	"keelson.dev/keelson/internal/controllers/selinuxwarning"
	"keelson.dev/keelson/internal/controllers/service"
	"keelson.dev/keelson/internal/controllers/serviceaccount"
	"keelson.dev/keelson/internal/controllers/servicecidr"
	"keelson.dev/keelson/internal/controllers/statefulset"
	"keelson.dev/keelson/internal/controllers/storageversionmigrator"
	"keelson.dev/keelson/internal/controllers/tainteviction"
	"keelson.dev/keelson/internal/controllers/ttlafterfinished"
	"keelson.dev/keelson/internal/controllers/volumeexpand"
	"keelson.dev/keelson/internal/controllers/volumeprotection"
)

// resources names resources of a group version.
func resources(gv schema.GroupVersion, names ...string) []schema.GroupVersionResource {
	out := make([]schema.GroupVersionResource, len(names))
	for i, n := range names {
		out[i] = gv.WithResource(n)
	}
	return out
}

// join puts the resources of several groups together.
func join(lists ...[]schema.GroupVersionResource) []schema.GroupVersionResource {
	var out []schema.GroupVersionResource
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

var (
	coreV1  = core.SchemeGroupVersion
	appsV1  = apps.SchemeGroupVersion
	batchV1 = batch.SchemeGroupVersion
)

// table is all controllers. They are made in this order: those that a new pod
// waits for come first.
var table = []controllers.Row{
	{
		Name: "deployment-controller", Aliases: []string{"deployment"}, Identity: "deployment-controller",
		Watches: join(resources(appsV1, "deployments", "replicasets"), resources(coreV1, "pods")), New: deployment.New,
	},
	{
		Name: "replicaset-controller", Aliases: []string{"replicaset"}, Identity: "replicaset-controller",
		Watches: join(resources(appsV1, "replicasets"), resources(coreV1, "pods")), New: replicaset.New,
	},
	{
		Name: "daemonset-controller", Aliases: []string{"daemonset"}, Identity: "daemon-set-controller", Events: "daemonset-controller",
		Watches: join(resources(appsV1, "daemonsets", "controllerrevisions"), resources(coreV1, "pods", "nodes")), New: daemonset.New,
	},
	{
		Name: "statefulset-controller", Aliases: []string{"statefulset"}, Identity: "statefulset-controller",
		Watches: join(resources(appsV1, "statefulsets", "controllerrevisions"), resources(coreV1, "pods", "persistentvolumeclaims")), New: statefulset.New,
	},
	{
		Name: "serviceaccount-controller", Aliases: []string{"serviceaccount"}, Identity: "service-account-controller",
		Watches: resources(coreV1, "namespaces", "serviceaccounts"), New: serviceaccount.New,
	},
	{
		Name: "replicationcontroller-controller", Aliases: []string{"replicationcontroller"}, Identity: "replication-controller",
		Watches: resources(coreV1, "replicationcontrollers", "pods"), New: replicaset.NewReplicationController,
	},
	{
		Name: "job-controller", Aliases: []string{"job"}, Identity: "job-controller",
		Watches: join(resources(batchV1, "jobs"), resources(coreV1, "pods")), New: job.New,
	},
	{
		Name: "cronjob-controller", Aliases: []string{"cronjob"}, Identity: "cronjob-controller",
		Watches: resources(batchV1, "cronjobs", "jobs"), New: cronjob.New,
	},
	{
		Name: "disruption-controller", Aliases: []string{"disruption"}, Identity: "disruption-controller", Events: "controllermanager",
		Watches: join(resources(policy.SchemeGroupVersion, "poddisruptionbudgets"), resources(coreV1, "pods", "replicationcontrollers"),
			resources(appsV1, "deployments", "replicasets", "statefulsets")), New: disruption.New,
	},
	{
		Name: "cluster-autoscaler-controller", Aliases: []string{"cluster-autoscaler"}, Identity: "cluster-autoscaler",
		Watches: join(resources(coreV1, "pods", "nodes", "namespaces", "persistentvolumeclaims", "persistentvolumes", "services", "replicationcontrollers"),
			resources(policy.SchemeGroupVersion, "poddisruptionbudgets"), resources(appsV1, "daemonsets", "replicasets", "statefulsets"),
			resources(storage.SchemeGroupVersion, "storageclasses", "csinodes", "csidrivers", "csistoragecapacities"), resources(resource.SchemeGroupVersion, "resourceclaims", "resourceslices", "deviceclasses", "devicetaintrules")),
		New: clusterautoscaler.New,
	},
	{
		Name: "horizontal-pod-autoscaler-controller", Aliases: []string{"horizontalpodautoscaling"}, Identity: "horizontal-pod-autoscaler", Events: "horizontal-pod-autoscaler",
		Watches: join(resources(autoscaling.SchemeGroupVersion, "horizontalpodautoscalers"), resources(coreV1, "pods")), New: horizontalpodautoscaler.New,
	},
	{
		Name: "ttl-after-finished-controller", Aliases: []string{"ttl-after-finished"}, Identity: "ttl-after-finished-controller",
		Watches: resources(batchV1, "jobs"), New: ttlafterfinished.New,
	},
	{
		Name: "endpointslice-controller", Aliases: []string{"endpointslice"}, Identity: "endpointslice-controller",
		Watches: join(resources(coreV1, "services", "pods", "nodes"), resources(discovery.SchemeGroupVersion, "endpointslices")), New: endpointslice.New,
	},
	{
		Name: "endpoints-controller", Aliases: []string{"endpoint"}, Identity: "endpoint-controller",
		Watches: resources(coreV1, "services", "pods", "endpoints"), New: endpointslice.NewEndpoints,
	},
	{
		Name: "endpointslice-mirroring-controller", Aliases: []string{"endpointslicemirroring"}, Identity: "endpointslicemirroring-controller", Events: "endpoint-slice-mirroring-controller",
		Watches: join(resources(coreV1, "endpoints", "services"), resources(discovery.SchemeGroupVersion, "endpointslices")), New: endpointslicemirroring.New,
	},
	{
		Name: "node-lifecycle-controller", Aliases: []string{"nodelifecycle"}, Identity: "node-controller",
		Watches: join(resources(coreV1, "nodes", "pods"), resources(coordination.SchemeGroupVersion, "leases")), New: nodelifecycle.New,
	},
	{
		Name: "node-ipam-controller", Aliases: []string{"nodeipam"}, Identity: "node-controller", Events: "cidrAllocator",
		Watches: resources(coreV1, "nodes"), New: nodeipam.New,
	},
	{
		Name: "taint-eviction-controller", Identity: "node-controller", Events: "taint-eviction-controller",
		Watches: resources(coreV1, "nodes", "pods"), New: tainteviction.New,
	},
	{
		Name: "pod-garbage-collector-controller", Aliases: []string{"podgc"}, Identity: "pod-garbage-collector",
		Watches: resources(coreV1, "pods", "nodes"), New: podgc.New,
	},
	{
		Name: "resourcequota-controller", Aliases: []string{"resourcequota"}, Identity: "resourcequota-controller",
		Watches: resources(coreV1, "resourcequotas", "pods", "services", "persistentvolumeclaims"), New: resourcequota.New,
	},
	{
		Name: "persistentvolumeclaim-protection-controller", Aliases: []string{"pvc-protection"}, Identity: "pvc-protection-controller",
		Watches: resources(coreV1, "persistentvolumeclaims", "pods"), New: volumeprotection.NewClaims,
	},
	{
		Name: "persistentvolume-protection-controller", Aliases: []string{"pv-protection"}, Identity: "pv-protection-controller",
		Watches: resources(coreV1, "persistentvolumes"), New: volumeprotection.NewVolumes,
	},
	{
		Name: "persistentvolume-binder-controller", Aliases: []string{"persistentvolume-binder"}, Identity: "persistent-volume-binder", Events: "persistentvolume-controller",
		Watches: join(resources(coreV1, "persistentvolumeclaims", "persistentvolumes", "pods"), resources(storage.SchemeGroupVersion, "storageclasses")), New: persistentvolume.New,
	},
	{
		Name: "volumeattributesclass-protection-controller", Identity: "volumeattributesclass-protection-controller",
		Watches: join(resources(storage.SchemeGroupVersion, "volumeattributesclasses"), resources(coreV1, "persistentvolumeclaims", "persistentvolumes")),
		New:     volumeprotection.NewAttributesClasses,
	},
	{
		Name: "persistentvolume-attach-detach-controller", Aliases: []string{"attachdetach"}, Identity: "attachdetach-controller",
		Watches: join(resources(coreV1, "nodes", "pods", "persistentvolumeclaims", "persistentvolumes"), resources(storage.SchemeGroupVersion, "volumeattachments", "csidrivers")),
		New:     attachdetach.New,
	},
	{
		Name: "selinux-warning-controller", Aliases: []string{"selinux-warning"}, Identity: "selinux-warning-controller", Events: "selinux_warning", Off: true,
		Watches: join(resources(coreV1, "pods", "persistentvolumeclaims", "persistentvolumes"), resources(storage.SchemeGroupVersion, "csidrivers")), New: selinuxwarning.New,
	},
	{
		Name: "persistentvolume-expander-controller", Aliases: []string{"persistentvolume-expander"}, Identity: "expand-controller", Events: "volume_expand",
		Watches: resources(coreV1, "persistentvolumeclaims", "persistentvolumes"), New: volumeexpand.New,
	},
	{
		Name: "ephemeral-volume-controller", Aliases: []string{"ephemeral-volume"}, Identity: "ephemeral-volume-controller", Events: "ephemeral_volume",
		Watches: resources(coreV1, "pods", "persistentvolumeclaims"), New: ephemeralvolume.New,
	},
	{
		Name: "clusterrole-aggregation-controller", Aliases: []string{"clusterrole-aggregation"}, Identity: "clusterrole-aggregation-controller",
		Watches: resources(rbac.SchemeGroupVersion, "clusterroles"), New: clusterrole.New,
	},
	{
		Name: "bootstrap-signer-controller", Aliases: []string{"bootstrapsigner"}, Identity: "bootstrap-signer",
		Watches: resources(coreV1, "configmaps", "secrets"), New: bootstraptoken.NewSigner,
	},
	{
		Name: "legacy-serviceaccount-token-cleaner-controller", Aliases: []string{"legacy-service-account-token-cleaner"}, Identity: "legacy-service-account-token-cleaner",
		Watches: resources(coreV1, "secrets", "serviceaccounts", "pods"), New: legacytoken.New,
	},
	{
		Name: "ttl-controller", Aliases: []string{"ttl"}, Identity: "ttl-controller",
		Watches: resources(coreV1, "nodes"), New: nodettl.New,
	},
	{
		Name: "token-cleaner-controller", Aliases: []string{"tokencleaner"}, Identity: "token-cleaner",
		Watches: resources(coreV1, "secrets"), New: bootstraptoken.NewCleaner,
	},
	{
		Name: "certificatesigningrequest-approving-controller", Aliases: []string{"csrapproving"}, Identity: "certificate-controller",
		Watches: resources(certificatesapi.SchemeGroupVersion, "certificatesigningrequests"), New: certificates.NewApprover,
	},
	{
		Name: "kubelet-serving-approving-controller", Identity: "kubelet-serving-approver",
		Watches: join(resources(certificatesapi.SchemeGroupVersion, "certificatesigningrequests"), resources(coreV1, "nodes")), New: certificates.NewServingApprover,
	},
	{
		Name: "certificatesigningrequest-cleaner-controller", Aliases: []string{"csrcleaner"}, Identity: "certificate-controller",
		Watches: resources(certificatesapi.SchemeGroupVersion, "certificatesigningrequests"), New: certificates.NewCleaner,
	},
	{
		Name: "certificatesigningrequest-signing-controller", Aliases: []string{"csrsigning"}, Identity: "certificate-controller",
		Watches: resources(certificatesapi.SchemeGroupVersion, "certificatesigningrequests"), New: certificates.NewSigner,
	},
	{
		Name: "serviceaccount-token-controller", Aliases: []string{"serviceaccount-token"}, Identity: "tokens-controller",
		Watches: resources(coreV1, "serviceaccounts", "secrets"), New: accounttoken.New,
	},
	{
		Name: "namespace-controller", Aliases: []string{"namespace"}, Identity: "namespace-controller",
		Watches: resources(coreV1, "namespaces", "pods"), New: namespace.New,
	},
	{
		Name: "validatingadmissionpolicy-status-controller", Identity: "validatingadmissionpolicy-status-controller",
		Watches: resources(admissionregistration.SchemeGroupVersion, "validatingadmissionpolicies"), New: policystatus.New,
	},
	{
		Name: "storage-version-migrator-controller", Identity: "storage-version-migrator-controller",
		Watches: resources(storagemigration.SchemeGroupVersion, "storageversionmigrations"), New: storageversionmigrator.New,
	},
	{
		Name: "garbage-collector-controller", Aliases: []string{"garbagecollector"}, Identity: "generic-garbage-collector", Events: "garbage-collector-controller",
		New: garbagecollector.New,
	},
	{
		Name: "root-ca-certificate-publisher-controller", Aliases: []string{"root-ca-cert-publisher"}, Identity: "root-ca-cert-publisher",
		Watches: resources(coreV1, "namespaces", "configmaps"), New: rootca.New,
	},
	{
		Name: "service-lb-controller", Aliases: []string{"service"}, Identity: "service-controller",
		Watches: join(resources(coreV1, "services", "nodes"), resources(discovery.SchemeGroupVersion, "endpointslices")), New: service.New,
	},
	{
		Name: "service-cidr-controller", Identity: "service-cidrs-controller",
		Watches: resources(networking.SchemeGroupVersion, "servicecidrs", "ipaddresses"), New: servicecidr.New,
	},
	{
		Name: "podcertificaterequest-cleaner-controller", Identity: "podcertificaterequestcleaner",
		Watches: resources(certificatesapi.SchemeGroupVersion, "podcertificaterequests"), New: certificates.NewPodRequestCleaner,
	},
	{
		Name: "resourceclaim-controller", Identity: "resource-claim-controller", Events: "resource_claim",
		Watches: join(resources(resource.SchemeGroupVersion, "resourceclaims", "resourceclaimtemplates"), resources(coreV1, "pods")), New: resourceclaim.New,
	},
	{
		Name: "device-taint-eviction-controller", Identity: "device-taint-eviction-controller",
		Watches: join(resources(resource.SchemeGroupVersion, "resourceclaims", "resourceslices", "devicetaintrules"), resources(coreV1, "pods")), New: devicetainteviction.New,
	},
	{
		Name: "kube-apiserver-serving-clustertrustbundle-publisher-controller", Identity: "kube-apiserver-serving-clustertrustbundle-publisher",
		Watches: resources(certificatesapi.SchemeGroupVersion, "clustertrustbundles"), New: certificates.NewTrustPublisher,
	},
}
