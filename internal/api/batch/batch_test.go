package batch

import (
	"maps"
	"strings"
	"testing"

	v1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/rowtest"
)

// job returns a job named j with more of a spec, and more after it.
func job(spec string, more ...string) string {
	const template = `template: {spec: {restartPolicy: Never, containers: [{name: c, image: i, terminationMessagePolicy: File, imagePullPolicy: Always}]}}`
	return `{metadata: {name: j}, spec: {` + strings.Join([]string{template, spec}, ", ") + `}` + strings.Join(more, "") + `}`
}

const (
	uid       = string(rowtest.UID)
	generated = `selector: {matchLabels: {batch.kubernetes.io/controller-uid: ` + uid + `}}`
	labelled  = `template: {metadata: {labels: {batch.kubernetes.io/controller-uid: ` + uid + `, controller-uid: ` + uid + `, batch.kubernetes.io/job-name: j, job-name: j}}`
)

// stored returns a job as it is once it was created.
func stored(spec string, more ...string) string {
	return `{metadata: {name: j, generation: 1}, spec: {` + generated + `, ` + labelled +
		`, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}, ` + spec + `}` + strings.Join(more, "") + `}`
}

func TestJobCreation(t *testing.T) {
	const indexed = `completionMode: Indexed, completions: 5, backoffLimitPerIndex: 1, `
	rules := func(rule string) string { return indexed + `podFailurePolicy: {rules: [` + rule + `]}` }
	success := func(rule string) string {
		return `completionMode: Indexed, completions: 5, successPolicy: {rules: [` + rule + `]}`
	}
	rowtest.Run(t, jobs(), []rowtest.Case{
		{Name: "defaults", Object: job(""), Check: func(t *testing.T, obj runtime.Object) {
			j := obj.(*v1.Job)
			want := map[string]string{"controller-uid": uid, "job-name": "j", v1.ControllerUidLabel: uid, v1.JobNameLabel: "j"}
			if !maps.Equal(j.Spec.Template.Labels, want) || !maps.Equal(j.Spec.Selector.MatchLabels, map[string]string{v1.ControllerUidLabel: uid}) {
				t.Errorf("labels %v, selector %v", j.Spec.Template.Labels, j.Spec.Selector)
			}
			if *j.Spec.BackoffLimit != 6 || *j.Spec.Completions != 1 || *j.Spec.PodReplacementPolicy != v1.TerminatingOrFailed || j.Generation != 1 {
				t.Errorf("spec %+v", j.Spec)
			}
		}},
		{Name: "defaults of indexes", Object: job(rules(`{action: Ignore, onPodConditions: [{type: DisruptionTarget}]}`)), Check: func(t *testing.T, obj runtime.Object) {
			s := obj.(*v1.Job).Spec
			if *s.BackoffLimit != 1<<31-1 || *s.PodReplacementPolicy != v1.Failed || s.PodFailurePolicy.Rules[0].OnPodConditions[0].Status != "True" {
				t.Errorf("spec %+v", s)
			}
		}},
		{Name: "other labels", Object: `{metadata: {name: j}, spec: {template: {metadata: {labels: {job-name: x}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}`, Errors: []string{
			`spec.template.metadata.labels[job-name]: Invalid value: {"batch.kubernetes.io/controller-uid":"` + uid + `","batch.kubernetes.io/job-name":"j","controller-uid":"` + uid + `","job-name":"x"}: must be 'j'`}},
		{Name: "a selector of its own", Object: job(`selector: {matchLabels: {a: b}}`), Errors: []string{
			"spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\"" + uid + "\"}}: `selector` not auto-generated",
			"spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"" + uid + "\",\"batch.kubernetes.io/job-name\":\"j\",\"controller-uid\":\"" + uid + "\",\"job-name\":\"j\"}: `selector` does not match template `labels`"}},
		{Name: "manual selector", Object: job(`manualSelector: true`), Errors: []string{"spec.selector: Required value",
			"spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`"}},
		{Name: "negative", Object: job(`parallelism: -1, completions: -1, activeDeadlineSeconds: -1, backoffLimit: -1, ttlSecondsAfterFinished: -1`), Errors: []string{
			"spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
			"spec.completions: Invalid value: -1: must be greater than or equal to 0",
			"spec.activeDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
			"spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
			"spec.ttlSecondsAfterFinished: Invalid value: -1: must be greater than or equal to 0"}},
		{Name: "restarted always", Object: `{metadata: {name: j}, spec: {template: {spec: {containers: [{name: c, image: i}]}}}}`, Errors: []string{
			`spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`}},
		{Name: "managed by", Object: job(`managedBy: "a.example.com/` + strings.Repeat("x", 60) + `"`), Errors: []string{"spec.managedBy: Too long: may not be more than 63 bytes"}},
		{Name: "managed by nobody", Object: job(`managedBy: me`), Errors: []string{`spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")`}},
		{Name: "indexed without completions", Object: job(`completionMode: Indexed, parallelism: 100001`), Errors: []string{
			"spec.completions: Required value: when completion mode is Indexed",
			"spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed"}},
		{Name: "limits of indexes without indexes", Object: job(`backoffLimitPerIndex: 1, maxFailedIndexes: 1`), Errors: []string{
			"spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
			"spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode"}},
		{Name: "more failed than there are", Object: job(`completionMode: Indexed, completions: 2, maxFailedIndexes: 3`), Errors: []string{
			"spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
			"spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions"}},
		{Name: "very many indexes", Object: job(`completionMode: Indexed, completions: 100001, parallelism: 10001, backoffLimitPerIndex: 1`), Errors: []string{
			"spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
			"spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index"},
			Warnings: []string{"spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"}},
		{Name: "odd mode", Object: job(`completionMode: Odd`), Errors: []string{`spec.completionMode: Unsupported value: "Odd": supported values: "NonIndexed", "Indexed"`}},
		{Name: "failure policy", Object: job(rules(`{action: FailIndex, onExitCodes: {containerName: c, operator: In, values: [1, 2]}}`))},
		{Name: "failure policy and restarts", Object: strings.Replace(job(rules(`{action: Count, onExitCodes: {operator: In, values: [1]}}`)), "Never", "OnFailure", 1), Errors: []string{
			`spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified`}},
		{Name: "failure policy and replacement", Object: job(rules(`{action: Count, onExitCodes: {operator: In, values: [1]}}`) + `, podReplacementPolicy: TerminatingOrFailed`), Errors: []string{
			`spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"`}},
		{Name: "no action and no requirement", Object: job(rules(`{}`)), Errors: []string{
			`spec.podFailurePolicy.rules[0].action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]`,
			`spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required`}},
		{Name: "odd action and both requirements", Object: job(rules(`{action: Odd, onExitCodes: {containerName: x, operator: In, values: [2, 2, 0]}, onPodConditions: [{type: "a b", status: Maybe}]}`)), Errors: []string{
			`spec.podFailurePolicy.rules[0].action: Unsupported value: "Odd": supported values: "Count", "FailIndex", "FailJob", "Ignore"`,
			`spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: "x": must be one of the container or initContainer names in the pod template`,
			`spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,2,0]: must be ordered`,
			`spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Duplicate value: 2`,
			`spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Invalid value: 0: must not be 0 for the In operator`,
			`spec.podFailurePolicy.rules[0].onPodConditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"`,
			`spec.podFailurePolicy.rules[0].onPodConditions[0].type: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			`spec.podFailurePolicy.rules[0]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported`}},
		{Name: "failed index without a limit", Object: job(`podFailurePolicy: {rules: [{action: FailIndex, onExitCodes: {values: []}}]}`), Errors: []string{
			`spec.podFailurePolicy.rules[0].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set`,
			`spec.podFailurePolicy.rules[0].onExitCodes.operator: Required value: valid values: ["In" "NotIn"]`,
			`spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: []: at least one value is required`}},
		{Name: "success policy", Object: job(success(`{succeededIndexes: "0,2-4", succeededCount: 4}`))},
		{Name: "success policy without indexes", Object: job(`successPolicy: {rules: [{succeededCount: 1}]}`), Errors: []string{
			`spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: requires indexed completion mode`}},
		{Name: "success policy without rules", Object: job(success(``)), Errors: []string{
			`spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified`}},
		{Name: "success rule of nothing", Object: job(success(`{}`)), Errors: []string{
			`spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified`}},
		{Name: "success of more than there are", Object: job(success(`{succeededIndexes: "0-1", succeededCount: 6}, {succeededIndexes: "5"}, {succeededIndexes: "3-2"}, {succeededIndexes: "1,1"}, {succeededIndexes: "a"}, {succeededIndexes: "1-2-3"}`)), Errors: []string{
			`spec.successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)`,
			`spec.successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)`,
			`spec.successPolicy.rules[1].succeededIndexes: Invalid value: "5": error parsing succeededIndexes: too large index: "5"`,
			`spec.successPolicy.rules[2].succeededIndexes: Invalid value: "3-2": error parsing succeededIndexes: non-increasing order, previous: 3, current: 2`,
			`spec.successPolicy.rules[3].succeededIndexes: Invalid value: "1,1": error parsing succeededIndexes: non-increasing order, previous: 1, current: 1`,
			`spec.successPolicy.rules[4].succeededIndexes: Invalid value: "a": error parsing succeededIndexes: cannot convert string to integer for index: "a"`,
			`spec.successPolicy.rules[5].succeededIndexes: Invalid value: "1-2-3": error parsing succeededIndexes: the fragment "1-2-3" violates the requirement that an index interval can have at most two parts separated by '-'`}},
		{Name: "name that makes no host", Object: strings.Replace(job(`completionMode: Indexed, completions: 11`), "name: j}", "name: "+strings.Repeat("x", 61)+"}", 1), Errors: []string{
			`metadata.name: Invalid value: "` + strings.Repeat("x", 61) + `": will not able to create pod with invalid DNS label: ` + strings.Repeat("x", 61) + `-10`}},
		{Name: "name that is no label", Object: strings.Replace(job(``), "name: j}", "name: a.b}", 1), Warnings: []string{
			`metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]`}},
		{Name: "scheduling is not enabled", Object: job(`scheduling: {schedulingPolicy: {basic: {}}}`), Check: func(t *testing.T, obj runtime.Object) {
			if s := obj.(*v1.Job).Spec.Scheduling; s != nil {
				t.Errorf("scheduling is %+v", s)
			}
		}},
	}...)
}

func TestJobUpdate(t *testing.T) {
	const started = `, status: {startTime: "2026-01-01T00:00:00Z"`
	const steered = `{spec: {template: {metadata: {annotations: {a: b}}, spec: {nodeSelector: {a: b}, schedulingGates: [{name: example.com/g}], tolerations: [{key: a}],
		affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}}}}}`
	const resized = `{spec: {template: {spec: {containers: [{name: c, image: i, resources: {requests: {cpu: "2"}}}]}}}}`
	rowtest.Run(t, jobs(), []rowtest.Case{
		{Name: "parallelism", Object: stored(``), Update: `{spec: {parallelism: 3}}`, Check: func(t *testing.T, obj runtime.Object) {
			if g := obj.(*v1.Job).Generation; g != 2 {
				t.Errorf("generation %d", g)
			}
		}},
		{Name: "completions", Object: stored(`completions: 1`), Update: `{spec: {completions: 3}}`, Errors: []string{"spec.completions: Invalid value: 3: field is immutable"}},
		{Name: "elastic", Object: stored(`completionMode: Indexed, completions: 3, parallelism: 3`), Update: `{spec: {completions: 4, parallelism: 4}}`},
		{Name: "elastic to one side", Object: stored(`completionMode: Indexed, completions: 3, parallelism: 3`), Update: `{spec: {completions: 4}}`, Errors: []string{
			"spec.completions: Invalid value: 4: can only be modified in tandem with spec.parallelism"}},
		{Name: "modes and policies", Object: stored(`completions: 1`), Update: `{spec: {completionMode: Indexed, managedBy: example.com/c, backoffLimitPerIndex: 1, successPolicy: {rules: [{succeededCount: 1}]}}}`, Errors: []string{
			`spec.completionMode: Invalid value: "Indexed": field is immutable`,
			`spec.managedBy: Invalid value: "example.com/c": field is immutable`,
			`spec.backoffLimitPerIndex: Invalid value: 1: field is immutable`,
			`spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: field is immutable`}},
		{Name: "steered while suspended", Object: stored(`suspend: true`), Update: steered},
		{Name: "steered after it ran", Object: stored(`suspend: true`, started, `, conditions: [{type: Suspended, status: "True"}]}`), Update: steered},
		{Name: "resized while suspended", Object: stored(`suspend: true`), Update: resized},
		{Name: "resized and resumed", Object: stored(`suspend: true`), Update: `{spec: {suspend: false, template: {spec: {containers: [{name: c, image: i, resources: {requests: {cpu: "2"}}}]}}}}`},
		{Name: "of an old release", Object: strings.NewReplacer(`batch.kubernetes.io/job-name: j, `, ``, `metadata: {labels: {batch.kubernetes.io/controller-uid: `+uid+`, `, `metadata: {labels: {`,
			`matchLabels: {batch.kubernetes.io/controller-uid`, `matchLabels: {controller-uid`).Replace(stored(``)), Update: `{spec: {suspend: true}}`},
	}...)
	// The message has the whole template.
	for name, c := range map[string]struct{ object, patch string }{
		"running job steered":         {stored(``), steered},
		"started job steered":         {stored(`suspend: true`, started, `}`), steered},
		"job with pods resized":       {stored(`suspend: true`, `, status: {active: 1}`), resized},
		"suspended job's other image": {stored(`suspend: true`), `{spec: {template: {spec: {containers: [{name: c, image: x}]}}}}`},
		"suspended job's pod affinity": {stored(`suspend: true`),
			`{spec: {template: {spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: a}]}}}}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			r := jobs()
			old := rowtest.Object(t, r, c.object).(*v1.Job)
			obj := rowtest.Merge(t, r, old, c.patch)
			r.PrepareForUpdate(obj, old)
			old.UID, obj.(*v1.Job).UID = rowtest.UID, rowtest.UID
			errs := r.ValidateUpdate(obj, old)
			if len(errs) != 1 || errs[0].Field != "spec.template" || errs[0].Detail != "field is immutable" {
				t.Errorf("errors %v", errs)
			}
		})
	}
}

