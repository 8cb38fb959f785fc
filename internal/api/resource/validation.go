package resource

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	v1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/utils/ptr"
)

func invalid(fldPath *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range messages {
		errs = append(errs, field.Invalid(fldPath, value, msg))
	}
	return errs
}

func atMost(n, most int, fldPath *field.Path) field.ErrorList {
	if n > most {
		return field.ErrorList{field.TooMany(fldPath, n, most)}
	}
	return nil
}

func validateDriver(name string, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		return field.ErrorList{field.Required(fldPath, "")}
	}
	if len(name) > v1.DriverNameMaxLength {
		errs = append(errs, field.TooLong(fldPath, "", v1.DriverNameMaxLength))
	}
	return append(errs, invalid(fldPath, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}

func validatePool(name string, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		return field.ErrorList{field.Required(fldPath, "")}
	}
	if len(name) > v1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(fldPath, "", v1.PoolNameMaxLength))
	}
	for _, part := range strings.Split(name, "/") {
		errs = append(errs, invalid(fldPath, part, validation.IsDNS1123Subdomain(part))...)
	}
	return errs
}

func validateClass(c *v1.DeviceClass) field.ErrorList { return validateClassOver(c, nil) }

func validateClassUpdate(c, old *v1.DeviceClass) field.ErrorList {
	return validateClassOver(c, selectorTexts(old.Spec.Selectors))
}

func selectorTexts(list []v1.DeviceSelector) sets.Set[string] {
	texts := sets.New[string]()
	for _, s := range list {
		if s.CEL != nil {
			texts.Insert(s.CEL.Expression)
		}
	}
	return texts
}

func validateClassOver(c *v1.DeviceClass, stored sets.Set[string]) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateSelectors(c.Spec.Selectors, stored, at.Child("selectors"))
	errs = append(errs, atMost(len(c.Spec.Config), v1.DeviceConfigMaxSize, at.Child("config"))...)
	for i := range c.Spec.Config {
		errs = append(errs, validateConfiguration(&c.Spec.Config[i].DeviceConfiguration, at.Child("config").Index(i))...)
	}
	if name := c.Spec.ExtendedResourceName; name != nil {
		at := at.Child("extendedResourceName")
		errs = append(errs, invalid(at, *name, validation.IsQualifiedName(*name))...)
		if !strings.Contains(*name, "/") || strings.HasPrefix(*name, "kubernetes.io/") || strings.HasPrefix(*name, "requests.") {
			errs = append(errs, field.Invalid(at, *name, "must be a valid extended resource name"))
		}
	}
	return errs
}

// environments hold the CEL library and a device, whose attributes and
// capacity are known only when there is one.
var environments = sync.OnceValues(func() (*environment.EnvSet, error) {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 31),
		EnvOptions:        []cel.EnvOption{cel.Variable("device", cel.DynType)},
	})
})

