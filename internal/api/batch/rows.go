package batch

import (
	"fmt"
	"time"

	v1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of batch/v1.
func Resources() []*api.Resource { return []*api.Resource{jobs(), cronJobs()} }

func jobs() *api.Resource {
	spec, status := v1.JobSpec{}.SwaggerDoc(), v1.JobStatus{}.SwaggerDoc()
	r := api.Resource{
		Categories: []string{"all"},
		Namespaced: true,
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Status", "Status of the job."),
			row.String("Completions", status["succeeded"]),
			row.String("Duration", "Time required to complete the job."),
			row.Age(),
			row.Wide("Containers", "Names of each container in the template."),
			row.Wide("Images", "Images referenced by each container in the template."),
			row.Wide("Selector", spec["selector"]),
		},
	}
	// Until propagation policies existed, deleting a Job left its pods.
	r.OrphanByDefault = true
	r.DeleteWarning = "child pods are preserved by default when jobs are deleted; " +
		"set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"
	r.FieldLabels = []string{"status.successful"}
	r.BadFieldLabel = "field label %q not supported for batchv1.Job"
	return row.New[v1.JobList](v1.SchemeGroupVersion, r, row.Kind[*v1.Job]{
		Generation: true,
		Spec:       func(j *v1.Job) any { return &j.Spec },
		Status:     func(j *v1.Job) any { return &j.Status },
		Default:    setJobDefaults,
		PrepareForCreate: func(j *v1.Job) {
			generateSelector(j)
			dropDisabled(&j.Spec, nil)
		},
		PrepareForUpdate:     func(j, old *v1.Job) { dropDisabled(&j.Spec, &old.Spec) },
		Validate:             validateJob,
		ValidateUpdate:       validateJobUpdate,
		ValidateStatusUpdate: validateJobStatusUpdate,
		Warnings:             jobWarnings,
		UpdateWarnings: func(j, old *v1.Job) []string {
			if j.Generation == old.Generation {
				return nil
			}
			return jobSpecWarnings(&j.Spec, field.NewPath("spec"))
		},
		Fields: func(j *v1.Job) fields.Set {
			return fields.Set{"status.successful": fmt.Sprint(j.Status.Succeeded)}
		},
		Cells: jobCells,
	})
}

func jobCells(j *v1.Job, now time.Time) []any {
	var completions string
	switch {
	case j.Spec.Completions != nil:
		completions = fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	case j.Spec.Parallelism != nil && *j.Spec.Parallelism > 1:
		completions = fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, *j.Spec.Parallelism)
	default:
		completions = fmt.Sprintf("%d/1", j.Status.Succeeded)
	}
	took := ""
	if start := j.Status.StartTime; start != nil {
		end := now
		if j.Status.CompletionTime != nil {
			end = j.Status.CompletionTime.Time
		}
		took = duration.HumanDuration(end.Sub(start.Time))
	}
	names, images := row.Containers(j.Spec.Template.Spec.Containers)
	return []any{j.Name, jobStatus(j), completions, took, row.Created(j, now), names, images, metav1.FormatLabelSelector(j.Spec.Selector)}
}

func jobStatus(j *v1.Job) string {
	is := func(t v1.JobConditionType) bool {
		for _, c := range j.Status.Conditions {
			if c.Type == t && c.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	}
	switch {
	case is(v1.JobComplete):
		return "Complete"
	case is(v1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case is(v1.JobSuspended):
		return "Suspended"
	case is(v1.JobFailureTarget):
		return "FailureTarget"
	case is(v1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func cronJobs() *api.Resource {
	spec, status := v1.CronJobSpec{}.SwaggerDoc(), v1.CronJobStatus{}.SwaggerDoc()
	r := api.Resource{
		ShortNames: []string{"cj"},
		Categories: []string{"all"},
		Namespaced: true,
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Schedule", spec["schedule"]),
			row.String("Timezone", spec["timeZone"]),
			row.Boolean("Suspend", spec["suspend"]),
			row.Integer("Active", status["active"]),
			row.String("Last Schedule", status["lastScheduleTime"]),
			row.Age(),
			row.Wide("Containers", "Names of each container in the template."),
			row.Wide("Images", "Images referenced by each container in the template."),
			row.Wide("Selector", v1.JobSpec{}.SwaggerDoc()["selector"]),
		},
	}
	r.ValidateName = apivalidation.NameIsDNSSubdomain
	return row.New[v1.CronJobList](v1.SchemeGroupVersion, r, row.Kind[*v1.CronJob]{
		Generation:       true,
		Spec:             func(c *v1.CronJob) any { return &c.Spec },
		Status:           func(c *v1.CronJob) any { return &c.Status },
		Default:          setCronJobDefaults,
		PrepareForCreate: func(c *v1.CronJob) { dropDisabled(&c.Spec.JobTemplate.Spec, nil) },
		PrepareForUpdate: func(c, old *v1.CronJob) { dropDisabled(&c.Spec.JobTemplate.Spec, &old.Spec.JobTemplate.Spec) },
		Validate:         validateCronJob,
		ValidateUpdate:   validateCronJobUpdate,
		Warnings:         cronJobWarnings,
		UpdateWarnings:   cronJobUpdateWarnings,
		Cells: func(c *v1.CronJob, now time.Time) []any {
			last := "<none>"
			if c.Status.LastScheduleTime != nil {
				last = row.Since(c.Status.LastScheduleTime.Time, now)
			}
			zone := "<none>"
			if c.Spec.TimeZone != nil {
				zone = *c.Spec.TimeZone
			}
			names, images := row.Containers(c.Spec.JobTemplate.Spec.Template.Spec.Containers)
			return []any{
				c.Name, c.Spec.Schedule, zone, printBool(c.Spec.Suspend), int64(len(c.Status.Active)), last, row.Created(c, now),
				names, images, metav1.FormatLabelSelector(c.Spec.JobTemplate.Spec.Selector),
			}
		},
	})
}

func printBool(b *bool) string {
	switch {
	case b == nil:
		return "<unset>"
	case *b:
		return "True"
	}
	return "False"
}