func TestJobStatus(t *testing.T) {
	const running = `, status: {startTime: "2026-01-01T00:00:00Z", active: 1, succeeded: 2, failed: 2}`
	indexed := stored(`completionMode: Indexed, completions: 5, parallelism: 2, backoffLimitPerIndex: 1`, running)
	const ended = `completionTime: "2026-01-01T00:01:00Z", active: 0`
	condition := func(types ...string) string {
		return `conditions: [{type: ` + strings.Join(types, `, status: "True"}, {type: `) + `, status: "True"}]`
	}
	done := stored(``, `, status: {startTime: "2026-01-01T00:00:00Z", `+ended+`, `+condition("SuccessCriteriaMet", "Complete")+`}`)
	rowtest.Run(t, jobs(), []rowtest.Case{
		{Name: "complete", Object: stored(``, running), Status: `{` + ended + `, ` + condition("SuccessCriteriaMet", "Complete") + `}`},
		{Name: "failed", Object: stored(``, running), Status: `{active: 0, ` + condition("FailureTarget", "Failed") + `}`},
		{Name: "the spec stays", Object: stored(``, running), Status: `{active: 2}`, Check: func(t *testing.T, obj runtime.Object) {
			if g := obj.(*v1.Job).Generation; g != 1 {
				t.Errorf("generation %d", g)
			}
		}},
		{Name: "negative", Object: stored(``), Status: `{active: -1, ready: -1, terminating: -1}`, Errors: []string{
			"status.active: Invalid value: -1: must be greater than or equal to 0", "status.ready: Invalid value: -1: must be greater than or equal to 0",
			"status.terminating: Invalid value: -1: must be greater than or equal to 0"}},
		{Name: "uncounted", Object: stored(``), Status: `{uncountedTerminatedPods: {succeeded: [a, ""], failed: [a]}}`, Errors: []string{
			`status.uncountedTerminatedPods.succeeded[1]: Invalid value: "": must not be empty`, `status.uncountedTerminatedPods.failed[0]: Duplicate value: "a"`}},
		{Name: "complete at once", Object: stored(``, running), Status: `{` + condition("Complete") + `}`, Errors: []string{
			"status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
			"status.completionTime: Required value: completionTime is required for Complete jobs",
			"status.active: Invalid value: 1: active>0 is invalid for finished job"}},
		{Name: "failed at once", Object: stored(``), Status: `{terminating: 1, uncountedTerminatedPods: {failed: [a]}, ` + condition("Failed") + `}`, Errors: []string{
			"status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
			"status.startTime: Required value: startTime is required for finished job",
			"status.terminating: Invalid value: 1: terminating>0 is invalid for finished job",
			`status.uncountedTerminatedPods: Invalid value: {"failed":["a"]}: uncountedTerminatedPods needs to be empty for finished job`}},
		{Name: "both ends", Object: stored(``, running), Status: `{` + ended + `, ` + condition("FailureTarget", "SuccessCriteriaMet", "Complete", "Failed") + `}`, Errors: []string{
			"status.conditions: Invalid value: cannot set Complete=True and Failed=true conditions",
			"status.conditions: Invalid value: cannot set Complete=True and FailureTarget=true conditions",
			"status.conditions: Invalid value: cannot set SuccessCriteriaMet=True and Failed=true conditions",
			"status.conditions: Invalid value: cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"}},
		{Name: "begun anew", Object: done, Status: `{conditions: null, completionTime: null}`, Errors: []string{
			"status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
			"status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition"}},
		{Name: "another time", Object: done, Status: `{startTime: "2026-01-02T00:00:00Z", completionTime: "2026-01-01T00:02:00Z"}`, Errors: []string{
			`status.completionTime: Invalid value: "2026-01-01T00:02:00Z": completionTime cannot be set before startTime`,
			`status.completionTime: Invalid value: "2026-01-01T00:02:00Z": completionTime cannot be mutated`,
			"status.startTime: Required value: startTime cannot be removed for unsuspended job"}},
		{Name: "completed before the end", Object: stored(``, running), Status: `{completionTime: "2026-01-01T00:01:00Z"}`, Errors: []string{
			`status.completionTime: Invalid value: "2026-01-01T00:01:00Z": cannot set completionTime when there is no Complete=True condition`}},
		{Name: "fewer", Object: stored(``, running), Status: `{succeeded: 1, failed: 1, ready: 2}`, Errors: []string{
			"status.failed: Invalid value: 1: cannot decrease the failed counter", "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
			"status.ready: Invalid value: 2: cannot set more ready pods than active"}},
		{Name: "indexes", Object: indexed, Status: `{completedIndexes: "0,2-3", failedIndexes: "1,4"}`},
		{Name: "wrong indexes", Object: indexed, Status: `{completedIndexes: "1,0", failedIndexes: "5"}`, Errors: []string{
			`status.completedIndexes: Invalid value: "1,0": error parsing completedIndexes: non-increasing order, previous: 1, current: 0`,
			`status.failedIndexes: Invalid value: "5": error parsing failedIndexes: too large index: "5"`}},
		{Name: "overlapping indexes", Object: indexed, Status: `{completedIndexes: "0,2-3", failedIndexes: "1,3-4"}`, Errors: []string{
			`status.failedIndexes: Invalid value: "1,3-4": failedIndexes and completedIndexes overlap at index: 3`}},
		{Name: "indexes of a job without", Object: stored(``), Status: `{completedIndexes: "0", failedIndexes: "0"}`, Errors: []string{
			`status.completedIndexes: Invalid value: "0": cannot set non-empty completedIndexes when non-indexed completion mode`,
			`status.failedIndexes: Invalid value: "0": cannot set non-null failedIndexes when backoffLimitPerIndex is null`,
			`status.failedIndexes: Invalid value: "0": failedIndexes and completedIndexes overlap at index: 0`}},
	}...)
}

