package events

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// timeToLive is how long an event is kept after its last write.
const timeToLive = time.Hour

// Resources returns the rows of events.k8s.io/v1.
func Resources() []*api.Resource {
	doc := corev1.Event{}.SwaggerDoc()
	r := api.Resource{
		ShortNames: []string{"ev"},
		Namespaced: true,
		Hub: &api.Hub{
			Resource: corev1.SchemeGroupVersion.WithResource("events"),
			ToHub:    toCore,
			FromHub:  fromCore,
		},
		Columns: []metav1.TableColumnDefinition{
			row.String("Last Seen", doc["lastTimestamp"]),
			row.String("Type", doc["type"]),
			row.String("Reason", doc["reason"]),
			row.String("Object", doc["involvedObject"]),
			row.Wide("Subobject", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"]),
			row.Wide("Source", doc["source"]),
			row.String("Message", doc["message"]),
			row.Wide("First Seen", doc["firstTimestamp"]),
			row.Wide("Count", doc["count"]),
			wideName(),
		},
	}
	r.AllowCreateOnUpdate = true
	r.FieldLabels = []string{
		"reason", "regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid",
		"regarding.apiVersion", "regarding.resourceVersion", "regarding.fieldPath", "reportingController", "type",
	}
	return []*api.Resource{row.New[v1.EventList](v1.SchemeGroupVersion, r, row.Kind[*v1.Event]{
		TTL:            func(*v1.Event) time.Duration { return timeToLive },
		Validate:       validate,
		ValidateUpdate: validateUpdate,
		Fields:         selectable,
		Cells:          cells,
	})}
}

func wideName() metav1.TableColumnDefinition {
	c := row.Name()
	c.Priority = 1
	return c
}

func selectable(e *v1.Event) fields.Set {
	reporter := e.ReportingController
	if reporter == "" {
		reporter = e.DeprecatedSource.Component
	}
	return fields.Set{
		"regarding.kind":            e.Regarding.Kind,
		"regarding.namespace":       e.Regarding.Namespace,
		"regarding.name":            e.Regarding.Name,
		"regarding.uid":             string(e.Regarding.UID),
		"regarding.apiVersion":      e.Regarding.APIVersion,
		"regarding.resourceVersion": e.Regarding.ResourceVersion,
		"regarding.fieldPath":       e.Regarding.FieldPath,
		"reason":                    e.Reason,
		"reportingController":       reporter,
		"type":                      e.Type,
	}
}

func cells(e *v1.Event, now time.Time) []any {
	first := row.Since(e.DeprecatedFirstTimestamp.Time, now)
	if e.DeprecatedFirstTimestamp.IsZero() {
		first = row.Since(e.EventTime.Time, now)
	}
	last := row.Since(e.DeprecatedLastTimestamp.Time, now)
	if e.DeprecatedLastTimestamp.IsZero() {
		last = first
	}
	count := e.DeprecatedCount
	if e.Series != nil {
		last, count = row.Since(e.Series.LastObservedTime.Time, now), e.Series.Count
	} else if count == 0 {
		// The first event of a series not yet counted.
		count = 1
	}
	target := strings.ToLower(e.Regarding.Kind)
	if e.Regarding.Name != "" {
		target += "/" + e.Regarding.Name
	}
	return []any{
		last, e.Type, e.Reason, target, e.Regarding.FieldPath, source(e),
		strings.TrimSpace(e.Note), first, int64(count), e.Name,
	}
}

// source joins the reporting component and its instance.
func source(e *v1.Event) string {
	component, instance := e.DeprecatedSource.Component, e.DeprecatedSource.Host
	if component == "" {
		component = e.ReportingController
	}
	if instance == "" {
		instance = e.ReportingInstance
	}
	if instance == "" {
		return component
	}
	return fmt.Sprintf("%s, %s", component, instance)
}
