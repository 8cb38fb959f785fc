package podspec

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
)

func TestContainers(t *testing.T) {
	for _, c := range []struct {
		spec string
		want []string
	}{
		{"containers: []", []string{"spec.containers: Required value"}},
		{"containers: [{}, {name: A, image: ' i'}, {name: c, image: i}, {name: c, image: i}]", []string{"spec.containers[0].name: Required value", "spec.containers[0].image: Required value",
			`spec.containers[1].name: Invalid value: "A": a lowercase RFC 1123 label`, `spec.containers[1].image: Invalid value: " i": must not have leading or trailing whitespace`,
			`spec.containers[3].name: Duplicate value: "c"`}},
		{"containers: [{name: c, image: i, imagePullPolicy: Odd, terminationMessagePolicy: Odd}]", []string{
			`spec.containers[0].imagePullPolicy: Unsupported value: "Odd": supported values: "Always", "IfNotPresent", "Never"`,
			`spec.containers[0].terminationMessagePolicy: Unsupported value: "Odd": supported values: "File", "FallbackToLogsOnError"`}},
		{"containers: [{name: c, image: i, ports: [{name: a, containerPort: 1, hostPort: 2}, {name: a, containerPort: 1, hostPort: 2}, {name: A_, protocol: Odd}, {containerPort: 65536, hostPort: -1}]}]", []string{
			`spec.containers[0].ports[1].name: Duplicate value: "a"`, `spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//2"`,
			`spec.containers[0].ports[2].name: Invalid value: "A_": must contain only alpha-numeric`, `spec.containers[0].ports[2].name: Invalid value: "A_": must contain at least one letter`,
			"spec.containers[0].ports[2].containerPort: Required value", `spec.containers[0].ports[2].protocol: Unsupported value: "Odd": supported values: "SCTP", "TCP", "UDP"`,
			"spec.containers[0].ports[3].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
			"spec.containers[0].ports[3].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive"}},
		{"{hostNetwork: true, containers: [{name: c, image: i, ports: [{containerPort: 1, hostPort: 2}]}]}", []string{
			"spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true"}},
		{"containers: [{name: c, image: i, env: [{name: A=B}, {value: a, valueFrom: {secretKeyRef: {name: s, key: k}}, name: C}, {name: D, valueFrom: {}}, {name: E, valueFrom: {configMapKeyRef: {key: ' '}}}]}]", []string{
			`spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable ASCII characters other than '='`,
			"spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
			"spec.containers[0].env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
			`spec.containers[0].env[3].valueFrom.configMapKeyRef.name: Invalid value: "": a lowercase RFC 1123 subdomain`, `spec.containers[0].env[3].valueFrom.configMapKeyRef.key: Invalid value: " ": a valid config key`}},
		{"containers: [{name: c, image: i, env: [{name: A, valueFrom: {fileKeyRef: {path: ../x, key: a=b}}}]}]", []string{"spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Required value",
			`spec.containers[0].env[0].valueFrom.fileKeyRef.path: Invalid value: "../x": must not contain '..'`, `spec.containers[0].env[0].valueFrom.fileKeyRef.key: Invalid value: "a=b"`}},
		{"containers: [{name: c, image: i, env: [{name: A, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['a b']\"}}}, {name: B, valueFrom: {fieldRef: {fieldPath: \"spec.x['a']\"}}}, {name: C, valueFrom: {fieldRef: {apiVersion: v2, fieldPath: metadata.name}}}]}]", []string{
			`spec.containers[0].env[0].valueFrom.fieldRef: Invalid value: "a b": name part must consist of`,
			`spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: "spec.x['a']": error converting fieldPath: field label does not support subscript: spec.x['a']`,
			`spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Invalid value: "metadata.name": error converting fieldPath: unsupported pod version: v2`}},
		{"containers: [{name: c, image: i, env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 2m}}}, {name: B, valueFrom: {resourceFieldRef: {resource: limits.hugepages-2Mi, divisor: 3}}}]}]", []string{
			`spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource`,
			`spec.containers[0].env[1].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.hugepages-2Mi": only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource`}},
		{"containers: [{name: c, image: i, livenessProbe: {successThreshold: 2, periodSeconds: -1, exec: {}, terminationGracePeriodSeconds: 0}, readinessProbe: {terminationGracePeriodSeconds: 1, httpGet: {port: A_, scheme: ftp, httpHeaders: [{name: 'a b'}]}, tcpSocket: {port: 1}}, startupProbe: {}}]", []string{
			"spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1", "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
			"spec.containers[0].livenessProbe.exec.command: Required value", "spec.containers[0].livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
			"spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
			`spec.containers[0].readinessProbe.httpGet.port: Invalid value: "A_": must contain only alpha-numeric`, `spec.containers[0].readinessProbe.httpGet.port: Invalid value: "A_": must contain at least one letter`,
			`spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: "ftp": supported values: "HTTP", "HTTPS"`,
			`spec.containers[0].readinessProbe.httpGet.httpHeaders: Invalid value: "a b": a valid HTTP header`, "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
			"spec.containers[0].startupProbe: Required value: must specify a handler type"}},
		{"containers: [{name: c, image: i, lifecycle: {preStop: {sleep: {seconds: 31}}}}]", []string{
			"spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"}},
		{"containers: [{name: c, image: i, lifecycle: {stopSignal: SIGTERM}}]", []string{"spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"}},
		{"{os: {name: windows}, containers: [{name: c, image: i, lifecycle: {stopSignal: SIGHUP}}]}", []string{
			`spec.containers[0].lifecycle.stopSignal: Unsupported value: "SIGHUP": supported values: "SIGKILL", "SIGTERM"`}},
		{"{os: {name: linux}, containers: [{name: c, image: i, lifecycle: {stopSignal: SIGRTMIN+15}}, {name: d, image: i, lifecycle: {stopSignal: SIGODD}}]}", []string{
			`spec.containers[1].lifecycle.stopSignal: Unsupported value: "SIGODD": supported values: "SIGABRT", `}},
		{"containers: [{name: c, image: i, restartPolicyRules: [{action: Restart}]}]", []string{"spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"}},
		{"containers: [{name: c, image: i, restartPolicy: Odd, restartPolicyRules: [{action: Stop}, {action: Restart, exitCodes: {operator: Is, values: [1]}}]}]", []string{
			`spec.containers[0].restartPolicy: Unsupported value: "Odd": supported values: "Always", "Never", "OnFailure"`,
			`spec.containers[0].restartPolicyRules[0].action: Unsupported value: "Stop": supported values: "Restart", "RestartAllContainers"`, "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
			`spec.containers[0].restartPolicyRules[1].exitCodes.operator: Unsupported value: "Is": supported values: "In", "NotIn"`}},
		{"{restartPolicy: Never, containers: [{name: c, image: i, resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}, {resourceName: cpu, restartPolicy: NotRequired}, {resourceName: disk, restartPolicy: Odd}]}]}", []string{
			`spec.containers[0].resizePolicy: Invalid value: "RestartContainer": must be 'NotRequired' when ` + "`restartPolicy` is 'Never'", `spec.containers[0].resizePolicy[1]: Duplicate value: "cpu"`,
			`spec.containers[0].resizePolicy: Unsupported value: "disk": supported values: "cpu", "memory"`, `spec.containers[0].resizePolicy: Unsupported value: "Odd": supported values: "NotRequired", "RestartContainer"`,
			`spec.containers[0].resizePolicy: Invalid value: "Odd": must be 'NotRequired' when ` + "`restartPolicy` is 'Never'"}},
		{"initContainers: [{name: c, image: i}, {name: s, image: i, restartPolicy: Always, lifecycle: {}, startupProbe: {exec: {command: [a]}}}]", []string{`spec.initContainers[0].name: Duplicate value: "c"`}},
		{"{resources: {requests: {cpu: 1, nvidia.com/gpu: 1}, limits: {cpu: 2}, claims: [{name: a}]}, containers: [{name: c, image: i, resources: {requests: {cpu: 2}, limits: {cpu: 3}}}]}", []string{
			"spec.resources.claims: Forbidden: claims cannot be set for Resources at pod-level", `spec.resources.claims[0]: Not found: "a": must be one of the names in pod.spec.resourceClaims which is empty`,
			`spec.resources.requests[nvidia.com/gpu]: Unsupported value: "nvidia.com/gpu": supported values: "cpu", `, "spec.resources.limits: Required value: Limit must be set for non overcommitable resources",
			`spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2`,
			`spec.resources.containers[0][cpu].limits: Invalid value: "3": must be less than or equal to pod limits of 2`}},
		{"{hostnameOverride: A, setHostnameAsFQDN: true, hostNetwork: true}", []string{`spec.hostnameOverride: Invalid value: "A": a lowercase RFC 1123 subdomain`,
			"spec.setHostnameAsFQDN: Invalid value: true: may not be set when `hostnameOverride` is set", "spec.hostNetwork: Invalid value: true: may not be set when `hostnameOverride` is set"}},
		{"terminationGracePeriodSeconds: 1", nil},
		{"schedulingGates: [{name: a}, {name: a}, {name: 'b c'}]", []string{`spec.schedulingGates[1]: Duplicate value: "a"`, `spec.schedulingGates[2]: Invalid value: "b c": name part`}},
		{"{nodeName: n, schedulingGates: [{name: a}]}", []string{"spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"}},
		{"topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: Odd, nodeTaintsPolicy: Odd, matchLabelKeys: [a]}]", []string{
			`spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Odd": supported values: "DoNotSchedule", "ScheduleAnyway"`,
			`spec.topologySpreadConstraints[0].nodeTaintsPolicy: Unsupported value: "Odd": supported values: "Honor", "Ignore"`,
			"spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"}},
		{"topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule, minDomains: 0, labelSelector: {matchLabels: {a: b}}, matchLabelKeys: [a]}]", []string{
			"spec.topologySpreadConstraints[0].minDomains: Invalid value: 0: must be greater than zero",
			`spec.topologySpreadConstraints[0].matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and labelSelector`}},
		{"affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: z, matchLabelKeys: [a], mismatchLabelKeys: [a]}]}}", []string{
			"spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
			"spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].mismatchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
			`spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and mismatchLabelKeys`}},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In, values: ['b c']}]}]}}}", []string{
			`spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values[0]: Invalid value: "b c": a valid label`}},
		{"{hostUsers: false, hostPID: true, volumes: [{name: v, persistentVolumeClaim: {claimName: x}}], containers: [{name: c, image: i, volumeDevices: [{name: v, devicePath: /d}]}]}", []string{
			"spec.hostPID: Forbidden: when `hostUsers` is false", "spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false"}},
		{"containers: [{name: c, image: i, securityContext: {procMount: Unmasked}}]", []string{"spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"}},
		{"{hostNetwork: true, hostIPC: true, securityContext: {sysctls: [{name: net.core.somaxconn, value: a}, {name: kernel.shmmax, value: b}]}}", []string{
			`spec.securityContext.sysctls[0].name: Invalid value: "net.core.somaxconn": may not be specified when 'hostNetwork' is true`,
			`spec.securityContext.sysctls[1].name: Invalid value: "kernel.shmmax": may not be specified when 'hostIPC' is true`}},
	} {
		like(t, c.spec, messages(ValidatePod(pod(t, "{spec: "+braced(c.spec)+"}"))), c.want)
	}
}

