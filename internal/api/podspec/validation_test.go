package podspec

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// messages returns the errors in words, in order.
func messages(errs field.ErrorList) []string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Error())
	}
	slices.Sort(out)
	return out
}

// pod returns a pod whose parts are the texts over a small good one, of which
// lists take the place of lists.
func pod(t *testing.T, texts ...string) *v1.Pod {
	t.Helper()
	all := map[string]any{}
	for _, text := range append([]string{"{metadata: {name: p, namespace: ns}, spec: {serviceAccountName: default, containers: [{name: c, image: i}]}}"}, texts...) {
		part := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &part); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		merge(all, part)
	}
	text, err := yaml.Marshal(all)
	p := &v1.Pod{}
	if err == nil {
		err = yaml.UnmarshalStrict(text, p)
	}
	if err != nil {
		t.Fatalf("%s: %v", texts, err)
	}
	SetDefaultsPod(p)
	return p
}

func merge(to, from map[string]any) {
	for k, v := range from {
		below, isMap := to[k].(map[string]any)
		if part, ok := v.(map[string]any); ok && isMap {
			merge(below, part)
		} else {
			to[k] = v
		}
	}
}

// like compares messages with those wanted, of which a part will do.
func like(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(want)
	same := len(got) == len(want)
	for i := 0; same && i < len(got); i++ {
		same = strings.Contains(got[i], want[i])
	}
	if !same {
		t.Errorf("%s:\n got  %q\n want %q", what, got, want)
	}
}

func TestPodSpec(t *testing.T) {
	for _, c := range []struct {
		spec string
		want []string
	}{
		{"{}", nil},
		{"securityContext: {runAsUser: -1, fsGroup: 2147483648}", []string{
			"spec.securityContext.fsGroup: Invalid value: 2147483648: must be between 0 and 2147483647, inclusive",
			"spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"}},
		{"securityContext: {seccompProfile: {type: Localhost}}", []string{
			"spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"}},
		{"securityContext: {seccompProfile: {type: Odd}}", []string{
			`spec.securityContext.seccompProfile.type: Unsupported value: "Odd": supported values: "Localhost", "RuntimeDefault", "Unconfined"`}},
		{"securityContext: {appArmorProfile: {type: Localhost}}", []string{
			"spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost"}},
		{"securityContext: {sysctls: [{name: a, value: b}, {name: a, value: c}, {name: 'A b', value: d}]}", []string{
			`spec.securityContext.sysctls[1].name: Duplicate value: "a"`,
			`spec.securityContext.sysctls[2].name: Invalid value: "A b": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`}},
		{"{shareProcessNamespace: true, hostPID: true}", []string{
			"spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled"}},
		{"{hostUsers: false, hostNetwork: true}", []string{"spec.hostNetwork: Forbidden: when `hostUsers` is false"}},
		{"containers: [{name: c, image: i, securityContext: {privileged: true, allowPrivilegeEscalation: false}}]", []string{
			"cannot set `allowPrivilegeEscalation` to false and `privileged` to true"}},
		{"containers: [{name: c, image: i, env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.image}}}]}]", []string{
			`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.image": error converting fieldPath: field label not supported: spec.image`}},
		{"containers: [{name: c, image: i, env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.phase}}}]}]", []string{
			`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"`}},
		{"containers: [{name: c, image: i, env: [{name: A, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}]}]", nil},
		{"containers: [{name: c, image: i, envFrom: [{}, {configMapRef: {}}]}]", []string{
			"spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
			"spec.containers[0].envFrom[1].configMapRef.name: Required value"}},
		{"containers: [{name: c, image: i, env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.gpu}}}]}]", []string{
			`spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.gpu": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"`}},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}", []string{
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term"}},
		{"affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 101, preference: {matchExpressions: [{key: a, operator: In}]}}]}}", []string{
			"spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
			"spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100"}},
		{"affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {}}]}}", []string{
			"spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": name part must be non-empty",
			"spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": name part must consist of",
			"spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty"}},
		{"topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway, minDomains: 2}, {maxSkew: 0, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}]", []string{
			"spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
			"spec.topologySpreadConstraints[1].maxSkew: Invalid value: 0: must be greater than zero",
			`spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{z, ScheduleAnyway}"`}},
		{"{dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}}", []string{"must not have more than 3 nameservers"}},
		{"imagePullSecrets: [{}]", nil},
		{"readinessGates: [{conditionType: 'a b'}]", []string{"spec.readinessGates[0].conditionType: Invalid value: \"a b\": name part must consist of"}},
		{"volumes: [{name: v, emptyDir: {sizeLimit: -1}}]", []string{"spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"}},
		{"volumes: [{name: v, hostPath: {path: /x, type: Odd}}]", []string{
			`spec.volumes[0].hostPath.type: Unsupported value: "Odd": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"`}},
		{"volumes: [{name: v, downwardAPI: {items: [{path: ../p, fieldRef: {fieldPath: spec.nodeName}}]}}]", []string{
			`spec.volumes[0].downwardAPI.fieldRef.fieldPath: Unsupported value: "spec.nodeName": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"`,
			`spec.volumes[0].downwardAPI.path: Invalid value: "../p": must not contain '..'`}},
		{"volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t, expirationSeconds: 10}}]}}]", []string{
			"spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes"}},
		{"preemptionPolicy: Sometimes", []string{`spec.preemptionPolicy: Unsupported value: "Sometimes": supported values: "PreemptLowerPriority", "Never"`}},
		{"initContainers: [{name: i, image: i, livenessProbe: {exec: {command: [a]}}}]", []string{
			"spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"}},
	} {
		like(t, c.spec, messages(ValidatePod(pod(t, "{spec: "+braced(c.spec)+"}"))), c.want)
	}
}

// braced makes a flow mapping of its contents.
func braced(text string) string {
	if strings.HasPrefix(text, "{") {
		return text
	}
	return "{" + text + "}"
}
