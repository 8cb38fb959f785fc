package core

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

var schemaTokenRequest = schema.GroupVersionKind{Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"}

func nodes() *api.Resource {
	r := named("nodes", "Node", "node", "minions", false, []string{"no"},
		func() runtime.Object { return &v1.Node{} }, func() runtime.Object { return &v1.NodeList{} })
	r.FieldLabels = []string{"spec.unschedulable"}
	r.Subresources = []api.Subresource{proxyOf("NodeProxyOptions")}
	info := v1.NodeSystemInfo{}.SwaggerDoc()
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Status", "The status of the node"), row.String("Roles", "The roles of the node"),
		row.Age(), row.String("Version", info["kubeletVersion"]), row.Wide("Internal-IP", v1.NodeStatus{}.SwaggerDoc()["addresses"]),
		row.Wide("External-IP", v1.NodeStatus{}.SwaggerDoc()["addresses"]), row.Wide("OS-Image", info["osImage"]),
		row.Wide("Kernel-Version", info["kernelVersion"]), row.Wide("Container-Runtime", info["containerRuntimeVersion"])}
	out := row.New(r, row.Kind[*v1.Node]{
		Spec:   func(n *v1.Node) any { return &n.Spec },
		Status: func(n *v1.Node) any { return &n.Status },
		Default: func(n *v1.Node) {
			// What is not said to be allocatable is what there is.
			for k, q := range n.Status.Capacity {
				if n.Status.Allocatable == nil {
					n.Status.Allocatable = v1.ResourceList{}
				}
				if _, ok := n.Status.Allocatable[k]; !ok {
					n.Status.Allocatable[k] = q.DeepCopy()
				}
			}
		},
		Validate: validateNode,
		Fields: func(n *v1.Node) fields.Set {
			return fields.Set{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
		},
		Cells: nodeCells,
	})
	// A node registers itself with its status, unlike other kinds.
	out.PrepareForCreate = nil
	return out
}

func validateNode(n *v1.Node) (errs field.ErrorList) {
	at := field.NewPath("spec", "taints")
	type key struct {
		k string
		e v1.TaintEffect
	}
	seen := map[key]bool{}
	for i, t := range n.Spec.Taints {
		for _, msg := range validation.IsQualifiedName(t.Key) {
			errs = append(errs, field.Invalid(at.Index(i).Child("key"), t.Key, msg))
		}
		for _, msg := range validation.IsValidLabelValue(t.Value) {
			errs = append(errs, field.Invalid(at.Index(i).Child("value"), t.Value, msg))
		}
		switch t.Effect {
		case v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute:
		default:
			errs = append(errs, field.NotSupported(at.Index(i).Child("effect"), t.Effect,
				[]v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute}))
		}
		if k := (key{t.Key, t.Effect}); seen[k] {
			errs = append(errs, field.Duplicate(at.Index(i), t))
		} else {
			seen[k] = true
		}
	}
	return errs
}

func nodeCells(n *v1.Node, now time.Time) []any {
	status := []string{"Unknown"}
	for _, c := range n.Status.Conditions {
		if c.Type == v1.NodeReady {
			if status[0] = "NotReady"; c.Status == v1.ConditionTrue {
				status[0] = "Ready"
			}
		}
	}
	if n.Spec.Unschedulable {
		status = append(status, "SchedulingDisabled")
	}
	var roles []string
	for k, v := range n.Labels {
		if role, ok := strings.CutPrefix(k, "node-role.kubernetes.io/"); ok && role != "" {
			roles = append(roles, role)
		} else if k == "kubernetes.io/role" && v != "" {
			roles = append(roles, v)
		}
	}
	slices.Sort(roles)
	roles = slices.Compact(roles)
	role := "<none>"
	if len(roles) > 0 {
		role = strings.Join(roles, ",")
	}
	address := func(t v1.NodeAddressType) string {
		for _, a := range n.Status.Addresses {
			if a.Type == t {
				return a.Address
			}
		}
		return "<none>"
	}
	unknown := func(s string) string {
		if s == "" {
			return "<unknown>"
		}
		return s
	}
	i := n.Status.NodeInfo
	return []any{n.Name, strings.Join(status, ","), role, row.Created(n, now), i.KubeletVersion, address(v1.NodeInternalIP), address(v1.NodeExternalIP),
		unknown(i.OSImage), unknown(i.KernelVersion), unknown(i.ContainerRuntimeVersion)}
}

