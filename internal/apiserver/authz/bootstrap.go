package authz

import (
	"strings"

	v1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/apiserver/token"
)

var (
	read      = []string{"get", "list", "watch"}
	write     = []string{"create", "delete", "deletecollection", "patch", "update"}
	readWrite = append(append([]string{}, read...), write...)
)

// rule returns one of resources in groups; a space separates the words.
func rule(verbs []string, groups, resources string) v1.PolicyRule {
	gs := strings.Fields(groups)
	for i := range gs {
		if gs[i] == "core" {
			gs[i] = ""
		}
	}
	return v1.PolicyRule{Verbs: verbs, APIGroups: gs, Resources: strings.Fields(resources)}
}

func verbs(s string) []string { return strings.Fields(s) }

func urls(paths string) v1.PolicyRule {
	return v1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: strings.Fields(paths)}
}

var eventRule = rule(verbs("create patch update"), "core events.k8s.io", "events")

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"}, Annotations: map[string]string{v1.AutoUpdateAnnotationKey: "true"}}
}

func clusterRole(name string, rules ...v1.PolicyRule) *v1.ClusterRole {
	return &v1.ClusterRole{ObjectMeta: meta(name), Rules: rules}
}

func aggregated(name, label string, more map[string]string) *v1.ClusterRole {
	r := clusterRole(name)
	r.AggregationRule = &v1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{label: "true"}}}}
	for k, v := range more {
		r.Labels[k] = v
	}
	return r
}

func part(name, label string, rules ...v1.PolicyRule) *v1.ClusterRole {
	r := clusterRole(name, rules...)
	r.Labels[label] = "true"
	return r
}

func group(name string) v1.Subject {
	return v1.Subject{APIGroup: v1.GroupName, Kind: v1.GroupKind, Name: name}
}

func userSubject(name string) v1.Subject {
	return v1.Subject{APIGroup: v1.GroupName, Kind: v1.UserKind, Name: name}
}

func sa(namespace, name string) v1.Subject {
	return v1.Subject{Kind: v1.ServiceAccountKind, Namespace: namespace, Name: name}
}

func bind(role string, subjects ...v1.Subject) *v1.ClusterRoleBinding {
	return &v1.ClusterRoleBinding{ObjectMeta: meta(role), RoleRef: v1.RoleRef{APIGroup: v1.GroupName, Kind: "ClusterRole", Name: role}, Subjects: subjects}
}

func in(namespace string, m metav1.ObjectMeta) metav1.ObjectMeta {
	m.Namespace = namespace
	return m
}

// The labels that mark the parts of admin, edit and view.
const (
	toAdmin = "rbac.authorization.k8s.io/aggregate-to-admin"
	toEdit  = "rbac.authorization.k8s.io/aggregate-to-edit"
	toView  = "rbac.authorization.k8s.io/aggregate-to-view"
)

const (
	workloads = "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"
	coreView  = "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status"
	coreNS    = "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status"
)

// KubeletClient is the user that the API server is to the servers of nodes.
const KubeletClient = "kube-apiserver-kubelet-client"

