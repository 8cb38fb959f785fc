package core

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	coreevents "keelson.dev/keelson/internal/api/events"
	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/api/row"
)

var schemaTokenRequest = schema.GroupVersionKind{Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"}

func nodes() *api.Resource {
	r := api.Resource{ShortNames: []string{"no"}, StoragePrefix: "minions"}
	r.FieldLabels = []string{"spec.unschedulable"}
	r.Subresources = []api.Subresource{proxyOf("NodeProxyOptions")}
	info := v1.NodeSystemInfo{}.SwaggerDoc()
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Status", "The status of the node"), row.String("Roles", "The roles of the node"),
		row.Age(), row.String("Version", info["kubeletVersion"]), row.Wide("Internal-IP", v1.NodeStatus{}.SwaggerDoc()["addresses"]),
		row.Wide("External-IP", v1.NodeStatus{}.SwaggerDoc()["addresses"]), row.Wide("OS-Image", info["osImage"]),
		row.Wide("Kernel-Version", info["kernelVersion"]), row.Wide("Container-Runtime", info["containerRuntimeVersion"])}
	out := row.New[v1.NodeList](v1.SchemeGroupVersion, r, row.Kind[*v1.Node]{
		Spec:   func(n *v1.Node) any { return &n.Spec },
		Status: func(n *v1.Node) any { return &n.Status },
		Default: func(n *v1.Node) {
			setPodCIDRs(n)
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
		Validate:             validateNode,
		ValidateUpdate:       validateNodeUpdate,
		ValidateStatusUpdate: validateNodeUpdate,
		Warnings:             nodeWarnings,
		Fields: func(n *v1.Node) fields.Set {
			return fields.Set{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
		},
		Cells: nodeCells,
	})
	// A node registers itself with its status, unlike other kinds.
	out.PrepareForCreate = nil
	return out
}

func validateNode(n *v1.Node) field.ErrorList {
	errs := validateNodeAnnotations(n.Annotations)
	errs = append(errs, validateTaints(n.Spec.Taints, field.NewPath("metadata", "taints"))...)
	errs = append(errs, validateNodeResources(n)...)
	at := field.NewPath("spec", "podCIDRs")
	for i, cidr := range n.Spec.PodCIDRs {
		errs = append(errs, validation.IsValidCIDRForLegacyField(at.Index(i), cidr, false, nil)...)
		if slices.Contains(n.Spec.PodCIDRs[:i], cidr) {
			errs = append(errs, field.Duplicate(at.Index(i), cidr))
		}
	}
	if len(n.Spec.PodCIDRs) > 1 {
		dual, err := netutils.IsDualStackCIDRStrings(n.Spec.PodCIDRs)
		if err != nil {
			errs = append(errs, field.InternalError(at, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%w", err)))
		}
		if !dual || len(n.Spec.PodCIDRs) > 2 {
			errs = append(errs, field.Invalid(at, n.Spec.PodCIDRs, "may specify no more than one CIDR for each IP family"))
		}
	}
	return errs
}

// validateNodeAnnotations checks those that once meant something.
func validateNodeAnnotations(annotations map[string]string) (errs field.ErrorList) {
	at := field.NewPath("metadata", "annotations")
	if text := annotations[v1.TaintsAnnotationKey]; text != "" {
		var taints []v1.Taint
		if err := json.Unmarshal([]byte(text), &taints); err != nil {
			errs = append(errs, field.Invalid(at, v1.TaintsAnnotationKey, err.Error()))
		}
		errs = append(errs, validateTaints(taints, at.Child(v1.TaintsAnnotationKey))...)
	}
	text := annotations[v1.PreferAvoidPodsAnnotationKey]
	if text == "" {
		return errs
	}
	var avoid v1.AvoidPods
	if err := json.Unmarshal([]byte(text), &avoid); err != nil {
		return append(errs, field.Invalid(at.Child("AvoidPods"), v1.PreferAvoidPodsAnnotationKey, err.Error()))
	}
	for i, e := range avoid.PreferAvoidPods {
		at := at.Child(v1.PreferAvoidPodsAnnotationKey).Index(i).Child("PodSignature")
		if c := e.PodSignature.PodController; c == nil {
			errs = append(errs, field.Required(at, ""))
		} else if !ptr.Deref(c.Controller, false) {
			errs = append(errs, field.Invalid(at.Child("PodController", "Controller"), false, "must point to a controller"))
		}
	}
	return errs
}

// validateConfigSource checks where a node's configuration is said to be, which
// nothing reads any more. In a status it is a certain version.
func validateConfigSource(s *v1.NodeConfigSource, inStatus bool, at *field.Path) (errs field.ErrorList) {
	if s == nil {
		return nil
	}
	c := s.ConfigMap
	if c == nil {
		return field.ErrorList{field.Invalid(at, s, "exactly one reference subfield must be non-nil")}
	}
	at = at.Child("configMap")
	for _, f := range [...]struct{ name, value string }{{"uid", string(c.UID)}, {"resourceVersion", c.ResourceVersion}} {
		switch {
		case inStatus && f.value == "":
			errs = append(errs, field.Required(at.Child(f.name), f.name+" must be set in status"))
		case !inStatus && f.value != "":
			errs = append(errs, field.Forbidden(at.Child(f.name), f.name+" must not be set in spec"))
		}
	}
	for _, f := range [...]struct {
		name, value string
		check       func(string) []string
	}{{"namespace", c.Namespace, validation.IsDNS1123Label}, {"name", c.Name, validation.IsDNS1123Subdomain}, {"kubeletConfigKey", c.KubeletConfigKey, validation.IsConfigMapKey}} {
		if f.value == "" {
			errs = append(errs, field.Required(at.Child(f.name), f.name+" must be set"))
			continue
		}
		for _, msg := range f.check(f.value) {
			errs = append(errs, field.Invalid(at.Child(f.name), f.value, msg))
		}
	}
	return errs
}

func validateTaints(taints []v1.Taint, at *field.Path) (errs field.ErrorList) {
	effects := []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute}
	for i, t := range taints {
		at := at.Index(i)
		errs = append(errs, qualifiedName(t.Key, at.Child("key"))...)
		if msgs := validation.IsValidLabelValue(t.Value); len(msgs) > 0 {
			errs = append(errs, field.Invalid(at.Child("value"), t.Value, strings.Join(msgs, ";")))
		}
		errs = append(errs, supported(at.Child("effect"), t.Effect, effects)...)
		if slices.ContainsFunc(taints[:i], func(o v1.Taint) bool { return o.Key == t.Key && o.Effect == t.Effect }) {
			e := field.Duplicate(at, t)
			e.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, e)
		}
	}
	return errs
}

func validateNodeResources(n *v1.Node) (errs field.ErrorList) {
	at := field.NewPath("status")
	for k, q := range n.Status.Capacity {
		errs = append(errs, podspec.ValidateQuantity(k, q, at.Child("capacity", string(k)))...)
	}
	for k, q := range n.Status.Allocatable {
		errs = append(errs, podspec.ValidateQuantity(k, q, at.Child("allocatable", string(k)))...)
	}
	return errs
}

// validateNodeUpdate checks that the fields that tie a node to a machine are
// set once.
func validateNodeUpdate(n, old *v1.Node) field.ErrorList {
	errs := validateNodeAnnotations(n.Annotations)
	errs = append(errs, validateNodeResources(n)...)
	for i, a := range n.Status.Addresses {
		if slices.Contains(n.Status.Addresses[:i], a) {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), a))
		}
	}
	at := field.NewPath("spec")
	if len(old.Spec.PodCIDRs) > 0 && !slices.Equal(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(at.Child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
	}
	if old.Spec.ProviderID != "" && n.Spec.ProviderID != old.Spec.ProviderID {
		errs = append(errs, field.Forbidden(at.Child("providerID"), "node updates may not change providerID except from \"\" to valid"))
	}
	errs = append(errs, validateConfigSource(n.Spec.ConfigSource, false, at.Child("configSource"))...)
	if c := n.Status.Config; c != nil {
		at := field.NewPath("status", "config")
		errs = append(errs, validateConfigSource(c.Assigned, true, at.Child("assigned"))...)
		errs = append(errs, validateConfigSource(c.Active, true, at.Child("active"))...)
		errs = append(errs, validateConfigSource(c.LastKnownGood, true, at.Child("lastKnownGood"))...)
	}
	errs = append(errs, validateTaints(n.Spec.Taints, field.NewPath("metadata", "taints"))...)
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(at.Child("externalID"), "may not be updated"))
	}
	return errs
}

