package cronjob

import (
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batch "k8s.io/api/batch/v1"
)

// manyMissed is the number of missed times from which an event is recorded: so
// many indicate a fault of the clock or of the schedule.
const manyMissed = 100

// zoned reports whether a schedule names a time zone itself, as those may that are from
// before that was refused.
func zoned(schedule string) bool { return strings.Contains(schedule, "TZ") }

// parse reads a CronJob's schedule, in its time zone.
func parse(cj *batch.CronJob) (cron.Schedule, error) {
	spec := cj.Spec.Schedule
	if cj.Spec.TimeZone != nil && !zoned(spec) {
		spec = "TZ=" + *cj.Spec.TimeZone + " " + spec
	}
	return cron.ParseStandard(spec)
}

// due returns the last time of a schedule that is after since and not after now,
// the zero time if there is none, and how many such times there are, counted to
// manyMissed+1.
func due(s cron.Schedule, since, now time.Time) (last time.Time, n int) {
	for t := s.Next(since); !t.IsZero() && !t.After(now) && n <= manyMissed; t = s.Next(t) {
		last, n = t, n+1
	}
	if n <= manyMissed {
		return last, n
	}
	// Many times were missed: look for the last one from the end.
	for back := time.Minute; ; back *= 2 {
		from := now.Add(-back)
		if from.Before(last) {
			from = last.Add(-time.Second)
		}
		if t := s.Next(from); t.After(now) {
			continue
		}
		for t := s.Next(from); !t.After(now); t = s.Next(t) {
			last = t
		}
		return last, n
	}
}

// since returns the time after which scheduled times count: the last one that was
// served, or the CronJob's beginning, but not further back than the deadline for
// starting allows.
func since(cj *batch.CronJob, now time.Time) time.Time {
	t := cj.CreationTimestamp.Time
	if cj.Status.LastScheduleTime != nil {
		t = cj.Status.LastScheduleTime.Time
	}
	if d := cj.Spec.StartingDeadlineSeconds; d != nil {
		if least := now.Add(-time.Duration(*d) * time.Second); least.After(t) {
			t = least
		}
	}
	return t
}
