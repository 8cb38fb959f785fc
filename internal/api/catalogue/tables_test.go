package catalogue

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/yaml"
)

// columns are upstream's of v1.37, by kind: + is of the wide table only; integers,
// booleans and dates are marked, names are the first column or of the format.
const columns = `
v1 Pod: Name Ready Status Restarts Age +IP +Node +Nominated_Node +Readiness_Gates
v1 PodTemplate: Name Containers Images Pod_Labels
v1 ReplicationController: Name Desired:integer Current:integer Ready:integer Age +Containers +Images +Selector
v1 Service: Name Type Cluster-IP External-IP Port(s) Age +Selector
v1 Endpoints: Name Endpoints Age
v1 Node: Name Status Roles Age Version +Internal-IP +External-IP +OS-Image +Kernel-Version +Container-Runtime
v1 Namespace: Name Status Age
v1 Event: Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name
v1 ConfigMap: Name Data Age
v1 Secret: Name Type Data Age
v1 ServiceAccount: Name Secrets Age
v1 LimitRange: Name Created_At:date
v1 ResourceQuota: Name Request Limit Age
v1 PersistentVolume: Name Capacity Access_Modes Reclaim_Policy Status Claim StorageClass VolumeAttributesClass Reason Age +VolumeMode
v1 PersistentVolumeClaim: Name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age +VolumeMode
v1 ComponentStatus: Name Status Message Error
apiregistration.k8s.io/v1 APIService: Name Service Available Age
apiextensions.k8s.io/v1 CustomResourceDefinition: Name Created_At:date
apps/v1 ControllerRevision: Name Controller Revision Age
apps/v1 DaemonSet: Name Desired:integer Current:integer Ready:integer Up-to-date:integer Available:integer Node_Selector Age +Containers +Images +Selector
apps/v1 Deployment: Name Ready Up-to-date Available Age +Containers +Images +Selector
apps/v1 ReplicaSet: Name Desired:integer Current:integer Ready:integer Age +Containers +Images +Selector
apps/v1 StatefulSet: Name Ready Age +Containers +Images
events.k8s.io/v1 Event: Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name
autoscaling/v2 HorizontalPodAutoscaler: Name Reference Targets MinPods MaxPods Replicas Age
autoscaling/v1 HorizontalPodAutoscaler: Name Reference Targets MinPods MaxPods Replicas Age
batch/v1 Job: Name Status Completions Duration Age +Containers +Images +Selector
batch/v1 CronJob: Name Schedule Timezone Suspend:boolean Active:integer Last_Schedule Age +Containers +Images +Selector
certificates.k8s.io/v1 CertificateSigningRequest: Name Age SignerName Requestor RequestedDuration Condition
certificates.k8s.io/v1 ClusterTrustBundle: Name SignerName
certificates.k8s.io/v1 PodCertificateRequest: Name PodName ServiceAccountName NodeName SignerName State
networking.k8s.io/v1 IngressClass: Name Controller Parameters Age
networking.k8s.io/v1 Ingress: Name Class Hosts Address Ports Age
networking.k8s.io/v1 IPAddress: Name ParentRef
networking.k8s.io/v1 NetworkPolicy: Name Pod-Selector Age
networking.k8s.io/v1 ServiceCIDR: Name CIDRs Age
policy/v1 PodDisruptionBudget: Name Min_Available Max_Unavailable Allowed_Disruptions:integer Age
rbac.authorization.k8s.io/v1 Role: Name Created_At:date
rbac.authorization.k8s.io/v1 RoleBinding: Name Role Age +Users +Groups +ServiceAccounts
rbac.authorization.k8s.io/v1 ClusterRole: Name Created_At:date
rbac.authorization.k8s.io/v1 ClusterRoleBinding: Name Role Age +Users +Groups +ServiceAccounts
storage.k8s.io/v1 CSIDriver: Name AttachRequired:boolean PodInfoOnMount:boolean StorageCapacity:boolean TokenRequests RequiresRepublish:boolean Modes Age
storage.k8s.io/v1 CSINode: Name Drivers:integer Age
storage.k8s.io/v1 CSIStorageCapacity: Name StorageClassName Capacity
storage.k8s.io/v1 StorageClass: Name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age
storage.k8s.io/v1 VolumeAttachment: Name Attacher PV Node Attached:boolean Age
storage.k8s.io/v1 VolumeAttributesClass: Name DriverName Age
admissionregistration.k8s.io/v1 MutatingAdmissionPolicy: Name Mutations:integer ParamKind Age
admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding: Name PolicyName ParamRef Age
admissionregistration.k8s.io/v1 MutatingWebhookConfiguration: Name Webhooks:integer Age
admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy: Name Validations:integer ParamKind Age
admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding: Name PolicyName ParamRef Age
admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration: Name Webhooks:integer Age
scheduling.k8s.io/v1 PriorityClass: Name Value:integer Global-Default:boolean Age PreemptionPolicy
coordination.k8s.io/v1 Lease: Name Holder Age
node.k8s.io/v1 RuntimeClass: Name Handler Age
discovery.k8s.io/v1 EndpointSlice: Name AddressType Ports Endpoints Age
flowcontrol.apiserver.k8s.io/v1 FlowSchema: Name PriorityLevel MatchingPrecedence DistinguisherMethod Age MissingPL
flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration: Name Type NominalConcurrencyShares Queues HandSize QueueLengthLimit Age
resource.k8s.io/v1 DeviceClass: Name Age
resource.k8s.io/v1 DeviceTaintRule: Name Age
resource.k8s.io/v1 ResourceClaim: Name State Age
resource.k8s.io/v1 ResourceClaimTemplate: Name Age
resource.k8s.io/v1 ResourceSlice: Name Node Driver Pool Age
storagemigration.k8s.io/v1 StorageVersionMigration: Name Resource
metrics.k8s.io/v1 NodeMetrics: Name cpu memory Window
metrics.k8s.io/v1 PodMetrics: Name cpu memory Window
`