func TestWindows(t *testing.T) {
	user := func(name string) string {
		return "securityContext: {windowsOptions: {runAsUserName: '" + name + "'}}"
	}
	const at = "spec.securityContext.windowsOptions.runAsUserName: Invalid value: "
	for _, c := range []struct {
		spec string
		want []string
	}{
		{"os: {}", []string{"spec.os.name: Required value: cannot be empty"}},
		{"os: {name: beos}", []string{`spec.os: Unsupported value: "beos": supported values: "linux", "windows"`}},
		{"{os: {name: linux}, securityContext: {windowsOptions: {}}, containers: [{name: c, image: i, securityContext: {windowsOptions: {}}}]}", []string{
			"spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
			"spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"}},
		{"{os: {name: windows}, hostUsers: true, hostPID: true, shareProcessNamespace: false, resources: {}, securityContext: {runAsUser: 1, fsGroup: 1, supplementalGroups: [1]}, containers: [{name: c, image: i, securityContext: {privileged: false, capabilities: {}}}]}", []string{
			"spec.hostUsers: Forbidden: cannot be set for a windows pod", "spec.hostPID: Forbidden: cannot be set for a windows pod", "spec.shareProcessNamespace: Forbidden: cannot be set for a windows pod",
			"spec.resources: Forbidden: cannot be set for a windows pod", "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod", "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod",
			"spec.securityContext.supplementalGroups: Forbidden: cannot be set for a windows pod", "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
			"spec.containers[0].securityContext.capabilities: Forbidden: cannot be set for a windows pod"}},
		{"{hostNetwork: true, securityContext: {windowsOptions: {hostProcess: true}}}", nil},
		{"{securityContext: {windowsOptions: {hostProcess: true}}, containers: [{name: c, image: i}, {name: d, image: i, securityContext: {windowsOptions: {hostProcess: false}}}]}", []string{
			"spec.containers[1].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value must be identical if both are specified, was true",
			`spec: Invalid value: "": If pod contains any hostProcess containers then all containers must be HostProcess containers`,
			"spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers"}},
		{"securityContext: {windowsOptions: {gmsaCredentialSpecName: A, gmsaCredentialSpec: ''}}", []string{
			`spec.securityContext.windowsOptions.gmsaCredentialSpecName: Invalid value: "A": a lowercase RFC 1123 subdomain`,
			`spec.securityContext.windowsOptions.gmsaCredentialSpec: Invalid value: "": gmsaCredentialSpec cannot be an empty string`}},
		{user(`NT AUTHORITY\NETWORK SERVICE`), nil},
		{user("ContainerAdministrator"), nil},
		{user(""), []string{at + `"": runAsUserName cannot be an empty string`}},
		{user(`a\b\c`), []string{at + `"a\\b\\c": runAsUserName cannot contain more than one backslash`}},
		{user(`\`), []string{at + `"\\": runAsUserName's Domain doesn't match the NetBios nor the DNS format`, at + `"\\": runAsUserName's User cannot be empty`}},
		{user("..."), []string{at + `"...": runAsUserName's User cannot contain only periods or spaces`}},
		{user("a@b"), []string{at + `"a@b": runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]`}},
	} {
		like(t, c.spec, messages(ValidatePod(pod(t, "{spec: "+braced(c.spec)+"}"))), c.want)
	}
}

func TestAnnotations(t *testing.T) {
	const apparmor = "container.apparmor.security.beta.kubernetes.io/"
	for _, c := range []struct {
		text string
		want []string
	}{
		{"{metadata: {annotations: {kubernetes.io/config.mirror: x}}}", []string{`metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set`}},
		{"{metadata: {annotations: {controller.kubernetes.io/pod-deletion-cost: '-5'}}}", nil},
		{"{metadata: {annotations: {controller.kubernetes.io/pod-deletion-cost: '+5'}}}", []string{`metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "+5": must be a 32bit integer`}},
		{"{metadata: {annotations: {controller.kubernetes.io/pod-deletion-cost: '05'}}}", []string{`metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "05": must be a 32bit integer`}},
		{"{metadata: {annotations: {scheduler.alpha.kubernetes.io/tolerations: '[{\"operator\": \"Exists\", \"value\": \"v\"}]'}}}", []string{
			`metadata.annotations.scheduler.alpha.kubernetes.io/tolerations[0].operator: Invalid value: "v": value must be empty when ` + "`operator` is 'Exists'"}},
		{"{metadata: {annotations: {seccomp.security.alpha.kubernetes.io/pod: odd, container.seccomp.security.alpha.kubernetes.io/c: localhost/../x}}}", []string{
			`metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: "odd": must be a valid seccomp profile`,
			`metadata.annotations.container.seccomp.security.alpha.kubernetes.io/c: Invalid value: "../x": must not contain '..'`}},
		{"{metadata: {annotations: {" + apparmor + "z: odd}}}", []string{
			"metadata.annotations[" + apparmor + `z]: Invalid value: "z": container not found`, "metadata.annotations[" + apparmor + `z]: Invalid value: "odd": invalid AppArmor profile name: "odd"`}},
		{"{metadata: {annotations: {" + apparmor + "c: localhost/a}}, spec: {securityContext: {appArmorProfile: {type: Localhost, localhostProfile: b}}}}", []string{
			"spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in annotation and field must match"}},
		{"{metadata: {annotations: {seccomp.security.alpha.kubernetes.io/pod: unconfined}}, spec: {securityContext: {seccompProfile: {type: RuntimeDefault}}}}", []string{
			"spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match"}},
	} {
		like(t, c.text, messages(ValidatePod(pod(t, c.text))), c.want)
	}
}

func TestPodUpdate(t *testing.T) {
	const only = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
		"`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
	terms := func(terms string) string {
		return "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [" + terms + "]}}}"
	}
	gated := func(rest string) string {
		return "{spec: {schedulingGates: [{name: g}], nodeSelector: {a: b}, " + rest + "}}"
	}
	const a, b = "{key: a, operator: Exists}", "{key: b, operator: Exists}"
	const at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
	for _, c := range []struct {
		old, text string
		want      []string
	}{
		{"{}", "{metadata: {labels: {a: b}}}", nil},
		{"{}", "{spec: {containers: [{name: c, image: j}]}}", nil},
		{"{}", "{spec: {containers: [{name: c, image: ' j'}]}}", []string{`spec.containers[0].image: Invalid value: " j": must not have leading or trailing whitespace`}},
		{"{}", "{spec: {containers: [{name: c, image: i}, {name: d, image: i}]}}", []string{"spec.containers: Forbidden: pod updates may not add or remove containers"}},
		{"{}", "{spec: {containers: [{name: c, image: i, tty: true}]}}", []string{only}},
		{"{}", "{spec: {activeDeadlineSeconds: 5, tolerations: [{key: a, operator: Exists}]}}", nil},
		{"{spec: {activeDeadlineSeconds: 5}}", "{spec: {activeDeadlineSeconds: 6}}", []string{"spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"}},
		{"{spec: {activeDeadlineSeconds: 5}}", "{spec: {activeDeadlineSeconds: null}}", []string{"spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"}},
		{"{spec: {tolerations: [{key: a, operator: Exists, effect: NoExecute}]}}", "{spec: {tolerations: [{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]}}", nil},
		{"{spec: {tolerations: [{key: a, operator: Exists}]}}", "{spec: {tolerations: []}}", []string{"spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"}},
		{"{spec: {terminationGracePeriodSeconds: -1}}", "{spec: {terminationGracePeriodSeconds: 1}}", nil},
		{"{spec: {schedulingGates: [{name: g}, {name: h}]}}", "{spec: {schedulingGates: [{name: h}]}}", nil},
		{"{spec: {schedulingGates: [{name: g}]}}", "{spec: {schedulingGates: [{name: g}, {name: h}]}}", []string{
			"spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'"}},
		{"{}", "{spec: {nodeSelector: {a: b}}}", []string{only}},
		{gated(""), "{spec: {nodeSelector: {a: b, c: d}}}", nil},
		{gated(""), "{spec: {nodeSelector: {a: z}}}", []string{"spec.nodeSelector: Invalid value: {\"a\":\"z\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"}},
		{gated(""), "{spec: {" + terms("{matchExpressions: ["+a+"]}") + "}}", nil},
		{gated(terms("{matchExpressions: [" + a + "]}")), "{spec: {" + terms("{matchExpressions: ["+a+", "+b+"]}") + "}}", nil},
		{gated(terms("{matchExpressions: [" + a + "]}")), "{spec: {" + terms("{matchExpressions: ["+b+"]}") + "}}", []string{at + "[0]: Invalid value: "}},
		{gated(terms("{matchExpressions: [" + a + "]}")), "{spec: {" + terms("{matchExpressions: ["+a+"]}, {matchExpressions: ["+b+"]}") + "}}", []string{
			at + ": Invalid value: "}},
		{gated(terms("{matchExpressions: [" + a + "]}")), "{spec: {affinity: null}}", []string{at + ": Invalid value: null: no additions/deletions to non-empty NodeSelectorTerms list are allowed"}},
		{gated(terms("{}")), "{spec: {" + terms("{matchExpressions: ["+a+"]}") + "}}", []string{at + "[0]: Invalid value: "}},
		{gated(""), "{spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: z}]}}}}", []string{only}},
		{"{}", "{metadata: {annotations: {kubernetes.io/config.mirror: x}}, spec: {}}", []string{
			"metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation", `metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName`}},
		// What was stored under weaker rules can still be changed elsewhere.
		{"{spec: {hostname: A}}", "{spec: {containers: [{name: c, image: j}]}}", nil},
	} {
		old, p := pod(t, c.old), pod(t, c.old, c.text)
		before := old.DeepCopy()
		like(t, c.old+" to "+c.text, messages(ValidatePodUpdate(p, old)), c.want)
		if !equality.Semantic.DeepEqual(old, before) {
			t.Errorf("%s: the old pod was changed", c.text)
		}
	}
}

func TestEphemeralContainers(t *testing.T) {
	const one = "{spec: {ephemeralContainers: [{name: e, image: i}]}}"
	for _, c := range []struct {
		old, text string
		want      []string
	}{
		{"{}", one, nil},
		{"{}", "{spec: {ephemeralContainers: [{name: c, image: i, targetContainerName: z, ports: [{containerPort: 1}], resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}], lifecycle: {}}]}}", []string{
			`spec.ephemeralContainers[0].name: Duplicate value: "c"`, `spec.ephemeralContainers[0].targetContainerName: Not found: "z"`,
			"spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container", "spec.ephemeralContainers[0].lifecycle: Forbidden: cannot be set for an Ephemeral Container",
			"spec.ephemeralContainers[0].resizePolicy: Forbidden: cannot be set for an Ephemeral Container"}},
		{"{spec: {volumes: [{name: v}]}}", "{spec: {ephemeralContainers: [{name: e, image: i, volumeMounts: [{name: v, mountPath: /a, subPath: b}]}]}}", []string{
			"spec.ephemeralContainers[0].volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container"}},
		{one, "{spec: {ephemeralContainers: [{name: e, image: j}]}}", []string{`spec.ephemeralContainers: Forbidden: existing ephemeral containers "e" may not be changed`}},
		{one, "{spec: {ephemeralContainers: []}}", []string{`spec.ephemeralContainers: Forbidden: existing ephemeral containers "e" may not be removed`}},
		{"{metadata: {annotations: {kubernetes.io/config.mirror: x}}}", one, []string{"[]: Forbidden: static pods do not support ephemeral containers"}},
	} {
		like(t, c.old+" to "+c.text, messages(ValidateEphemeralContainersUpdate(pod(t, c.old, c.text), pod(t, c.old))), c.want)
	}
}

func TestResize(t *testing.T) {
	with := func(resources string) string {
		return "{spec: {containers: [{name: c, image: i, resources: {" + resources + "}}]}}"
	}
	const had = "requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 2, memory: 2Gi}"
	for _, c := range []struct {
		old, text string
		want      []string
	}{
		{with(had), with("requests: {cpu: 2, memory: 1Gi}, limits: {cpu: 3, memory: 1Gi}"), nil},
		{with(had), with("requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 2}"), []string{"spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"}},
		{with(had), with("requests: {cpu: 3, memory: 1Gi}, limits: {cpu: 2, memory: 2Gi}"), []string{`spec.containers[0].resources.requests: Invalid value: "3": must be less than or equal to cpu limit of 2`}},
		{with(had), with("requests: {cpu: 1, memory: 1Gi, ephemeral-storage: 1}, limits: {cpu: 2, memory: 2Gi}"), []string{"spec: Forbidden: only cpu and memory resources are mutable"}},
		{with(had), with("requests: {cpu: 2, memory: 2Gi}, limits: {cpu: 2, memory: 2Gi}"), []string{`spec: Invalid value: "": Pod QOS Class may not change as a result of resizing`}},
		{"{metadata: {annotations: {kubernetes.io/config.mirror: x}}}", with(had), []string{"[]: Forbidden: static pods cannot be resized"}},
		{"{spec: {os: {name: windows}}}", with(had), []string{"[]: Forbidden: windows pods cannot be resized"}},
	} {
		like(t, c.old+" to "+c.text, messages(ValidateResize(pod(t, c.old, c.text), pod(t, c.old))), c.want)
	}
}

func TestPodStatusUpdate(t *testing.T) {
	state := func(spec, code string) string {
		return "{spec: {" + spec + "}, status: {containerStatuses: [{name: c, state: {terminated: {exitCode: " + code + "}}}]}}"
	}
	const running = "{status: {containerStatuses: [{name: c, state: {running: {}}}]}}"
	back := []string{"status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"}
	for _, c := range []struct {
		old, text string
		want      []string
	}{
		{state("restartPolicy: Always", "0"), running, nil},
		{state("restartPolicy: OnFailure", "1"), running, nil},
		{state("restartPolicy: OnFailure", "0"), running, back},
		{state("restartPolicy: Never", "1"), running, back},
		{state("containers: [{name: c, image: i, restartPolicy: Never}]", "1"), running, back},
		{state("restartPolicy: Never, containers: [{name: c, image: i, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}]", "42"), running, nil},
		{state("restartPolicy: Never, containers: [{name: c, image: i}, {name: d, image: i, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}]", "0"), running, nil},
		{"{status: {qosClass: Burstable}}", "{status: {qosClass: Guaranteed}}", []string{`status.qosClass: Invalid value: "Guaranteed": field is immutable`}},
		{"{spec: {nodeName: n}}", "{status: {nominatedNodeName: A, observedGeneration: -1, conditions: [{type: 'a b'}, {type: Ready, observedGeneration: -1}]}}", []string{
			`status.nominatedNodeName: Invalid value: "A": a lowercase RFC 1123 subdomain`, "status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node",
			"status.observedGeneration: Invalid value: -1: must be a non-negative integer", `status.conditions[0].Type: Invalid value: "a b": name part`,
			"status.conditions[1].observedGeneration: Invalid value: -1: must be a non-negative integer"}},
		{"{}", "{status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], hostIP: 10.0.0.2, hostIPs: [{ip: 10.0.0.2}]}}", nil},
		{"{}", "{status: {podIPs: [{ip: x}, {ip: 10.0.0.1}], hostIP: 10.0.0.3, hostIPs: [{ip: 10.0.0.2}, {ip: 10.0.0.2}]}}", []string{
			`status.podIPs[0]: Invalid value: "x": must be a valid IP address`, "status.podIPs: Invalid value: [", "status.hostIPs: Invalid value: [", "status.hostIPs[0].ip: Invalid value: \"10.0.0.2\": must be equal to `hostIP`"}},
		{"{}", "{status: {resourceClaimStatuses: [{name: a, resourceClaimName: A}, {name: a}]}}", []string{
			"status.resourceClaimStatuses[0].name: Invalid value: \"A\": a lowercase RFC 1123 subdomain", "status.resourceClaimStatuses[0].name: Invalid value: \"a\": must match the name of an entry in `spec.resourceClaims`",
			"status.resourceClaimStatuses[1].name: Invalid value: \"a\": must match the name of an entry in `spec.resourceClaims`", `status.resourceClaimStatuses[1].name: Duplicate value: "a"`}},
		{"{}", "{status: {containerStatuses: [{name: c, user: {linux: {uid: -1, gid: 0}}, allocatedResourcesStatus: [{name: cpu, resources: [{resourceID: a, health: Odd}, {resourceID: a, health: Healthy}]}, {name: 'claim:x'}]}]}}", []string{
			"status.containerStatuses[0].user.linux.uid: Invalid value: -1: must be between 0 and 2147483647, inclusive",
			`status.containerStatuses[0].allocatedResourcesStatus[0].name: Invalid value: "cpu": must match one of the container's resource requests`,
			`status.containerStatuses[0].allocatedResourcesStatus[0].resources[0].health: Unsupported value: "Odd": supported values: "Healthy", "Unhealthy", "Unknown"`,
			`status.containerStatuses[0].allocatedResourcesStatus[0].resources[1].resourceID: Duplicate value: "a"`,
			`status.containerStatuses[0].allocatedResourcesStatus[1].name: Invalid value: "claim:x": must match one of the container's resource claims in a format`}},
		{"{}", "{status: {ephemeralContainerStatuses: [{name: e, allocatedResourcesStatus: [{name: cpu}]}]}}", []string{
			"status.ephemeralContainerStatuses[0].allocatedResourcesStatus: Forbidden: must not be specified in container status"}},
	} {
		like(t, c.old+" to "+c.text, messages(ValidatePodStatusUpdate(pod(t, c.old, c.text), pod(t, c.old))), c.want)
	}
}

func TestPodResources(t *testing.T) {
	p := pod(t, "{spec: {resources: {limits: {memory: 4Gi}, requests: {memory: 3Gi}}, containers: [{name: c, image: i, resources: {requests: {cpu: 1, ephemeral-storage: 1Gi}, limits: {hugepages-2Mi: 4Mi}}}]}}")
	r := p.Spec.Resources
	if cpu, huge, limit := r.Requests["cpu"], r.Requests["hugepages-2Mi"], r.Limits["hugepages-2Mi"]; cpu.String() != "1" || huge.String() != "4Mi" || limit.String() != "4Mi" || len(r.Requests) != 3 {
		t.Errorf("resources of the pod: %+v", r)
	}
	if errs := ValidatePod(p); len(errs) > 0 {
		t.Errorf("%v", errs)
	}
}

func TestSelectOwnLabels(t *testing.T) {
	p := pod(t, "{metadata: {labels: {app: x, zone: z}}, spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: ["+
		"{topologyKey: host, labelSelector: {}, matchLabelKeys: [app, none], mismatchLabelKeys: [zone]}]}}}}")
	SelectOwnLabels(p)
	got := p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector.MatchExpressions
	if len(got) != 2 || got[0].Key != "app" || got[0].Operator != "In" || got[0].Values[0] != "x" || got[1].Key != "zone" || got[1].Operator != "NotIn" || got[1].Values[0] != "z" {
		t.Errorf("selector: %+v", got)
	}
	if errs := ValidatePod(p); len(errs) > 0 {
		t.Errorf("%v", errs)
	}
}

func BenchmarkValidatePod(b *testing.B) {
	t := &testing.T{}
	p := pod(t, "{metadata: {labels: {app: x}}, spec: {volumes: [{name: token, projected: {sources: [{serviceAccountToken: {path: token}}, {configMap: {name: ca, items: [{key: ca.crt, path: ca.crt}]}}]}}, {name: data}], "+
		"containers: [{name: c, image: i, ports: [{containerPort: 80, name: http}], env: [{name: A, value: b}, {name: C, valueFrom: {fieldRef: {fieldPath: metadata.name}}}], resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 1Gi}}, "+
		"volumeMounts: [{name: token, mountPath: /t}, {name: data, mountPath: /d}], readinessProbe: {httpGet: {port: http}}}]}}")
	b.ReportAllocs()
	for b.Loop() {
		if errs := ValidatePod(p); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}