func validateSelectors(list []v1.DeviceSelector, stored sets.Set[string], fldPath *field.Path) field.ErrorList {
	errs := atMost(len(list), v1.DeviceSelectorsMaxSize, fldPath)
	for i, s := range list {
		at := fldPath.Index(i).Child("cel")
		if s.CEL == nil {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		text := s.CEL.Expression
		switch at = at.Child("expression"); {
		case text == "":
			errs = append(errs, field.Required(at, ""))
		case len(text) > v1.CELSelectorExpressionMaxLength:
			errs = append(errs, field.TooLong(at, "", v1.CELSelectorExpressionMaxLength))
		default:
			mode := environment.NewExpressions
			if stored.Has(text) {
				mode = environment.StoredExpressions
			}
			errs = append(errs, compile(text, mode, at)...)
		}
	}
	return errs
}

func compile(text string, mode environment.Type, fldPath *field.Path) field.ErrorList {
	set, err := environments()
	if err != nil {
		return field.ErrorList{field.InternalError(fldPath, err)}
	}
	env, err := set.Env(mode)
	if err != nil {
		return field.ErrorList{field.InternalError(fldPath, err)}
	}
	ast, issues := env.Compile(text)
	if issues != nil && issues.Err() != nil {
		return field.ErrorList{field.Invalid(fldPath, text, "compilation failed: "+issues.String())}
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.AnyType) && !t.IsExactType(cel.DynType) {
		return field.ErrorList{field.Invalid(fldPath, text, "must evaluate to bool or the unknown type, not "+t.String())}
	}
	return nil
}

func validateConfiguration(c *v1.DeviceConfiguration, fldPath *field.Path) field.ErrorList {
	at := fldPath.Child("opaque")
	if c.Opaque == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	errs := validateDriver(c.Opaque.Driver, at.Child("driver"))
	return append(errs, validateRaw(c.Opaque.Parameters.Raw, at.Child("parameters"))...)
}

// validateRaw: opaque data is at least a JSON object.
func validateRaw(raw []byte, fldPath *field.Path) field.ErrorList {
	var v any
	switch {
	case len(raw) == 0:
		return field.ErrorList{field.Required(fldPath, "")}
	case len(raw) > v1.OpaqueParametersMaxLength:
		return field.ErrorList{field.TooLong(fldPath, "", v1.OpaqueParametersMaxLength)}
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return field.ErrorList{field.Invalid(fldPath, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))}
	}
	if _, ok := v.(map[string]any); !ok {
		return field.ErrorList{field.Invalid(fldPath, "<value omitted>", "must be a valid JSON object")}
	}
	return nil
}

func validateClaim(c *v1.ResourceClaim) field.ErrorList {
	return validateSpec(&c.Spec, nil, field.NewPath("spec"))
}

func validateClaimUpdate(c, old *v1.ResourceClaim) field.ErrorList {
	// The spec cannot change, so it is as good as it was.
	return apivalidation.ValidateImmutableField(c.Spec, old.Spec, field.NewPath("spec"))
}

func validateTemplate(t *v1.ResourceClaimTemplate) field.ErrorList {
	at := field.NewPath("spec")
	errs := metav1validation.ValidateLabels(t.Spec.Labels, at.Child("metadata", "labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Spec.Annotations, at.Child("metadata", "annotations"))...)
	return append(errs, validateSpec(&t.Spec.Spec, nil, at.Child("spec"))...)
}

func validateTemplateUpdate(t, old *v1.ResourceClaimTemplate) field.ErrorList {
	return apivalidation.ValidateImmutableField(t.Spec, old.Spec, field.NewPath("spec"))
}

func validateSpec(s *v1.ResourceClaimSpec, stored sets.Set[string], fldPath *field.Path) field.ErrorList {
	at, d := fldPath.Child("devices"), &s.Devices
	errs := atMost(len(d.Requests), v1.DeviceRequestsMaxSize, at.Child("requests"))
	seen := sets.New[string]()
	for i := range d.Requests {
		r, at := &d.Requests[i], at.Child("requests").Index(i)
		errs = append(errs, validateRequest(r, stored, at)...)
		if seen.Has(r.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), r.Name))
		}
		seen.Insert(r.Name)
	}
	names := requestNames(d)
	errs = append(errs, atMost(len(d.Constraints), v1.DeviceConstraintsMaxSize, at.Child("constraints"))...)
	for i, c := range d.Constraints {
		at := at.Child("constraints").Index(i)
		errs = append(errs, validateRequestRefs(c.Requests, names, at.Child("requests"))...)
		switch {
		case c.MatchAttribute != nil && c.DistinctAttribute != nil:
			errs = append(errs, field.Invalid(at, "", "exactly one of `matchAttribute` or `distinctAttribute` is required, but multiple fields are set"))
		case c.MatchAttribute != nil:
			errs = append(errs, validateFullName(string(*c.MatchAttribute), at.Child("matchAttribute"))...)
		case c.DistinctAttribute != nil:
			errs = append(errs, validateFullName(string(*c.DistinctAttribute), at.Child("distinctAttribute"))...)
		default:
			errs = append(errs, field.Required(at, "exactly one of `matchAttribute` or `distinctAttribute` is required"))
		}
	}
	errs = append(errs, atMost(len(d.Config), v1.DeviceConfigMaxSize, at.Child("config"))...)
	for i := range d.Config {
		at := at.Child("config").Index(i)
		errs = append(errs, validateRequestRefs(d.Config[i].Requests, names, at.Child("requests"))...)
		errs = append(errs, validateConfiguration(&d.Config[i].DeviceConfiguration, at)...)
	}
	return errs
}