func TestColumns(t *testing.T) {
	want := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(columns)) {
		kind, list, _ := strings.Cut(strings.TrimSpace(line), ": ")
		want[kind] = list
	}
	for _, r := range Builtin() {
		if !r.HasVerb("list") || strings.Contains(r.Version, "beta") {
			continue
		}
		var have []string
		for _, c := range r.Columns {
			s := strings.ReplaceAll(c.Name, " ", "_")
			if c.Priority > 0 {
				s = "+" + s
			}
			if c.Type != "string" {
				s += ":" + c.Type
			}
			have = append(have, s)
			// Upstream calls an attacher a name too.
			if named := c.Name == "Name" || c.Name == "Attacher"; (c.Format == "name") != named {
				t.Errorf("%s: column %s is of format %q", r.GVK(), c.Name, c.Format)
			}
			if c.Description == "" && c.Name != "Handler" && r.Group != "metrics.k8s.io" { // upstream has none for that either
				t.Errorf("%s: column %s is not described", r.GVK(), c.Name)
			}
		}
		kind := r.GroupVersion().String() + " " + r.Kind
		if got := strings.Join(have, " "); got != want[kind] {
			t.Errorf("%s has the columns\n%s, want\n%s", kind, got, want[kind])
		}
		delete(want, kind)
	}
	for kind := range want {
		t.Errorf("%s is not listed", kind)
	}
}

