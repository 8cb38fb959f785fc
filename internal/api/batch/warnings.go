package batch

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
)

// nameWarnings warns of a name that is no DNS label: it is part of the names
// and hostnames of pods.
func nameWarnings(name string) []string {
	if msgs := validation.IsDNS1123Label(name); len(msgs) > 0 {
		return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs)}
	}
	return nil
}

func jobWarnings(j *v1.Job) []string {
	return append(nameWarnings(j.Name), jobSpecWarnings(&j.Spec, field.NewPath("spec"))...)
}

func jobSpecWarnings(s *v1.JobSpec, fldPath *field.Path) (out []string) {
	if indexed(s) && ptr.Deref(s.Completions, 0) > manyCompletions && ptr.Deref(s.Parallelism, 0) > highLimit {
		out = append(out, fmt.Sprintf("%s: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "+
			"Kubernetes might not be able to track completedIndexes when a big number of indexes fail", fldPath))
	}
	return append(out, podspec.TemplateWarnings(&s.Template, fldPath.Child("template"))...)
}

var jobTemplatePath = field.NewPath("spec", "jobTemplate", "spec")

func cronJobWarnings(c *v1.CronJob) []string {
	return append(nameWarnings(c.Name), jobSpecWarnings(&c.Spec.JobTemplate.Spec, jobTemplatePath)...)
}

func cronJobUpdateWarnings(c, old *v1.CronJob) (out []string) {
	if c.Generation != old.Generation {
		out = jobSpecWarnings(&c.Spec.JobTemplate.Spec, jobTemplatePath)
	}
	if strings.Contains(c.Spec.Schedule, "TZ") {
		// The path is upstream's, its first step twice.
		out = append(out, fmt.Sprintf("cannot use TZ or CRON_TZ in %s, use timeZone instead, "+
			"see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", field.NewPath("spec", "spec", "schedule")))
	}
	return out
}