// Bootstrap returns upstream's default roles and bindings, which a cluster has from
// its first start. Three bindings are added. That for KubeletClient: it is in no group, so
// that a request which is led back to the API server has no more rights there. And those
// for all users to ask what changed and what was done, and for the page of keelson dash: the
// answers have only what they may read.
func Bootstrap() []runtime.Object {
	out := []runtime.Object{
		clusterRole("cluster-admin", rule([]string{"*"}, "*", "*"), v1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}),
		clusterRole("system:discovery", urls("/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")),
		clusterRole("system:monitoring", urls("/flagz /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/* /statusz")),
		clusterRole("system:basic-user", rule(verbs("create"), "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
			rule(verbs("create"), "authentication.k8s.io", "selfsubjectreviews")),
		clusterRole("system:public-info-viewer", urls("/healthz /livez /readyz /version /version/")),
		aggregated("admin", toAdmin, nil),
		aggregated("edit", toEdit, map[string]string{toAdmin: "true"}),
		aggregated("view", toView, map[string]string{toEdit: "true"}),
		part("system:aggregate-to-admin", toAdmin,
			rule(verbs("create"), "authorization.k8s.io", "localsubjectaccessreviews"),
			rule(readWrite, "rbac.authorization.k8s.io", "rolebindings roles")),
		part("system:aggregate-to-edit", toEdit,
			rule(read, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
			rule(verbs("impersonate"), "core", "serviceaccounts"),
			rule(write, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
			rule(verbs("create"), "core", "pods/eviction"),
			rule(write, "core", "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy"),
			rule(verbs("create"), "core", "serviceaccounts/token"),
			rule(write, "apps", workloads),
			rule(write, "autoscaling", "horizontalpodautoscalers"),
			rule(write, "batch", "cronjobs jobs"),
			rule(write, "policy", "poddisruptionbudgets"),
			rule(write, "networking.k8s.io", "ingresses networkpolicies"),
			rule(write, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
			rule(verbs("create delete deletecollection get list patch update watch"), "coordination.k8s.io", "leases")),
		part("system:aggregate-to-view", toView,
			rule(read, "core", coreView), rule(read, "core", coreNS), rule(read, "core", "namespaces"),
			rule(read, "discovery.k8s.io", "endpointslices"),
			rule(read, "apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"),
			rule(read, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
			rule(read, "batch", "cronjobs cronjobs/status jobs jobs/status"),
			rule(read, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
			rule(read, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
			rule(read, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates")),
		metricsReader("system:aggregated-metrics-reader"),
		metricsReader("keelson:aggregated-metrics-reader"),
		clusterRole("system:heapster", rule(read, "core", "events namespaces nodes pods"), rule(read, "apps", "deployments")),
		clusterRole("system:node",
			rule(verbs("create"), "authentication.k8s.io", "tokenreviews"), rule(verbs("create"), "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
			rule(read, "core", "services"), rule(verbs("create get list watch"), "core", "nodes"), rule(verbs("patch update"), "core", "nodes/status"),
			rule(verbs("patch update"), "core", "nodes"), eventRule, rule(verbs("create delete get list watch"), "core", "pods"), rule(verbs("patch update"), "core", "pods/status"),
			rule(verbs("create"), "core", "pods/eviction"), rule(read, "core", "configmaps secrets"), rule(verbs("get"), "core", "persistentvolumeclaims persistentvolumes"),
			rule(verbs("get patch update"), "core", "persistentvolumeclaims/status"), rule(verbs("get"), "core", "endpoints"),
			rule(verbs("create get list watch"), "certificates.k8s.io", "certificatesigningrequests"),
			rule(verbs("create delete get patch update"), "coordination.k8s.io", "leases"), rule(verbs("get"), "storage.k8s.io", "volumeattachments"),
			rule(verbs("create"), "core", "serviceaccounts/token"), rule(verbs("get"), "core", "serviceaccounts"),
			rule(verbs("create delete get patch update"), "storage.k8s.io", "csinodes"), rule(read, "storage.k8s.io", "csidrivers"), rule(read, "node.k8s.io", "runtimeclasses"),
			rule(read, "resource.k8s.io", "resourceclaims"), rule(verbs("create delete deletecollection get list patch update watch"), "resource.k8s.io", "resourceslices"),
			rule(read, "certificates.k8s.io", "clustertrustbundles"), rule(verbs("create get list watch"), "certificates.k8s.io", "podcertificaterequests")),
		clusterRole("system:node-problem-detector", rule(verbs("get"), "core", "nodes"), rule(verbs("patch"), "core", "nodes/status"), eventRule),
		clusterRole("system:kubelet-api-admin", rule(read, "core", "nodes"), rule(verbs("proxy"), "core", "nodes"),
			rule([]string{"*"}, "core", "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats")),
		clusterRole("system:node-bootstrapper", rule(verbs("create get list watch"), "certificates.k8s.io", "certificatesigningrequests")),
		clusterRole("system:auth-delegator", rule(verbs("create"), "authentication.k8s.io", "tokenreviews"), rule(verbs("create"), "authorization.k8s.io", "subjectaccessreviews")),
		clusterRole("system:kube-aggregator", rule(read, "core", "endpoints services"), rule(read, "discovery.k8s.io", "endpointslices")),
		clusterRole("system:kube-controller-manager", eventRule, rule(verbs("create"), "coordination.k8s.io", "leases"), rule(verbs("get update"), "coordination.k8s.io", "leases"),
			rule(verbs("create"), "core", "secrets serviceaccounts"), rule(verbs("delete"), "core", "secrets"), rule(verbs("get"), "core", "configmaps namespaces secrets serviceaccounts"),
			rule(verbs("update"), "core", "secrets serviceaccounts"), rule(verbs("create"), "authentication.k8s.io", "tokenreviews"), rule(verbs("create"), "authorization.k8s.io", "subjectaccessreviews"),
			rule(verbs("list watch"), "*", "*"), rule(verbs("create"), "core", "serviceaccounts/token")),
		clusterRole("system:kube-scheduler", eventRule, rule(verbs("create get list update watch"), "coordination.k8s.io", "leases"), rule(read, "core", "nodes"),
			rule(verbs("delete get list watch"), "core", "pods"), rule(verbs("create"), "core", "bindings pods/binding"), rule(verbs("patch update"), "core", "pods/status"),
			rule(read, "core", "replicationcontrollers services namespaces"), rule(read, "apps", "replicasets statefulsets"), rule(read, "policy", "poddisruptionbudgets"),
			rule(read, "core", "persistentvolumeclaims persistentvolumes"), rule(verbs("patch update"), "core", "persistentvolumeclaims persistentvolumes"),
			rule(read, "storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses volumeattachments"),
			rule(verbs("create"), "authentication.k8s.io", "tokenreviews"), rule(verbs("create"), "authorization.k8s.io", "subjectaccessreviews"),
			rule(read, "resource.k8s.io", "deviceclasses devicetaintrules resourceclaims resourceslices"), rule(verbs("patch update"), "resource.k8s.io", "resourceclaims resourceclaims/binding resourceclaims/status"),
			rule(verbs("create delete"), "resource.k8s.io", "resourceclaims"), rule(verbs("update"), "core", "pods/finalizers")),
		clusterRole("system:kube-dns", rule(verbs("list watch"), "core", "endpoints services")),
		clusterRole("system:persistent-volume-provisioner", rule(verbs("create delete get list watch"), "core", "persistentvolumes"), rule(verbs("get list update watch"), "core", "persistentvolumeclaims"),
			rule(read, "storage.k8s.io", "storageclasses"), rule(verbs("watch"), "core", "events"), eventRule),
		clusterRole("system:node-proxier", rule(verbs("list watch"), "core", "endpoints services"), rule(verbs("get list watch"), "core", "nodes"), eventRule,
			rule(verbs("list watch"), "discovery.k8s.io", "endpointslices"), rule(verbs("list watch"), "networking.k8s.io", "servicecidrs")),
		clusterRole("system:service-account-issuer-discovery", urls("/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/")),
		clusterRole("system:cluster-trust-bundle-discovery", rule(read, "certificates.k8s.io", "clustertrustbundles")),
		clusterRole("system:certificates.k8s.io:certificatesigningrequests:nodeclient", rule(verbs("create"), "certificates.k8s.io", "certificatesigningrequests/nodeclient")),
		clusterRole("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", rule(verbs("create"), "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")),

		bind("cluster-admin", group("system:masters")),
		bind("system:monitoring", group("system:monitoring")),
		bind("system:discovery", group("system:authenticated")),
		bind("system:basic-user", group("system:authenticated")),
		bind("system:public-info-viewer", group("system:authenticated"), group("system:unauthenticated")),
		bind("system:node-proxier", userSubject("system:kube-proxy")),
		bind("system:kube-controller-manager", userSubject("system:kube-controller-manager")),
		bind("system:kube-dns", sa("kube-system", "kube-dns")),
		bind("system:kube-scheduler", userSubject("system:kube-scheduler")),
		bind("system:node"),
		bind("system:service-account-issuer-discovery", group("system:serviceaccounts")),
		bind("system:cluster-trust-bundle-discovery", group("system:serviceaccounts")),

		clusterRole("keelson:history", urls("/debug/keelson/changes /debug/keelson/trace")),
		bind("keelson:history", group("system:authenticated")),
		clusterRole("keelson:trace-reporter", v1.PolicyRule{Verbs: []string{"post"}, NonResourceURLs: []string{"/debug/keelson/trace/steps"}}),
		bind("keelson:trace-reporter", group("system:nodes"), group("system:serviceaccounts:kube-system"), userSubject("system:kube-scheduler"), userSubject("system:kube-controller-manager")),
		clusterRole("keelson:dash", urls("/dash /dash/*")),
		bind("keelson:dash", group("system:authenticated")),
	}
	nodes := bind("system:kubelet-api-admin", userSubject(KubeletClient))
	nodes.Name = "keelson:" + KubeletClient
	out = append(out, nodes)
	out = append(out, namespaced()...)
	for _, c := range controllerRoles() {
		name := "system:controller:" + c.name
		out = append(out, clusterRole(name, append(c.rules, eventRule)...), bind(name, sa("kube-system", c.name)))
	}
	return out
}

// metricsReader returns a role as metrics-server's. It is aggregated to view, edit and
// admin, so that their users can read the usage of pods and nodes. There is one with the
// name that metrics-server's manifests have for it, and one that is left when these are
// deleted.
func metricsReader(name string) *v1.ClusterRole {
	r := part(name, toView, rule(read, "metrics.k8s.io", "nodes pods"))
	r.Labels[toEdit], r.Labels[toAdmin] = "true", "true"
	return r
}

// namespaced returns the roles that hold in one namespace, and their bindings.
func namespaced() (out []runtime.Object) {
	add := func(namespace, name, binding string, subjects []v1.Subject, rules ...v1.PolicyRule) {
		out = append(out,
			&v1.Role{ObjectMeta: in(namespace, meta(name)), Rules: rules},
			&v1.RoleBinding{ObjectMeta: in(namespace, meta(binding)), RoleRef: v1.RoleRef{APIGroup: v1.GroupName, Kind: "Role", Name: name}, Subjects: subjects})
	}
	of := func(namespace, name string) []v1.Subject { return []v1.Subject{sa(namespace, name)} }
	named := func(verb []string, groups, resources, name string) v1.PolicyRule {
		r := rule(verb, groups, resources)
		r.ResourceNames = []string{name}
		return r
	}
	const system, public = metav1.NamespaceSystem, metav1.NamespacePublic
	add(system, "extension-apiserver-authentication-reader", "system::extension-apiserver-authentication-reader",
		[]v1.Subject{userSubject("system:kube-controller-manager"), userSubject("system:kube-scheduler")},
		named(read, "core", "configmaps", "extension-apiserver-authentication"))
	for _, component := range []string{"kube-controller-manager", "kube-scheduler"} {
		name := "system::leader-locking-" + component
		add(system, name, name, []v1.Subject{userSubject("system:" + component), sa(system, component)},
			rule(verbs("watch"), "core", "configmaps"), named(verbs("get update"), "core", "configmaps", component))
	}
	const signer, cleaner, cloud = "system:controller:bootstrap-signer", "system:controller:token-cleaner", "system:controller:cloud-provider"
	add(system, signer, signer, of(system, "bootstrap-signer"), rule(read, "core", "secrets"))
	add(public, signer, signer, of(system, "bootstrap-signer"), rule(read, "core", "configmaps"), named(verbs("update"), "core", "configmaps", "cluster-info"), eventRule)
	add(system, cleaner, cleaner, of(system, "token-cleaner"), rule(verbs("delete get list watch"), "core", "secrets"), eventRule)
	add(system, cloud, cloud, of(system, "cloud-provider"), rule(verbs("create get list watch"), "core", "configmaps"))
	return out
}

type controllerRole struct {
	name  string
	rules []v1.PolicyRule
}

// controllerRoles returns the rights of the controllers, by their accounts in
// kube-system.
func controllerRoles() []controllerRole {
	rc := func(name string, rules ...v1.PolicyRule) controllerRole { return controllerRole{name, rules} }
	signers := func(verb string, names ...string) v1.PolicyRule {
		return v1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"signers"}, ResourceNames: names}
	}
	return []controllerRole{
		rc("attachdetach-controller", rule(verbs("list watch"), "core", "persistentvolumeclaims persistentvolumes"), rule(read, "core", "nodes"), rule(verbs("patch update"), "core", "nodes/status"),
			rule(verbs("list watch"), "core", "pods"), rule(verbs("create delete get list watch"), "storage.k8s.io", "volumeattachments"), rule(read, "storage.k8s.io", "csidrivers csinodes")),
		rc("cluster-autoscaler", rule(verbs("get list update watch"), "core", "nodes"), rule(read, "core", "pods namespaces services replicationcontrollers persistentvolumeclaims persistentvolumes"),
			rule(verbs("create"), "core", "pods/eviction"), rule(verbs("create get update"), "core", "configmaps"), rule(read, "apps", "daemonsets replicasets statefulsets"),
			rule(read, "policy", "poddisruptionbudgets"), rule(read, "storage.k8s.io", "storageclasses csinodes"),
			rule(read, "resource.k8s.io", "deviceclasses devicetaintrules resourceclaims resourceslices")),
		rc("clusterrole-aggregation-controller", rule(verbs("escalate get list patch update watch"), "rbac.authorization.k8s.io", "clusterroles")),
		rc("cronjob-controller", rule(verbs("get list update watch"), "batch", "cronjobs"), rule(verbs("create delete get list patch update watch"), "batch", "jobs"),
			rule(verbs("update"), "batch", "cronjobs/status cronjobs/finalizers"), rule(verbs("delete list watch"), "core", "pods")),
		rc("daemon-set-controller", rule(read, "apps", "daemonsets"), rule(verbs("update"), "apps", "daemonsets/status daemonsets/finalizers"), rule(verbs("list watch"), "core", "nodes"),
			rule(verbs("create delete list patch watch"), "core", "pods"), rule(verbs("create"), "core", "pods/binding"), rule(verbs("create delete get list patch update watch"), "apps", "controllerrevisions")),
		rc("deployment-controller", rule(verbs("get list update watch"), "apps", "deployments"), rule(verbs("update"), "apps", "deployments/status deployments/finalizers"),
			rule(verbs("create delete get list patch update watch"), "apps", "replicasets"), rule(verbs("get list update watch"), "core", "pods")),
		rc("disruption-controller", rule(read, "apps", "deployments replicasets statefulsets"), rule(read, "core", "replicationcontrollers"), rule(read, "policy", "poddisruptionbudgets"),
			rule(verbs("update"), "policy", "poddisruptionbudgets/status"), rule(verbs("patch update"), "core", "pods/status"), rule(verbs("get"), "*", "*/scale")),
		rc("endpoint-controller", rule(read, "core", "pods services"), rule(verbs("create delete get list update watch"), "core", "endpoints"), rule(verbs("create"), "core", "endpoints/restricted")),
		rc("endpointslice-controller", rule(read, "core", "nodes pods services"), rule(verbs("update"), "core", "services/finalizers"),
			rule(verbs("create delete get list update watch"), "discovery.k8s.io", "endpointslices")),
		rc("endpointslicemirroring-controller", rule(read, "core", "endpoints services"), rule(verbs("update"), "core", "services/finalizers endpoints/finalizers"),
			rule(verbs("create delete get list update watch"), "discovery.k8s.io", "endpointslices")),
		rc("ephemeral-volume-controller", rule(verbs("update"), "core", "pods/finalizers"), rule(read, "core", "pods"), rule(verbs("create get list watch"), "core", "persistentvolumeclaims")),
		rc("expand-controller", rule(verbs("get list patch update watch"), "core", "persistentvolumes"), rule(verbs("patch update"), "core", "persistentvolumeclaims/status"),
			rule(read, "core", "persistentvolumeclaims")),
		rc("generic-garbage-collector", rule(verbs("delete get list patch update watch"), "*", "*")),
		rc("horizontal-pod-autoscaler", rule(read, "autoscaling", "horizontalpodautoscalers"), rule(verbs("update"), "autoscaling", "horizontalpodautoscalers/status"),
			rule(verbs("get update"), "*", "*/scale"), rule(verbs("list watch"), "core", "pods"), rule(verbs("list watch"), "metrics.k8s.io", "pods"), rule(read, "custom.metrics.k8s.io external.metrics.k8s.io", "*")),
		rc("job-controller", rule(verbs("get list patch update watch"), "batch", "jobs"), rule(verbs("update"), "batch", "jobs/status jobs/finalizers"), rule(verbs("create delete list patch watch"), "core", "pods")),
		rc("legacy-service-account-token-cleaner", rule(verbs("delete patch"), "core", "secrets"),
			v1.PolicyRule{Verbs: verbs("get"), APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{token.TrackingConfigMap}}),
		rc("namespace-controller", rule(verbs("delete get list watch"), "core", "namespaces"), rule(verbs("update"), "core", "namespaces/finalize namespaces/status"),
			rule(verbs("delete deletecollection get list watch"), "*", "*")),
		rc("node-controller", rule(verbs("delete get list patch update watch"), "core", "nodes"), rule(verbs("patch update"), "core", "nodes/status"), rule(verbs("patch update"), "core", "pods/status"),
			rule(verbs("delete get list watch"), "core", "pods")),
		rc("persistent-volume-binder", rule(verbs("create delete get list update watch"), "core", "persistentvolumes"), rule(verbs("update"), "core", "persistentvolumes/status persistentvolumeclaims/status"),
			rule(verbs("get list update watch"), "core", "persistentvolumeclaims"), rule(verbs("create delete get list watch"), "core", "pods"), rule(read, "storage.k8s.io", "storageclasses"),
			rule(verbs("list watch"), "core", "nodes"), rule(verbs("watch"), "core", "events")),
		rc("pod-garbage-collector", rule(verbs("delete list watch"), "core", "pods"), rule(read, "core", "nodes"), rule(verbs("patch update"), "core", "pods/status")),
		rc("storage-version-migrator-controller", rule(verbs("get list patch"), "*", "*"), rule(verbs("update"), "storagemigration.k8s.io", "storageversionmigrations/status"),
			rule(read, "storagemigration.k8s.io", "storageversionmigrations")),
		rc("validatingadmissionpolicy-status-controller", rule(read, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
			rule(verbs("get patch update"), "admissionregistration.k8s.io", "validatingadmissionpolicies/status")),
		rc("pv-protection-controller", rule(verbs("get list update watch"), "core", "persistentvolumes")),
		rc("pvc-protection-controller", rule(verbs("get list update watch"), "core", "persistentvolumeclaims"), rule(verbs("patch update"), "core", "persistentvolumeclaims/status"), rule(read, "core", "pods")),
		rc("volumeattributesclass-protection-controller", rule(read, "core", "persistentvolumeclaims persistentvolumes"), rule(verbs("get list update watch"), "storage.k8s.io", "volumeattributesclasses")),
		rc("replicaset-controller", rule(verbs("get list update watch"), "apps", "replicasets"), rule(verbs("update"), "apps", "replicasets/status replicasets/finalizers"), rule(verbs("create delete list patch watch"), "core", "pods")),
		rc("replication-controller", rule(verbs("get list update watch"), "core", "replicationcontrollers"), rule(verbs("update"), "core", "replicationcontrollers/status replicationcontrollers/finalizers"), rule(verbs("create delete list patch watch"), "core", "pods")),
		rc("resource-claim-controller", rule(verbs("create delete get list patch update watch"), "resource.k8s.io", "resourceclaims"),
			rule(verbs("patch update"), "resource.k8s.io", "resourceclaims/binding resourceclaims/status"), rule(read, "core", "pods"), rule(verbs("patch update"), "core", "pods/status"),
			rule(verbs("update"), "core", "pods/finalizers")),
		rc("device-taint-eviction-controller", rule(verbs("delete get list watch"), "core", "pods"), rule(verbs("patch update"), "core", "pods/status"),
			rule(read, "resource.k8s.io", "deviceclasses devicetaintrules resourceclaims resourceslices"), rule(verbs("patch update"), "resource.k8s.io", "devicetaintrules/status")),
		rc("resourcequota-controller", rule(verbs("list watch"), "*", "*"), rule(verbs("update"), "core", "resourcequotas/status")),
		rc("root-ca-cert-publisher", rule(verbs("create update"), "core", "configmaps")),
		rc("route-controller", rule(verbs("list watch"), "core", "nodes"), rule(verbs("patch"), "core", "nodes/status")),
		rc("selinux-warning-controller", rule(read, "core", "pods persistentvolumeclaims persistentvolumes"), rule(read, "storage.k8s.io", "csidrivers")),
		rc("service-account-controller", rule(verbs("create"), "core", "serviceaccounts")),
		rc("podcertificaterequestcleaner", rule(verbs("delete get list watch"), "certificates.k8s.io", "podcertificaterequests")),
		rc("kube-apiserver-serving-clustertrustbundle-publisher", rule(verbs("create delete list watch"), "certificates.k8s.io", "clustertrustbundles"),
			signers("attest", "kubernetes.io/kube-apiserver-serving")),
		rc("service-cidrs-controller", rule(verbs("get list patch update watch"), "networking.k8s.io", "servicecidrs"), rule(verbs("patch update"), "networking.k8s.io", "servicecidrs/finalizers servicecidrs/status"),
			rule(read, "networking.k8s.io", "ipaddresses")),
		rc("service-controller", rule(read, "core", "services"), rule(verbs("patch update"), "core", "services/status"), rule(verbs("list watch"), "core", "nodes"),
			// Which nodes have endpoints is asked by load balancers of the policy Local.
			rule(verbs("list watch"), "discovery.k8s.io", "endpointslices")),
		rc("statefulset-controller", rule(verbs("list watch"), "core", "pods"), rule(read, "apps", "statefulsets"), rule(verbs("update"), "apps", "statefulsets/status statefulsets/finalizers"),
			rule(verbs("create delete get patch update"), "core", "pods"), rule(verbs("create delete get list patch update watch"), "apps", "controllerrevisions"), rule(verbs("create delete get list update watch"), "core", "persistentvolumeclaims"),
			rule(verbs("update"), "core", "pods/finalizers")),
		rc("ttl-after-finished-controller", rule(verbs("delete get list watch"), "batch", "jobs")),
		rc("ttl-controller", rule(verbs("list patch update watch"), "core", "nodes")),
		rc("certificate-controller", rule(verbs("delete get list watch"), "certificates.k8s.io", "certificatesigningrequests"), rule(verbs("update"), "certificates.k8s.io", "certificatesigningrequests/approval certificatesigningrequests/status"),
			signers("approve", "kubernetes.io/kube-apiserver-client-kubelet"),
			signers("sign", "kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving", "kubernetes.io/legacy-unknown"),
			rule(verbs("create"), "authorization.k8s.io", "subjectaccessreviews")),
		// Upstream has no such controller: there an administrator approves these requests.
		rc("kubelet-serving-approver", rule(read, "certificates.k8s.io", "certificatesigningrequests"), rule(verbs("update"), "certificates.k8s.io", "certificatesigningrequests/approval"),
			signers("approve", "kubernetes.io/kubelet-serving"),
			rule(read, "core", "nodes"), rule(verbs("list"), "discovery.k8s.io", "endpointslices"),
			v1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"cluster-info"}}),
	}
}