// tables are objects (in YAML, without the parts that all have) and their cells.
var tables = []struct{ kind, object, cells string }{
	{"v1 Pod", `{spec: {nodeName: nn, containers: [{name: a}, {name: b}], readinessGates: [{conditionType: x}]}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd::1"}],
		conditions: [{type: x, status: "True"}], containerStatuses: [{name: a, ready: true, state: {running: {}}, restartCount: 2, lastState: {terminated: {finishedAt: "2026-01-01T00:59:00Z"}}},
		{name: b, state: {waiting: {reason: CrashLoopBackOff}}}]}}`, "o|1/2|CrashLoopBackOff|2 (60s ago)|60m|10.0.0.1|nn|<none>|1/1"},
	{"v1 Pod", `{spec: {initContainers: [{name: i, restartPolicy: Always}, {name: j}], containers: [{name: a}]}, status: {phase: Pending, initContainerStatuses: [{name: i, started: true, ready: true, state: {running: {}}},
		{name: j, state: {terminated: {exitCode: 3}}}]}}`, "o|1/2|Init:ExitCode:3|0|60m|<none>|<none>|<none>|<none>"},
	{"v1 Pod", `{metadata: {deletionTimestamp: "2026-01-01T00:59:00Z"}, spec: {containers: [{name: a}]}, status: {phase: Running, reason: NodeLost}}`, "o|0/1|Unknown|0|60m|<none>|<none>|<none>|<none>"},
	{"v1 Pod", `{spec: {containers: [{name: a}], schedulingGates: [{name: g}]}, status: {phase: Pending, conditions: [{type: PodScheduled, status: "False", reason: SchedulingGated}]}}`,
		"o|0/1|SchedulingGated|0|60m|<none>|<none>|<none>|<none>"},
	{"v1 PodTemplate", `{template: {metadata: {labels: {a: b, c: d}}, spec: {containers: [{name: x, image: yy}, {name: z, image: w}]}}}`, "o|x,z|yy,w|a=b,c=d"},
	{"v1 ReplicationController", `{spec: {replicas: 3, selector: {a: b}, template: {spec: {containers: [{name: x, image: yy}]}}}, status: {replicas: 2, readyReplicas: 1}}`, "o|3|2|1|60m|x|yy|a=b"},
	{"v1 Service", `{spec: {type: NodePort, clusterIPs: [10.1.1.1], ports: [{port: 80, nodePort: 30001, protocol: TCP}, {port: 53, protocol: UDP}], selector: {a: b}}}`,
		"o|NodePort|10.1.1.1|<none>|80:30001/TCP,53/UDP|60m|a=b"},
	{"v1 Service", `{spec: {type: LoadBalancer, clusterIPs: [10.1.1.1], externalIPs: [1.1.1.1], ports: [{port: 80, protocol: TCP}]}, status: {loadBalancer: {ingress: [{ip: 2.2.2.2}, {hostname: h}]}}}`,
		"o|LoadBalancer|10.1.1.1|2.2.2.2,h,1.1.1.1|80/TCP|60m|<none>"},
	{"v1 Service", `{spec: {type: LoadBalancer, clusterIPs: [None]}}`, "o|LoadBalancer|None|<pending>|<none>|60m|<none>"},
	{"v1 Service", `{spec: {type: ExternalName, externalName: e}}`, "o|ExternalName|<none>|e|<none>|60m|<none>"},
	{"v1 Endpoints", `{subsets: [{addresses: [{ip: 1.1.1.1}, {ip: 1.1.1.2}], ports: [{port: 80}, {port: 81}]}]}`, "o|1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...|60m"},
	{"v1 Endpoints", `{subsets: [{addresses: [{ip: "fd::1"}], ports: [{port: 80}]}, {addresses: [{ip: 1.1.1.1}]}]}`, "o|[fd::1]:80,1.1.1.1|60m"},
	{"v1 Node", `{metadata: {labels: {node-role.kubernetes.io/b: "", kubernetes.io/role: a}}, spec: {unschedulable: true}, status: {conditions: [{type: Ready, status: Unknown}], addresses: [{type: InternalIP, address: 10.0.0.1}],
		nodeInfo: {kubeletVersion: v1, osImage: os, kernelVersion: k, containerRuntimeVersion: c}}}`, "o|NotReady,SchedulingDisabled|a,b|60m|v1|10.0.0.1|<none>|os|k|c"},
	{"v1 Namespace", `{status: {phase: Active}}`, "o|Active|60m"},
	{"v1 Event", `{involvedObject: {kind: Pod, name: p, fieldPath: f}, type: Warning, reason: R, message: " m ", source: {component: c, host: h}, firstTimestamp: "2026-01-01T00:00:00Z", lastTimestamp: "2026-01-01T00:59:00Z", count: 4}`,
		"60s|Warning|R|pod/p|f|c, h|m|60m|4|o"},
	{"v1 Event", `{involvedObject: {kind: Node}, eventTime: "2026-01-01T00:30:00.000000Z", reportingComponent: r, reportingInstance: i, series: {count: 3, lastObservedTime: "2026-01-01T00:58:00.000000Z"}}`,
		"2m|||node||r, i||30m|3|o"},
	{"v1 ConfigMap", `{data: {a: b}, binaryData: {c: ZA==}}`, "o|2|60m"},
	{"v1 Secret", `{type: t, data: {a: ZA==}}`, "o|t|1|60m"},
	{"v1 ServiceAccount", `{secrets: [{name: s}]}`, "o|1|60m"},
	{"v1 ResourceQuota", `{status: {used: {pods: "1", limits.cpu: "2"}, hard: {pods: "3", limits.cpu: "4", requests.memory: 1Gi}}}`, "o|pods: 1/3, requests.memory: 0/1Gi|limits.cpu: 2/4|60m"},
	{"v1 PersistentVolume", `{spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteMany, ReadWriteOnce], persistentVolumeReclaimPolicy: Delete, claimRef: {namespace: nn, name: c}, storageClassName: s, volumeMode: Block,
		volumeAttributesClassName: v}, status: {phase: Bound, reason: r}}`, "o|1Gi|RWO,RWX|Delete|Bound|nn/c|s|v|r|60m|Block"},
	{"v1 PersistentVolumeClaim", `{spec: {volumeName: v, storageClassName: s, volumeMode: Filesystem}, status: {phase: Bound, accessModes: [ReadWriteOncePod, ReadOnlyMany], capacity: {storage: 2Gi}}}`,
		"o|Bound|v|2Gi|ROX,RWOP|s|<unset>|60m|Filesystem"},
	{"apps/v1 ControllerRevision", `{metadata: {ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: s, controller: true}]}, revision: 7}`, "o|statefulset.apps/s|7|60m"},
	{"apps/v1 DaemonSet", `{spec: {selector: {matchLabels: {a: b}}, template: {spec: {nodeSelector: {x: yy}, containers: [{name: c, image: i}]}}}, status: {desiredNumberScheduled: 5, currentNumberScheduled: 4, numberReady: 3, updatedNumberScheduled: 2, numberAvailable: 1}}`,
		"o|5|4|3|2|1|x=yy|60m|c|i|a=b"},
	{"apps/v1 Deployment", `{spec: {replicas: 3, selector: {matchExpressions: [{key: a, operator: In, values: [b, c]}]}, template: {spec: {containers: [{name: c, image: i}]}}}, status: {readyReplicas: 2, updatedReplicas: 3, availableReplicas: 1}}`,
		"o|2/3|3|1|60m|c|i|a in (b,c)"},
	{"apps/v1 ReplicaSet", `{spec: {replicas: 3, selector: {matchLabels: {a: b}}, template: {spec: {containers: [{name: c, image: i}]}}}, status: {replicas: 2, readyReplicas: 1}}`, "o|3|2|1|60m|c|i|a=b"},
	{"apps/v1 StatefulSet", `{spec: {replicas: 3, template: {spec: {containers: [{name: c, image: i}]}}}, status: {readyReplicas: 1}}`, "o|1/3|60m|c|i"},
	{"autoscaling/v2 HorizontalPodAutoscaler", `{spec: {scaleTargetRef: {kind: Deployment, name: d}, minReplicas: 2, maxReplicas: 5, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}},
		{type: Pods, pods: {metric: {name: m}, target: {type: AverageValue, averageValue: 10}}}, {type: External, external: {metric: {name: e}, target: {type: Value, value: 3}}}]},
		status: {currentReplicas: 3, currentMetrics: [{type: Resource, resource: {name: cpu, current: {averageUtilization: 40}}}, {type: Pods, pods: {metric: {name: m}, current: {averageValue: 7}}}]}}`,
		"o|Deployment/d|cpu: 40%/70%, 7/10 + 1 more...|2|5|3|60m"},
	{"batch/v1 Job", `{spec: {completions: 3, selector: {matchLabels: {a: b}}, template: {spec: {containers: [{name: c, image: i}]}}}, status: {succeeded: 2, startTime: "2026-01-01T00:50:00Z", conditions: [{type: Suspended, status: "True"}]}}`,
		"o|Suspended|2/3|10m|60m|c|i|a=b"},
	{"batch/v1 Job", `{spec: {parallelism: 4}, status: {succeeded: 1, startTime: "2026-01-01T00:50:00Z", completionTime: "2026-01-01T00:50:05Z", conditions: [{type: Complete, status: "True"}]}}`, "o|Complete|1/1 of 4|5s|60m|||<none>"},
	{"batch/v1 CronJob", `{spec: {schedule: "* * * * *", timeZone: Etc/UTC, suspend: true, jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: i}]}}}}}, status: {active: [{name: j}], lastScheduleTime: "2026-01-01T00:59:30Z"}}`,
		"o|* * * * *|Etc/UTC|True|1|30s|60m|c|i|<none>"},
	{"certificates.k8s.io/v1 CertificateSigningRequest", `{spec: {signerName: s, username: u, expirationSeconds: 3600}, status: {certificate: ZA==, conditions: [{type: Approved}]}}`, "o|60m|s|u|60m|Approved,Issued"},
	{"certificates.k8s.io/v1 ClusterTrustBundle", `{spec: {signerName: s/n}}`, "o|s/n"},
	{"certificates.k8s.io/v1 PodCertificateRequest", `{spec: {signerName: s/n, podName: p, serviceAccountName: a, nodeName: n1}}`, "o|p|a|n1|s/n|Pending"},
	{"certificates.k8s.io/v1 PodCertificateRequest", `{spec: {signerName: s/n, podName: p, serviceAccountName: a, nodeName: n1}, status: {conditions: [{type: Denied, status: "True"}]}}`, "o|p|a|n1|s/n|Denied"},
	{"certificates.k8s.io/v1 CertificateSigningRequest", `{spec: {signerName: s, username: u}, status: {conditions: [{type: Denied}, {type: Failed}]}}`, "o|60m|s|u|<none>|Denied,Failed"},
	{"networking.k8s.io/v1 IngressClass", `{spec: {controller: c, parameters: {apiGroup: g, kind: K, name: nn}}}`, "o|c|K.g/nn|60m"},
	{"networking.k8s.io/v1 Ingress", `{spec: {ingressClassName: c, tls: [{}], rules: [{host: a}, {host: b}, {host: c}, {host: d}, {}]}, status: {loadBalancer: {ingress: [{hostname: a.very.long.name.of.a.balancer.test}]}}}`,
		"o|c|a,b,c + 2 more...|a.very.long.name.of.a.balancer.test|80, 443|60m"},
	{"networking.k8s.io/v1 IPAddress", `{spec: {parentRef: {resource: services, namespace: nn, name: s}}}`, "o|services/nn/s"},
	{"networking.k8s.io/v1 IPAddress", `{spec: {parentRef: {group: g, resource: r, name: s}}}`, "o|r.g/s"},
	{"networking.k8s.io/v1 NetworkPolicy", `{spec: {podSelector: {matchLabels: {a: b}}}}`, "o|a=b|60m"},
	{"networking.k8s.io/v1 ServiceCIDR", `{spec: {cidrs: [10.0.0.0/16, "fd::/112"]}}`, "o|10.0.0.0/16,fd::/112|60m"},
	{"policy/v1 PodDisruptionBudget", `{spec: {minAvailable: 50%}, status: {disruptionsAllowed: 1}}`, "o|50%|N/A|1|60m"},
	{"rbac.authorization.k8s.io/v1 RoleBinding", `{roleRef: {kind: Role, name: r}, subjects: [{kind: User, name: u}, {kind: User, name: v}, {kind: Group, name: g}, {kind: ServiceAccount, namespace: nn, name: s}]}`,
		"o|Role/r|60m|u, v|g|nn/s"},
	{"storage.k8s.io/v1 CSIDriver", `{spec: {attachRequired: false, podInfoOnMount: true, storageCapacity: true, requiresRepublish: true, tokenRequests: [{audience: a}, {audience: b}], volumeLifecycleModes: [Persistent, Ephemeral]}}`,
		"o|false|true|true|a,b|true|Persistent,Ephemeral|60m"},
	{"storage.k8s.io/v1 CSINode", `{spec: {drivers: [{name: a}, {name: b}]}}`, "o|2|60m"},
	{"storage.k8s.io/v1 CSIStorageCapacity", `{storageClassName: s, capacity: 1Gi}`, "o|s|1Gi"},
	{"storage.k8s.io/v1 StorageClass", `{provisioner: p, reclaimPolicy: Retain, volumeBindingMode: WaitForFirstConsumer, allowVolumeExpansion: true}`, "o|p|Retain|WaitForFirstConsumer|true|60m"},
	{"storage.k8s.io/v1 StorageClass", `{metadata: {annotations: {storageclass.kubernetes.io/is-default-class: "true"}}, provisioner: p}`, "o (default)|p|Delete|Immediate|false|60m"},
	{"storage.k8s.io/v1 VolumeAttachment", `{spec: {attacher: a, nodeName: nn, source: {persistentVolumeName: p}}, status: {attached: true}}`, "o|a|p|nn|true|60m"},
	{"admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy", `{spec: {paramKind: {apiVersion: g/v1, kind: K}, validations: [{expression: "true"}]}}`, "o|1|g/v1/K|60m"},
	{"admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding", `{spec: {policyName: p, paramRef: {name: nn}}}`, "o|p|*/nn|60m"},
	{"admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding", `{spec: {policyName: p, paramRef: {name: nn, namespace: s}}}`, "o|p|s/nn|60m"},
	{"admissionregistration.k8s.io/v1 MutatingWebhookConfiguration", `{webhooks: [{name: a}]}`, "o|1|60m"},
	{"scheduling.k8s.io/v1 PriorityClass", `{value: 5, globalDefault: true, preemptionPolicy: Never}`, "o|5|true|60m|Never"},
	{"coordination.k8s.io/v1 Lease", `{spec: {holderIdentity: h}}`, "o|h|60m"},
	{"node.k8s.io/v1 RuntimeClass", `{handler: h}`, "o|h|60m"},
	{"discovery.k8s.io/v1 EndpointSlice", `{addressType: IPv4, ports: [{port: 80}, {name: nn}, {}, {port: 81}], endpoints: [{addresses: [a, b]}, {addresses: [c, d]}]}`, "o|IPv4|80,nn,* + 1 more...|a,b,c + 1 more...|60m"},
	{"flowcontrol.apiserver.k8s.io/v1 FlowSchema", `{spec: {priorityLevelConfiguration: {name: p}, matchingPrecedence: 5, distinguisherMethod: {type: ByUser}}, status: {conditions: [{type: Dangling, status: "False"}]}}`, "o|p|5|ByUser|60m|False"},
	{"flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration", `{spec: {type: Limited, limited: {nominalConcurrencyShares: 5, limitResponse: {type: Queue, queuing: {queues: 3, handSize: 2, queueLengthLimit: 4}}}}}`, "o|Limited|5|3|2|4|60m"},
	{"resource.k8s.io/v1 ResourceClaim", `{metadata: {deletionTimestamp: "2026-01-01T00:59:00Z"}, status: {allocation: {}, reservedFor: [{name: p}]}}`, "o|deleted,allocated,reserved|60m"},
	{"resource.k8s.io/v1 ResourceSlice", `{spec: {nodeName: nn, driver: d, pool: {name: p}}}`, "o|nn|d|p|60m"},
}

func TestTables(t *testing.T) {
	now := time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)
	rows := New(Builtin())
	seen := sets.New[string]()
	for _, c := range tables {
		gv, kind, _ := strings.Cut(c.kind, " ")
		seen.Insert(c.kind)
		parsed, err := schema.ParseGroupVersion(gv)
		if err != nil {
			t.Fatal(err)
		}
		r := rows.ForKind(parsed.WithKind(kind))
		obj := r.New()
		if err := yaml.UnmarshalStrict([]byte(c.object), obj); err != nil {
			t.Errorf("%s: %v in %s", c.kind, err, c.object)
			continue
		}
		acc := obj.(metav1.Object)
		acc.SetName("o")
		acc.SetCreationTimestamp(metav1.NewTime(now.Add(-time.Hour)))
		if r.Default != nil {
			r.Default(obj)
		}
		if got := cellsOf(r.Cells(obj, now)); got != c.cells {
			t.Errorf("%s %s\n has %s\nwant %s", c.kind, c.object, got, c.cells)
		}
	}
}

func cellsOf(cells []any) string {
	out := make([]string, len(cells))
	for i, c := range cells {
		out[i] = fmt.Sprint(c)
	}
	return strings.Join(out, "|")
}