// requestNames gives how requests may be referred to: name, and name/sub.
func requestNames(d *v1.DeviceClaim) sets.Set[string] {
	names := sets.New[string]()
	for _, r := range d.Requests {
		names.Insert(r.Name)
		for _, sub := range r.FirstAvailable {
			names.Insert(r.Name + "/" + sub.Name)
		}
	}
	return names
}

func validateRequestRefs(list []string, names sets.Set[string], fldPath *field.Path) field.ErrorList {
	errs := atMost(len(list), v1.DeviceRequestsMaxSize, fldPath)
	seen := sets.New[string]()
	for i, r := range list {
		if !names.Has(r) {
			errs = append(errs, field.Invalid(fldPath.Index(i), r, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
		}
		if seen.Has(r) {
			errs = append(errs, field.Duplicate(fldPath.Index(i), r))
		}
		seen.Insert(r)
	}
	return errs
}

func validateRequest(r *v1.DeviceRequest, stored sets.Set[string], fldPath *field.Path) field.ErrorList {
	errs := validateLabel(r.Name, fldPath.Child("name"))
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		return append(errs, field.Required(fldPath, "exactly one of `exactly` or `firstAvailable` is required"))
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		return append(errs, field.Invalid(fldPath, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	case r.Exactly != nil:
		e := r.Exactly
		return append(errs, validateWish(e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations, stored, fldPath.Child("exactly"))...)
	}
	at := fldPath.Child("firstAvailable")
	errs = append(errs, atMost(len(r.FirstAvailable), v1.FirstAvailableDeviceRequestMaxSize, at)...)
	seen := sets.New[string]()
	for i := range r.FirstAvailable {
		sub, at := &r.FirstAvailable[i], at.Index(i)
		errs = append(errs, validateLabel(sub.Name, at.Child("name"))...)
		if seen.Has(sub.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), sub.Name))
		}
		seen.Insert(sub.Name)
		errs = append(errs, validateWish(sub.DeviceClassName, sub.Selectors, sub.AllocationMode, sub.Count, sub.Tolerations, stored, at)...)
	}
	return errs
}

func validateLabel(name string, fldPath *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(fldPath, "")}
	}
	return invalid(fldPath, name, validation.IsDNS1123Label(name))
}

func validateWish(class string, selectors []v1.DeviceSelector, mode v1.DeviceAllocationMode, count int64, tolerations []v1.DeviceToleration, stored sets.Set[string], fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if class == "" {
		errs = append(errs, field.Required(fldPath.Child("deviceClassName"), ""))
	} else {
		errs = append(errs, invalid(fldPath.Child("deviceClassName"), class, apivalidation.NameIsDNSSubdomain(class, false))...)
	}
	errs = append(errs, validateSelectors(selectors, stored, fldPath.Child("selectors"))...)
	switch mode {
	case v1.DeviceAllocationModeAll:
		if count != 0 {
			errs = append(errs, field.Invalid(fldPath.Child("count"), count, "must not be specified when allocationMode is 'All'"))
		}
	case v1.DeviceAllocationModeExactCount:
		if count <= 0 {
			errs = append(errs, field.Invalid(fldPath.Child("count"), count, "must be greater than zero"))
		}
	default:
		errs = append(errs, field.NotSupported(fldPath.Child("allocationMode"), mode, []v1.DeviceAllocationMode{v1.DeviceAllocationModeAll, v1.DeviceAllocationModeExactCount}))
	}
	errs = append(errs, atMost(len(tolerations), v1.DeviceTolerationsMaxLength, fldPath.Child("tolerations"))...)
	for i := range tolerations {
		errs = append(errs, validateToleration(&tolerations[i], fldPath.Child("tolerations").Index(i))...)
	}
	return errs
}

