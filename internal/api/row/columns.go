package row

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

var metaDoc = metav1.ObjectMeta{}.SwaggerDoc()

// Name returns the first column of nearly all tables.
func Name() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metaDoc["name"]}
}

// Age returns the column of the time since an object's creation.
func Age() metav1.TableColumnDefinition { return String("Age", metaDoc["creationTimestamp"]) }

// CreatedAt returns the column of the creation's time itself.
func CreatedAt() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: "Created At", Type: "date", Description: metaDoc["creationTimestamp"]}
}

// String returns a column of text.
func String(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description}
}

// Wide returns a column of text that only the wide output shows.
func Wide(name, description string) metav1.TableColumnDefinition {
	c := String(name, description)
	c.Priority = 1
	return c
}

// Integer returns a column of whole numbers.
func Integer(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "integer", Description: description}
}

// Boolean returns a column of truth values.
func Boolean(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "boolean", Description: description}
}

// Since returns the time from t to now as people read it ("3d4h").
func Since(t, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t))
}

// Created returns the age of obj.
func Created(obj metav1.Object, now time.Time) string {
	return Since(obj.GetCreationTimestamp().Time, now)
}
