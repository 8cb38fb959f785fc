package podspec

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// check gives the errors of a pod whose spec is text over a small good one.
func check(t *testing.T, text string) []string {
	t.Helper()
	p := &v1.Pod{}
	for _, part := range []string{"containers: [{name: c, image: i}]", text} {
		if err := yaml.UnmarshalStrict([]byte(part), &p.Spec); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	SetDefaultsPod(p)
	var out []string
	for _, e := range ValidatePodSpec(&p.Spec, field.NewPath("spec")) {
		out = append(out, e.Error())
	}
	slices.Sort(out)
	return out
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
			`spec.securityContext.sysctls[2].name: Invalid value: "A b": must have at most 253 characters and match regex ([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?`}},
		{"{shareProcessNamespace: true, hostPID: true}", []string{
			"spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled"}},
		{"{hostUsers: false, hostNetwork: true}", []string{"spec.hostNetwork: Forbidden: when `hostUsers` is false"}},
		{"containers: [{name: c, image: i, securityContext: {privileged: true, allowPrivilegeEscalation: false}}]", []string{
			"cannot set `allowPrivilegeEscalation` to false and `privileged` to true"}},
		{"containers: [{name: c, image: i, env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.image}}}]}]", []string{
			`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.image": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"`}},
		{"containers: [{name: c, image: i, env: [{name: A, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}]}]", nil},
		{"containers: [{name: c, image: i, envFrom: [{}, {configMapRef: {}}]}]", []string{
			"spec.containers[0].envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
			"spec.containers[0].envFrom[1].configMapRef.name: Required value"}},
		{"containers: [{name: c, image: i, env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.gpu}}}]}]", []string{
			`spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.gpu": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"`}},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}", []string{
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term"}},
		{"affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 101, preference: {matchExpressions: [{key: a, operator: In}]}}]}}", []string{
			"spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
			"spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100"}},
		{"affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {}}]}}", []string{
			"spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty"}},
		{"topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway, minDomains: 2}, {maxSkew: 0, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}]", []string{
			"spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
			"spec.topologySpreadConstraints[1].maxSkew: Invalid value: 0: must be greater than zero",
			`spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: "{z, ScheduleAnyway}"`}},
		{"{dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}}", []string{"must not have more than 3 nameservers"}},
		{"imagePullSecrets: [{}]", []string{"spec.imagePullSecrets[0].name: Required value"}},
		{"readinessGates: [{conditionType: 'a b'}]", []string{"spec.readinessGates[0].conditionType: Invalid value: \"a b\": name part must consist of"}},
		{"volumes: [{name: v, emptyDir: {sizeLimit: -1}}]", []string{"spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"}},
		{"volumes: [{name: v, hostPath: {path: /x, type: Odd}}]", []string{
			`spec.volumes[0].hostPath.type: Unsupported value: "Odd": supported values: "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"`}},
		{"volumes: [{name: v, downwardAPI: {items: [{path: ../p, fieldRef: {fieldPath: spec.nodeName}}]}}]", []string{
			`spec.volumes[0].downwardAPI.fieldRef.fieldPath: Unsupported value: "spec.nodeName": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"`,
			`spec.volumes[0].downwardAPI.path: Invalid value: "../p": must not contain '..'`}},
		{"volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t, expirationSeconds: 10}}]}}]", []string{
			"spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes"}},
		{"preemptionPolicy: Sometimes", []string{`spec.preemptionPolicy: Unsupported value: "Sometimes": supported values: "PreemptLowerPriority", "Never"`}},
		{"initContainers: [{name: i, image: i, livenessProbe: {exec: {command: [a]}}}]", []string{
			"spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"}},
	} {
		got := check(t, c.spec)
		if len(got) != len(c.want) {
			t.Errorf("%s:\n got  %q\n want %q", c.spec, got, c.want)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], c.want[i]) {
				t.Errorf("%s:\n got  %s\n want %s", c.spec, got[i], c.want[i])
			}
		}
	}
}