var effects = []v1.DeviceTaintEffect{v1.DeviceTaintEffectNoExecute, v1.DeviceTaintEffectNoSchedule, v1.DeviceTaintEffectNone}

func validateToleration(t *v1.DeviceToleration, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Key != "" {
		errs = append(errs, metav1validation.ValidateLabelName(t.Key, fldPath.Child("key"))...)
	}
	switch t.Operator {
	case v1.DeviceTolerationOpExists:
		if t.Value != "" {
			errs = append(errs, field.Invalid(fldPath.Child("value"), t.Value, "must be empty for operator `Exists`"))
		}
	case v1.DeviceTolerationOpEqual:
		errs = append(errs, invalid(fldPath.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
		if t.Key == "" {
			errs = append(errs, field.Required(fldPath.Child("key"), "must not be empty for operator `Equal`"))
		}
	case "":
		errs = append(errs, field.Required(fldPath.Child("operator"), ""))
	default:
		errs = append(errs, field.NotSupported(fldPath.Child("operator"), t.Operator, []v1.DeviceTolerationOperator{v1.DeviceTolerationOpEqual, v1.DeviceTolerationOpExists}))
	}
	if t.Effect != "" && !slices.Contains(effects, t.Effect) {
		errs = append(errs, field.NotSupported(fldPath.Child("effect"), t.Effect, effects))
	}
	return errs
}

// validateFullName: domain/id.
func validateFullName(name string, fldPath *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(fldPath, "")}
	}
	errs := validateName(name, fldPath)
	if !strings.Contains(name, "/") {
		errs = append(errs, field.Invalid(fldPath, name, "must include a domain"))
	}
	return errs
}

// validateName: id, or domain/id; id is a C identifier.
func validateName(name string, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	domain, id, ok := strings.Cut(name, "/")
	if !ok {
		domain, id = "", name
	} else if domain == "" {
		errs = append(errs, field.Required(fldPath, "the domain must not be empty"))
	} else {
		if len(domain) > v1.DeviceMaxDomainLength {
			errs = append(errs, field.TooLong(fldPath, "", v1.DeviceMaxDomainLength))
		}
		errs = append(errs, invalid(fldPath, domain, validation.IsDNS1123Subdomain(domain))...)
	}
	if id == "" {
		return append(errs, field.Required(fldPath, "the name must not be empty"))
	}
	if len(id) > v1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(fldPath, "", v1.DeviceMaxIDLength))
	}
	return append(errs, invalid(fldPath, id, validation.IsCIdentifier(id))...)
}

func validateClaimStatusUpdate(c, old *v1.ResourceClaim) field.ErrorList {
	at, s := field.NewPath("status"), &c.Status
	var errs field.ErrorList
	if s.Allocation != nil {
		if old.Status.Allocation != nil {
			errs = append(errs, apivalidation.ValidateImmutableField(s.Allocation, old.Status.Allocation, at.Child("allocation"))...)
		} else {
			errs = append(errs, validateAllocation(s.Allocation, requestNames(&c.Spec.Devices), at.Child("allocation"))...)
		}
	}
	reserved := at.Child("reservedFor")
	errs = append(errs, atMost(len(s.ReservedFor), v1.ResourceClaimReservedForMaxSize, reserved)...)
	known, seen := sets.New[string](), sets.New[string]()
	for _, r := range old.Status.ReservedFor {
		known.Insert(string(r.UID))
	}
	added := false
	for i, r := range s.ReservedFor {
		at := reserved.Index(i)
		for name, v := range map[string]string{"resource": r.Resource, "name": r.Name, "uid": string(r.UID)} {
			if v == "" {
				errs = append(errs, field.Required(at.Child(name), ""))
			}
		}
		if r.APIGroup != "" {
			errs = append(errs, invalid(at.Child("apiGroup"), r.APIGroup, validation.IsDNS1123Subdomain(r.APIGroup))...)
		}
		if seen.Has(string(r.UID)) {
			errs = append(errs, field.Duplicate(at.Child("uid"), r.UID))
		}
		seen.Insert(string(r.UID))
		added = added || !known.Has(string(r.UID))
	}
	switch {
	case len(s.ReservedFor) > 0 && s.Allocation == nil:
		errs = append(errs, field.Forbidden(reserved, "may not be specified when `allocated` is not set"))
	case added && c.DeletionTimestamp != nil:
		errs = append(errs, field.Forbidden(reserved, "new entries may not be added while `deletionTimestamp` or `deallocationRequested` are set"))
	}
	return append(errs, validateDeviceStatuses(s, at.Child("devices"))...)
}

