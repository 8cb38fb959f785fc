package events

import (
	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// toCore returns the stored form of an event.
func toCore(obj runtime.Object) (runtime.Object, error) {
	e := obj.(*v1.Event)
	out := &corev1.Event{
		TypeMeta:            e.TypeMeta,
		ObjectMeta:          e.ObjectMeta,
		InvolvedObject:      e.Regarding,
		Reason:              e.Reason,
		Message:             e.Note,
		Source:              e.DeprecatedSource,
		FirstTimestamp:      e.DeprecatedFirstTimestamp,
		LastTimestamp:       e.DeprecatedLastTimestamp,
		Count:               e.DeprecatedCount,
		Type:                e.Type,
		EventTime:           e.EventTime,
		Action:              e.Action,
		Related:             e.Related,
		ReportingController: e.ReportingController,
		ReportingInstance:   e.ReportingInstance,
	}
	if e.Kind != "" {
		out.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Event"))
	}
	if e.Series != nil {
		out.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return out, nil
}

// fromCore returns a stored event in this group's form.
func fromCore(hub runtime.Object) (runtime.Object, error) {
	e := hub.(*corev1.Event)
	out := &v1.Event{
		TypeMeta:                 e.TypeMeta,
		ObjectMeta:               e.ObjectMeta,
		EventTime:                e.EventTime,
		ReportingController:      e.ReportingController,
		ReportingInstance:        e.ReportingInstance,
		Action:                   e.Action,
		Reason:                   e.Reason,
		Regarding:                e.InvolvedObject,
		Related:                  e.Related,
		Note:                     e.Message,
		Type:                     e.Type,
		DeprecatedSource:         e.Source,
		DeprecatedFirstTimestamp: e.FirstTimestamp,
		DeprecatedLastTimestamp:  e.LastTimestamp,
		DeprecatedCount:          e.Count,
	}
	if e.Kind != "" {
		out.SetGroupVersionKind(v1.SchemeGroupVersion.WithKind("Event"))
	}
	if e.Series != nil {
		out.Series = &v1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return out, nil
}
