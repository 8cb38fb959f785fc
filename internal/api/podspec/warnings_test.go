package podspec

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

func TestWarnings(t *testing.T) {
	for name, c := range map[string]struct {
		template string
		want     []string
	}{
		"nothing": {`{spec: {containers: [{name: c, env: [{name: A, value: a}, {name: A, value: "$(A)b"}], ports: [{containerPort: 1, protocol: TCP}, {containerPort: 1, protocol: UDP}]}]}}`, nil},
		"variables": {`{spec: {containers: [{name: c, env: [{name: A, value: a}, {name: A, value: b}, {name: A, value: "$(A)"}, {name: A, valueFrom: {}}]}]}}`, []string{
			`template.spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`,
			`template.spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply`,
			`template.spec.containers[0].env[3]: hides previous definition of "A", which may be dropped when using apply`}},
		"ports": {`{spec: {containers: [{name: c, ports: [{name: a, containerPort: 1, protocol: TCP}, {name: a, containerPort: 1, protocol: TCP}, {containerPort: 1, protocol: TCP, hostPort: 5}]},
			{name: d, ports: [{containerPort: 2, protocol: TCP, hostPort: 3, hostIP: 1.1.1.1}, {containerPort: 2, protocol: TCP, hostPort: 3}, {containerPort: 4, protocol: TCP, hostIP: 1.1.1.1}]}]}}`, []string{
			`template.spec.containers[0].ports[1]: duplicate port definition with template.spec.containers[0].ports[0]`,
			`template.spec.containers[0].ports[2]: overlapping port definition with template.spec.containers[0].ports[0]`,
			`template.spec.containers[0].ports[2]: overlapping port definition with template.spec.containers[0].ports[1]`,
			`template.spec.containers[1].ports[1]: dangerously ambiguous port definition with template.spec.containers[1].ports[0]`,
			`template.spec.containers[1].ports[2]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:4 Protocol:TCP HostIP:1.1.1.1}`,
			`template.spec.containers[0].ports[1]: duplicate port name "a" with template.spec.containers[0].ports[0], services and probes that select ports by name will use template.spec.containers[0].ports[0]`}},
		"node labels": {`{spec: {nodeSelector: {beta.kubernetes.io/os: linux}, topologySpreadConstraints: [{topologyKey: failure-domain.beta.kubernetes.io/zone}],
			affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: beta.kubernetes.io/instance-type, values: ["-"]}]}]},
			preferredDuringSchedulingIgnoredDuringExecution: [{preference: {matchExpressions: [{key: a, values: [a b]}]}}]}}}}`, []string{
			`template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`,
			`template.spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
			`template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod`,
			`template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/instance-type is deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
			`template.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[0]: a b is invalid, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`}},
		"pod terms": {`{spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: a}]}, podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{podAffinityTerm: {topologyKey: a}}]}}}}`, []string{
			`template.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod`,
			`template.spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod`}},
		"annotations": {`{metadata: {annotations: {scheduler.alpha.kubernetes.io/critical-pod: "", seccomp.security.alpha.kubernetes.io/pod: a, container.seccomp.security.alpha.kubernetes.io/c: a, container.apparmor.security.beta.kubernetes.io/c: unconfined, container.apparmor.security.beta.kubernetes.io/d: runtime/default}},
			spec: {securityContext: {appArmorProfile: {type: RuntimeDefault}}, containers: [{name: c}, {name: d}]}}`, []string{
			`template.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead`,
			`template.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead`,
			`template.metadata.annotations[container.seccomp.security.alpha.kubernetes.io/c]: non-functional in v1.27+; use the "seccompProfile" field instead`,
			`template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the "appArmorProfile" field instead`}},
		"volumes": {`{spec: {volumes: [{name: g, gitRepo: {}}, {name: e, ephemeral: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 100m}}}}}}, {name: c, configMap: {name: x, items: [{path: a}, {path: a/b}, {path: ab}]}},
			{name: p, projected: {sources: [{}, {secret: {name: s, items: [{path: token}]}}, {serviceAccountToken: {path: token/}}]}}]}}`, []string{
			`template.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+`,
			`template.spec.volumes[1].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value "100m" is invalid, must be an integer`,
			`volume "c" (ConfigMap "x"): overlapping paths: "a/b" with "a"`,
			`volume "p" (Projected) has no sources provided`,
			`volume "p" (Projected): overlapping paths: "token" (ServiceAccountToken) with "token" (Secret "s")`}},
		"the rest": {`{spec: {terminationGracePeriodSeconds: -1, imagePullSecrets: [{name: a}, {name: a}, {}], hostAliases: [{ip: 1.1.1.1}, {ip: 1.1.1.1}], overhead: {memory: 1500m},
			dnsConfig: {nameservers: [010.1.1.1]}, containers: [{name: c, resources: {limits: {memory: 1500m}, requests: {ephemeral-storage: 1500m}}}]}}`, []string{
			`template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1`,
			`template.spec.imagePullSecrets[1].name: duplicate name "a"`, `template.spec.imagePullSecrets[2].name: invalid empty name ""`,
			`template.spec.hostAliases[1].ip: duplicate ip "1.1.1.1"`,
			`template.spec.overhead[memory]: fractional byte value "1500m" is invalid, must be an integer`,
			`template.spec.containers[0].resources.limits[memory]: fractional byte value "1500m" is invalid, must be an integer`,
			`template.spec.containers[0].resources.requests[ephemeral-storage]: fractional byte value "1500m" is invalid, must be an integer`,
			`template.spec.dnsConfig.nameservers[0]: non-standard IP address "010.1.1.1" is invalid: use "10.1.1.1"`}},
	} {
		t.Run(name, func(t *testing.T) {
			tmpl := &v1.PodTemplateSpec{}
			if err := yaml.UnmarshalStrict([]byte(c.template), tmpl); err != nil {
				t.Fatal(err)
			}
			got := TemplateWarnings(tmpl, field.NewPath("template"))
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("warnings are\n%q, want\n%q", got, c.want)
			}
		})
	}
}