func validateAllocation(a *v1.AllocationResult, names sets.Set[string], fldPath *field.Path) field.ErrorList {
	at := fldPath.Child("devices", "results")
	errs := atMost(len(a.Devices.Results), v1.AllocationResultsMaxSize, at)
	for i, r := range a.Devices.Results {
		at := at.Index(i)
		if !names.Has(r.Request) {
			errs = append(errs, field.Invalid(at.Child("request"), r.Request, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
		}
		errs = append(errs, validateDriver(r.Driver, at.Child("driver"))...)
		errs = append(errs, validatePool(r.Pool, at.Child("pool"))...)
		errs = append(errs, validateLabel(r.Device, at.Child("device"))...)
	}
	at = fldPath.Child("devices", "config")
	for i := range a.Devices.Config {
		c, at := &a.Devices.Config[i], at.Index(i)
		all := []v1.AllocationConfigSource{v1.AllocationConfigSourceClaim, v1.AllocationConfigSourceClass}
		if c.Source == "" {
			errs = append(errs, field.Required(at.Child("source"), ""))
		} else if !slices.Contains(all, c.Source) {
			errs = append(errs, field.NotSupported(at.Child("source"), c.Source, all))
		}
		errs = append(errs, validateRequestRefs(c.Requests, names, at.Child("requests"))...)
		errs = append(errs, validateConfiguration(&c.DeviceConfiguration, at)...)
	}
	return errs
}

func validateDeviceStatuses(s *v1.ResourceClaimStatus, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	allocated, seen := sets.New[string](), sets.New[string]()
	if s.Allocation != nil {
		for _, r := range s.Allocation.Devices.Results {
			allocated.Insert(deviceKey(r.Driver, r.Pool, r.Device, string(ptr.Deref(r.ShareID, ""))))
		}
	}
	for i, d := range s.Devices {
		at, key := fldPath.Index(i), deviceKey(d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, ""))
		if seen.Has(key) {
			errs = append(errs, field.Duplicate(at, key))
		}
		seen.Insert(key)
		if !allocated.Has(key) {
			errs = append(errs, field.Invalid(at, key, "must be an allocated device in the claim"))
		}
		errs = append(errs, atMost(len(d.Conditions), v1.AllocatedDeviceStatusMaxConditions, at.Child("conditions"))...)
		errs = append(errs, metav1validation.ValidateConditions(d.Conditions, at.Child("conditions"))...)
		if d.Data != nil && len(d.Data.Raw) > 0 {
			errs = append(errs, validateRaw(d.Data.Raw, at.Child("data"))...)
		}
		if n := d.NetworkData; n != nil {
			at := at.Child("networkData")
			if len(n.InterfaceName) > v1.NetworkDeviceDataInterfaceNameMaxLength {
				errs = append(errs, field.TooLong(at.Child("interfaceName"), "", v1.NetworkDeviceDataInterfaceNameMaxLength))
			}
			if len(n.HardwareAddress) > v1.NetworkDeviceDataHardwareAddressMaxLength {
				errs = append(errs, field.TooLong(at.Child("hardwareAddress"), "", v1.NetworkDeviceDataHardwareAddressMaxLength))
			}
			errs = append(errs, atMost(len(n.IPs), v1.NetworkDeviceDataMaxIPs, at.Child("ips"))...)
			for i, ip := range n.IPs {
				errs = append(errs, validation.IsValidInterfaceAddress(at.Child("ips").Index(i), ip)...)
			}
		}
	}
	return errs
}

func deviceKey(driver, pool, device, share string) string {
	key := driver + "/" + pool + "/" + device
	if share != "" {
		key += "/" + share
	}
	return key
}

func validateSlice(s *v1.ResourceSlice) field.ErrorList {
	at, spec := field.NewPath("spec"), &s.Spec
	errs := validateDriver(spec.Driver, at.Child("driver"))
	pool := at.Child("pool")
	errs = append(errs, validatePool(spec.Pool.Name, pool.Child("name"))...)
	if spec.Pool.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(pool.Child("resourceSliceCount"), spec.Pool.ResourceSliceCount, "must be greater than zero"))
	}
	if spec.Pool.Generation < 0 {
		errs = append(errs, field.Invalid(pool.Child("generation"), spec.Pool.Generation, "must be greater than or equal to zero"))
	}
	errs = append(errs, validateNodes(spec, at)...)
	if len(spec.SharedCounters) > 0 && len(spec.Devices) > 0 {
		errs = append(errs, field.Invalid(at, "", "only one of `sharedCounters` or `devices` is allowed"))
	}
	errs = append(errs, atMost(len(spec.SharedCounters), v1.ResourceSliceMaxCounterSets, at.Child("sharedCounters"))...)
	errs = append(errs, atMost(len(spec.Devices), maxDevices(spec), at.Child("devices"))...)
	seen := sets.New[string]()
	for i := range spec.Devices {
		d, at := &spec.Devices[i], at.Child("devices").Index(i)
		errs = append(errs, validateDevice(d, ptr.Deref(spec.PerDeviceNodeSelection, false), at)...)
		if seen.Has(d.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		seen.Insert(d.Name)
	}
	return errs
}

