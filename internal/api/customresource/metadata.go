package customresource

import "time"

// plain reports whether metadata is as it would be after a way through ObjectMeta and
// back: every field is one that ObjectMeta has, of its type, in the form that it
// is written in. It may say no of such metadata too: that is only slower.
func plain(metadata map[string]any) bool {
	return all(metadata, func(name string, v any) bool {
		switch name {
		case "name", "generateName", "namespace", "uid", "resourceVersion":
			return isText(v)
		case "creationTimestamp":
			return isTime(v)
		case "generation":
			n, ok := v.(int64)
			return ok && n != 0
		case "labels", "annotations":
			m, ok := v.(map[string]any)
			return ok && len(m) > 0 && all(m, func(_ string, v any) bool { _, ok := v.(string); return ok })
		case "finalizers":
			return each(v, func(v any) bool { _, ok := v.(string); return ok })
		case "ownerReferences":
			return each(v, plainOwner)
		case "managedFields":
			return each(v, plainManager)
		}
		return false
	})
}

func plainOwner(v any) bool {
	m, ok := v.(map[string]any)
	required := 0
	return ok && all(m, func(name string, v any) bool {
		switch name {
		case "apiVersion", "kind", "name", "uid":
			required++
			return isText(v)
		case "controller", "blockOwnerDeletion":
			_, ok := v.(bool)
			return ok
		}
		return false
	}) && required == 4
}

func plainManager(v any) bool {
	m, ok := v.(map[string]any)
	return ok && all(m, func(name string, v any) bool {
		switch name {
		case "manager", "operation", "apiVersion", "fieldsType", "subresource":
			return isText(v)
		case "time":
			return isTime(v)
		case "fieldsV1":
			m, ok := v.(map[string]any)
			return ok && len(m) > 0
		}
		return false
	})
}

func all(m map[string]any, f func(name string, v any) bool) bool {
	for name, v := range m {
		if !f(name, v) {
			return false
		}
	}
	return true
}

// each reports whether v is a list with at least one item, all of which f takes.
func each(v any, f func(any) bool) bool {
	l, ok := v.([]any)
	if !ok || len(l) == 0 {
		return false
	}
	for _, item := range l {
		if !f(item) {
			return false
		}
	}
	return true
}

// isText reports whether v is a string that is written: empty ones are left out.
func isText(v any) bool {
	s, ok := v.(string)
	return ok && s != ""
}

// isTime reports whether v is a time in the one form that metav1.Time is written in.
func isTime(v any) bool {
	s, ok := v.(string)
	if !ok || len(s) != len("2006-01-02T15:04:05Z") || s[len(s)-1] != 'Z' {
		return false
	}
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}