func TestCronJob(t *testing.T) {
	cron := func(spec string, job ...string) string {
		return `{metadata: {name: c, generation: 1}, spec: {` + spec + `, jobTemplate: {spec: {` + strings.Join(append(job, ""), ", ") +
			`template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}}`
	}
	rowtest.Run(t, cronJobs(), []rowtest.Case{
		{Name: "defaults", Object: cron(`schedule: "*/5 * * * *"`), Check: func(t *testing.T, obj runtime.Object) {
			c := obj.(*v1.CronJob).Spec
			if c.ConcurrencyPolicy != v1.AllowConcurrent || ptr.Deref(c.SuccessfulJobsHistoryLimit, 0) != 3 || ptr.Deref(c.FailedJobsHistoryLimit, 0) != 1 || c.Suspend == nil {
				t.Errorf("spec %+v", c)
			}
			if j := c.JobTemplate.Spec; j.BackoffLimit != nil || j.Parallelism != nil || j.ManualSelector != nil || j.Template.Spec.DNSPolicy == "" {
				t.Errorf("the template of jobs %+v", j)
			}
		}},
		{Name: "no schedule", Object: cron(`timeZone: Europe/Berlin`), Errors: []string{"spec.schedule: Required value"}},
		{Name: "odd schedule", Object: cron(`schedule: error`), Errors: []string{`spec.schedule: Invalid value: "error": expected exactly 5 fields, found 1: [error]`}},
		{Name: "zone and nothing", Object: cron(`schedule: TZ=UTC`), Errors: []string{`spec.schedule: Invalid value: "TZ=UTC": empty spec string`,
			`spec.schedule: Invalid value: "TZ=UTC": cannot use TZ or CRON_TZ in schedule, use timeZone field instead`}},
		{Name: "zone in the schedule", Object: cron(`schedule: "CRON_TZ=UTC * * * * *"`), Errors: []string{
			`spec.schedule: Invalid value: "CRON_TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead`}},
		{Name: "zone that was in the schedule", Object: cron(`schedule: "TZ=UTC * * * * *"`), Update: `{spec: {suspend: true}}`,
			Warnings: []string{"cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"}},
		{Name: "zones in both", Object: cron(`schedule: "TZ=UTC * * * * *"`), Update: `{spec: {timeZone: Europe/Berlin}}`,
			Errors:   []string{`spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use both timeZone field and TZ or CRON_TZ in schedule`},
			Warnings: []string{"cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"}},
		{Name: "zone", Object: cron(`schedule: "@daily", timeZone: America/Argentina/Buenos_Aires`)},
		{Name: "empty zone", Object: cron(`schedule: "@daily", timeZone: ""`), Errors: []string{`spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string`}},
		{Name: "path as a zone", Object: cron(`schedule: "@daily", timeZone: ../UTC`), Errors: []string{`spec.timeZone: Invalid value: "../UTC": unknown time zone ../UTC`}},
		{Name: "local zone", Object: cron(`schedule: "@daily", timeZone: Local`), Errors: []string{
			`spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones`}},
		{Name: "unknown zone", Object: cron(`schedule: "@daily", timeZone: Asia/Nowhere`), Errors: []string{`spec.timeZone: Invalid value: "Asia/Nowhere": unknown time zone Asia/Nowhere`}},
		{Name: "policies", Object: cron(`schedule: "@daily", concurrencyPolicy: Odd, startingDeadlineSeconds: -1, failedJobsHistoryLimit: -1`), Errors: []string{
			`spec.concurrencyPolicy: Unsupported value: "Odd": supported values: "Allow", "Forbid", "Replace"`,
			"spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0", "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0"}},
		{Name: "template with a selector", Object: cron(`schedule: "@daily"`, `manualSelector: true`, `selector: {matchLabels: {a: b}}`), Errors: []string{
			"spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
			`spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"`}},
		{Name: "long name", Object: strings.Replace(cron(`schedule: "@daily"`), "name: c,", "name: "+strings.Repeat("x", 53)+",", 1), Errors: []string{
			`metadata.name: Invalid value: "` + strings.Repeat("x", 53) + `": must be no more than 52 characters`}},
		{Name: "dotted name", Object: strings.Replace(cron(`schedule: "@daily"`), "name: c,", "name: a.b,", 1), Warnings: []string{
			`metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]`}},
		{Name: "status", Object: cron(`schedule: "@daily"`), Status: `{active: [{name: x}]}`},
	}...)
}