// maxDevices is lower where devices have taints or share counters.
func maxDevices(s *v1.ResourceSliceSpec) int {
	for _, d := range s.Devices {
		if len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 {
			return v1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	return v1.ResourceSliceMaxDevices
}

// validateNodes: there is one way in which a slice says where its devices are.
func validateNodes(s *v1.ResourceSliceSpec, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	var set []string
	if s.NodeName != nil {
		set = append(set, "`nodeName`")
		if *s.NodeName == "" {
			errs = append(errs, field.Invalid(fldPath.Child("nodeName"), *s.NodeName, "must be either unset or set to a non-empty string"))
		} else {
			errs = append(errs, invalid(fldPath.Child("nodeName"), *s.NodeName, apivalidation.NameIsDNSSubdomain(*s.NodeName, false))...)
		}
	}
	if s.NodeSelector != nil {
		set = append(set, "`nodeSelector`")
		if len(s.NodeSelector.NodeSelectorTerms) != 1 {
			errs = append(errs, field.Invalid(fldPath.Child("nodeSelector", "nodeSelectorTerms"), s.NodeSelector.NodeSelectorTerms, "must have exactly one node selector term"))
		}
	}
	for name, v := range map[string]*bool{"allNodes": s.AllNodes, "perDeviceNodeSelection": s.PerDeviceNodeSelection} {
		if v == nil {
			continue
		}
		if !*v {
			errs = append(errs, field.Invalid(fldPath.Child(name), *v, "must be either unset or set to true"))
		} else {
			set = append(set, "`"+name+"`")
		}
	}
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	slices.Sort(set)
	switch {
	case len(set) == 0:
		errs = append(errs, field.Required(fldPath, one))
	case len(set) > 1:
		errs = append(errs, field.Invalid(fldPath, "{"+strings.Join(set, ", ")+"}", one+", but multiple fields are set"))
	}
	return errs
}

func validateDevice(d *v1.Device, ownNodes bool, fldPath *field.Path) field.ErrorList {
	errs := validateLabel(d.Name, fldPath.Child("name"))
	if n := len(d.Attributes) + len(d.Capacity); n > v1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(fldPath, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", v1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	for name, a := range d.Attributes {
		at := fldPath.Child("attributes").Key(string(name))
		errs = append(errs, validateName(string(name), at)...)
		errs = append(errs, validateAttribute(&a, at)...)
	}
	for name := range d.Capacity {
		errs = append(errs, validateName(string(name), fldPath.Child("capacity").Key(string(name)))...)
	}
	errs = append(errs, atMost(len(d.Taints), v1.DeviceTaintsMaxLength, fldPath.Child("taints"))...)
	for i, t := range d.Taints {
		at := fldPath.Child("taints").Index(i)
		errs = append(errs, metav1validation.ValidateLabelName(t.Key, at.Child("key"))...)
		errs = append(errs, invalid(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
		if t.Effect == "" {
			errs = append(errs, field.Required(at.Child("effect"), ""))
		} else if !slices.Contains(effects, t.Effect) {
			errs = append(errs, field.NotSupported(at.Child("effect"), t.Effect, effects))
		}
	}
	n := 0
	for _, set := range []bool{d.NodeName != nil, d.NodeSelector != nil, d.AllNodes != nil} {
		if set {
			n++
		}
	}
	switch {
	case ownNodes && n == 0:
		errs = append(errs, field.Required(fldPath, "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true"))
	case ownNodes && n > 1:
		errs = append(errs, field.Invalid(fldPath, "", "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true"))
	case !ownNodes && n > 0:
		errs = append(errs, field.Invalid(fldPath, "", "may not be set unless `perDeviceNodeSelection` is set to true in the ResourceSlice"))
	}
	return errs
}

func validateAttribute(a *v1.DeviceAttribute, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	n := 0
	for _, set := range []bool{
		a.IntValue != nil, a.BoolValue != nil, a.StringValue != nil, a.VersionValue != nil,
		a.IntValues != nil, a.BoolValues != nil, a.StringValues != nil, a.VersionValues != nil,
	} {
		if set {
			n++
		}
	}
	switch {
	case n == 0:
		return field.ErrorList{field.Required(fldPath, "exactly one value must be specified")}
	case n > 1:
		return field.ErrorList{field.Invalid(fldPath, a, "exactly one value must be specified")}
	}
	text := func(v string, fldPath *field.Path) {
		if len(v) > v1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(fldPath, "", v1.DeviceAttributeMaxValueLength))
		}
	}
	semver := func(v string, fldPath *field.Path) {
		text(v, fldPath)
		if parsed, err := version.ParseSemantic(v); err != nil || strings.HasPrefix(v, "v") || parsed.String() == "" {
			errs = append(errs, field.Invalid(fldPath, v, "must be a string compatible with semver.org spec 2.0.0"))
		}
	}
	if a.StringValue != nil {
		text(*a.StringValue, fldPath.Child("string"))
	}
	if a.VersionValue != nil {
		semver(*a.VersionValue, fldPath.Child("version"))
	}
	for i, v := range a.StringValues {
		text(v, fldPath.Child("strings").Index(i))
	}
	for i, v := range a.VersionValues {
		semver(v, fldPath.Child("versions").Index(i))
	}
	return errs
}

func validateSliceUpdate(s, old *v1.ResourceSlice) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateSlice(s)
	errs = append(errs, apivalidation.ValidateImmutableField(s.Spec.Driver, old.Spec.Driver, at.Child("driver"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(s.Spec.Pool.Name, old.Spec.Pool.Name, at.Child("pool", "name"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(s.Spec.NodeName, old.Spec.NodeName, at.Child("nodeName"))...)
	return append(errs, apivalidation.ValidateImmutableField(s.Spec.AllNodes, old.Spec.AllNodes, at.Child("allNodes"))...)
}