func events() *api.Resource {
	r := named("events", "Event", "event", "events", true, []string{"ev"},
		func() runtime.Object { return &v1.Event{} }, func() runtime.Object { return &v1.EventList{} })
	r.AllowCreateOnUpdate = true
	r.FieldLabels = []string{"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion",
		"involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"}
	doc := v1.Event{}.SwaggerDoc()
	r.Columns = []metav1.TableColumnDefinition{row.String("Last Seen", doc["lastTimestamp"]), row.String("Type", doc["type"]), row.String("Reason", doc["reason"]),
		row.String("Object", doc["involvedObject"]), row.Wide("Subobject", v1.ObjectReference{}.SwaggerDoc()["fieldPath"]), row.Wide("Source", doc["source"]),
		row.String("Message", doc["message"]), row.Wide("First Seen", doc["firstTimestamp"]), row.Wide("Count", doc["count"]), row.Wide("Name", "")}
	r.Columns[9].Format = "name"
	return row.New(r, row.Kind[*v1.Event]{
		TTL:      func(*v1.Event) time.Duration { return time.Hour },
		Validate: validateEvent,
		Fields: func(e *v1.Event) fields.Set {
			source := e.Source.Component
			if source == "" {
				source = e.ReportingController
			}
			o := e.InvolvedObject
			return fields.Set{"involvedObject.kind": o.Kind, "involvedObject.namespace": o.Namespace, "involvedObject.name": o.Name, "involvedObject.uid": string(o.UID),
				"involvedObject.apiVersion": o.APIVersion, "involvedObject.resourceVersion": o.ResourceVersion, "involvedObject.fieldPath": o.FieldPath,
				"reason": e.Reason, "reportingComponent": e.ReportingController, "source": source, "type": e.Type}
		},
		Cells: eventCells,
	})
}

func validateEvent(e *v1.Event) (errs field.ErrorList) {
	if e.Namespace != "" && e.InvolvedObject.Namespace == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), e.InvolvedObject.Namespace, "does not match event.namespace"))
	} else if e.InvolvedObject.Namespace != "" && e.InvolvedObject.Namespace != e.Namespace {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), e.InvolvedObject.Namespace, "does not match event.namespace"))
	}
	for _, msg := range validation.IsDNS1123Subdomain(e.Namespace) {
		errs = append(errs, field.Invalid(field.NewPath("namespace"), e.Namespace, msg))
	}
	return errs
}

func eventCells(e *v1.Event, now time.Time) []any {
	since := func(t metav1.Time) string { return row.Since(t.Time, now) }
	first := since(e.FirstTimestamp)
	if e.FirstTimestamp.IsZero() {
		first = row.Since(e.EventTime.Time, now)
	}
	last := since(e.LastTimestamp)
	if e.LastTimestamp.IsZero() {
		last = first
	}
	if e.Series != nil {
		last = fmt.Sprintf("%s (x%d over %s)", row.Since(e.Series.LastObservedTime.Time, now), e.Series.Count, first)
	} else if e.Count > 1 {
		last = fmt.Sprintf("%s (x%d over %s)", last, e.Count, first)
	}
	count := int64(e.Count)
	if e.Series != nil {
		count = int64(e.Series.Count)
	} else if count == 0 {
		count = 1
	}
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	if host := e.Source.Host; host != "" {
		source += ", " + host
	} else if e.ReportingInstance != "" && e.Source.Component == "" {
		source += ", " + e.ReportingInstance
	}
	target := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		target += "/" + e.InvolvedObject.Name
	}
	return []any{last, e.Type, e.Reason, target, e.InvolvedObject.FieldPath, source, strings.TrimSpace(e.Message), first, count, e.Name}
}