// setPodCIDRs has the list follow the older single field, which is the one that
// counts where the two differ.
func setPodCIDRs(n *v1.Node) {
	switch s := &n.Spec; {
	case s.PodCIDR == "" && len(s.PodCIDRs) > 0:
		s.PodCIDR = s.PodCIDRs[0]
	case s.PodCIDR != "" && (len(s.PodCIDRs) == 0 || s.PodCIDRs[0] != s.PodCIDR):
		s.PodCIDRs = []string{s.PodCIDR}
	}
}

func nodeWarnings(n *v1.Node) (warnings []string) {
	if n.Spec.DoNotUseExternalID != "" {
		warnings = append(warnings, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	if n.Spec.ConfigSource != nil {
		warnings = append(warnings, "spec.configSource: the feature is removed")
	}
	at := field.NewPath("spec", "podCIDRs")
	for i, cidr := range n.Spec.PodCIDRs {
		warnings = append(warnings, validation.GetWarningsForCIDR(at.Index(i), cidr)...)
	}
	return warnings
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

// SimulatedRuntime begins the version of the container runtime that a simulated node
// reports: there is none.
const SimulatedRuntime = "sim://"

// Simulated reports whether node exists in the API only. It has no agent, and the
// addresses of its pods lead nowhere.
func Simulated(node *v1.Node) bool {
	return strings.HasPrefix(node.Status.NodeInfo.ContainerRuntimeVersion, SimulatedRuntime)
}

func events() *api.Resource {
	r := api.Resource{ShortNames: []string{"ev"}, Namespaced: true}
	r.AllowCreateOnUpdate = true
	r.FieldLabels = []string{"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion",
		"involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"}
	doc := v1.Event{}.SwaggerDoc()
	r.Columns = []metav1.TableColumnDefinition{row.String("Last Seen", doc["lastTimestamp"]), row.String("Type", doc["type"]), row.String("Reason", doc["reason"]),
		row.String("Object", doc["involvedObject"]), row.Wide("Subobject", v1.ObjectReference{}.SwaggerDoc()["fieldPath"]), row.Wide("Source", doc["source"]),
		row.String("Message", doc["message"]), row.Wide("First Seen", doc["firstTimestamp"]), row.Wide("Count", doc["count"]), row.Wide("Name", metav1.ObjectMeta{}.SwaggerDoc()["name"])}
	r.Columns[9].Format = "name"
	return row.New[v1.EventList](v1.SchemeGroupVersion, r, row.Kind[*v1.Event]{
		TTL:      func(*v1.Event) time.Duration { return time.Hour },
		Validate: coreevents.ValidateCore,
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
	count := int64(e.Count)
	if e.Series != nil {
		last, count = row.Since(e.Series.LastObservedTime.Time, now), int64(e.Series.Count)
	} else if count == 0 {
		count = 1
	}
	source := cmp.Or(e.Source.Component, e.ReportingController)
	if instance := cmp.Or(e.Source.Host, e.ReportingInstance); instance != "" {
		source += ", " + instance
	}
	target := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		target += "/" + e.InvolvedObject.Name
	}
	return []any{last, e.Type, e.Reason, target, e.InvolvedObject.FieldPath, source, strings.TrimSpace(e.Message), first, count, e.Name}
}
