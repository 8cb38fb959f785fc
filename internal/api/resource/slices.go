package resource

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	v1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
)

const (
	maxKeyLength = v1.DeviceMaxDomainLength + 1 + v1.DeviceMaxIDLength
	// maxValidValues bounds the amounts of a capacity that may be asked for.
	maxValidValues = 10
)

func validateSlice(s *v1.ResourceSlice) field.ErrorList {
	return validateSliceSpec(&s.Spec, nil, field.NewPath("spec"))
}

func validateSliceUpdate(s, old *v1.ResourceSlice) field.ErrorList {
	return validateSliceSpec(&s.Spec, &old.Spec, field.NewPath("spec"))
}

func validateSliceSpec(s, old *v1.ResourceSliceSpec, fldPath *field.Path) field.ErrorList {
	errs := validateDriver(s.Driver, fldPath.Child("driver"))
	pool := fldPath.Child("pool")
	errs = append(errs, validatePool(s.Pool.Name, pool.Child("name"))...)
	if s.Pool.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(pool.Child("resourceSliceCount"), s.Pool.ResourceSliceCount, "must be greater than zero"))
	}
	if s.Pool.Generation < 0 {
		errs = append(errs, field.Invalid(pool.Child("generation"), s.Pool.Generation, "must be greater than or equal to zero"))
	}
	if old != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(s.Pool.Name, old.Pool.Name, pool.Child("name"))...)
		errs = append(errs, apivalidation.ValidateImmutableField(s.Driver, old.Driver, fldPath.Child("driver"))...)
		errs = append(errs, apivalidation.ValidateImmutableField(s.NodeName, old.NodeName, fldPath.Child("nodeName"))...)
	}
	errs = append(errs, validateNodes(s, fldPath)...)
	if s.SharedCounters != nil && s.Devices != nil {
		errs = append(errs, field.Invalid(fldPath, "", "only one of `sharedCounters` or `devices` is allowed"))
	}
	devices, most := fldPath.Child("devices"), maxDevices(s)
	errs = append(errs, few(s.Devices, most, devices, func(d *v1.Device, at *field.Path) field.ErrorList {
		return validateDevice(d, deviceOf(old, d.Name), ptr.Deref(s.PerDeviceNodeSelection, false), at)
	})...)
	errs = append(errs, unique(s.Devices, most, devices, func(d *v1.Device) string { return d.Name })...)
	errs = append(errs, each(s.SharedCounters, v1.ResourceSliceMaxCounterSets, fldPath.Child("sharedCounters"), func(c *v1.CounterSet, at *field.Path) field.ErrorList {
		return validateCounters(c.Counters, v1.ResourceSliceMaxCountersPerCounterSet, at.Child("counters"))
	})...)
	return errs
}

func deviceOf(s *v1.ResourceSliceSpec, name string) *v1.Device {
	if s == nil {
		return nil
	}
	if i := slices.IndexFunc(s.Devices, func(d v1.Device) bool { return d.Name == name }); i >= 0 {
		return &s.Devices[i]
	}
	return nil
}

func validateCounters(m map[string]v1.Counter, most int, fldPath *field.Path) field.ErrorList {
	if n := len(m); n > most {
		return field.ErrorList{field.TooMany(fldPath, n, most)}
	}
	return nil
}

// shortened leaves out the middle of what is too long to be a key.
func shortened(key string, most int) string {
	if len(key) <= most {
		return key
	}
	const gap = "..."
	rest := most - len(gap)
	return key[:(rest+1)/2] + gap + key[len(key)-rest/2:]
}

// maxDevices is lower where devices have taints, share counters or have lists
// for attributes.
func maxDevices(s *v1.ResourceSliceSpec) int {
	for _, d := range s.Devices {
		if len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 || hasLists(d.Attributes) {
			return v1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	return v1.ResourceSliceMaxDevices
}

// places gathers the ways in which it is said where devices are.
type places struct {
	errs field.ErrorList
	set  []string
}

func (p *places) name(name *string, empty string, fldPath *field.Path) {
	switch {
	case name == nil:
	case *name == "":
		p.errs = append(p.errs, field.Invalid(fldPath, *name, empty))
	default:
		p.set = append(p.set, "`nodeName`")
		p.errs = append(p.errs, invalid(fldPath, *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
	}
}

func (p *places) flag(v *bool, name string, fldPath *field.Path) {
	switch {
	case v == nil:
	case *v:
		p.set = append(p.set, "`"+name+"`")
	default:
		p.errs = append(p.errs, field.Invalid(fldPath.Child(name), *v, "must be either unset or set to true"))
	}
}

func (p *places) one(fldPath *field.Path, none, many string) field.ErrorList {
	switch len(p.set) {
	case 0:
		return append(p.errs, field.Required(fldPath, none))
	case 1:
		return p.errs
	}
	return append(p.errs, field.Invalid(fldPath, "{"+strings.Join(p.set, ", ")+"}", many))
}

func validateNodes(s *v1.ResourceSliceSpec, fldPath *field.Path) field.ErrorList {
	var p places
	p.name(s.NodeName, "must be either unset or set to a non-empty string", fldPath.Child("nodeName"))
	if s.NodeSelector != nil {
		at := fldPath.Child("nodeSelector")
		p.set = append(p.set, "`nodeSelector`")
		p.errs = append(p.errs, podspec.ValidateNodeSelector(s.NodeSelector, at)...)
		if len(s.NodeSelector.NodeSelectorTerms) != 1 {
			p.errs = append(p.errs, field.Invalid(at.Child("nodeSelectorTerms"), s.NodeSelector.NodeSelectorTerms, "must have exactly one node selector term"))
		}
	}
	p.flag(s.AllNodes, "allNodes", fldPath)
	p.flag(s.PerDeviceNodeSelection, "perDeviceNodeSelection", fldPath)
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	return p.one(fldPath, one, one+", but multiple fields are set")
}

func validateDevice(d, old *v1.Device, ownNodes bool, fldPath *field.Path) field.ErrorList {
	errs := validateLabel(d.Name, fldPath.Child("name"))
	if n := len(d.Attributes) + len(d.Capacity); n > v1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(fldPath, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", v1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
		a, at := d.Attributes[name], fldPath.Child("attributes").Key(shortened(string(name), maxKeyLength))
		errs = append(errs, validateName(string(name), at)...)
		errs = append(errs, validateAttribute(&a, at)...)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Capacity)) {
		c, at := d.Capacity[name], fldPath.Child("capacity").Key(shortened(string(name), maxKeyLength))
		errs = append(errs, validateName(string(name), at)...)
		switch policy := c.RequestPolicy; {
		case policy == nil:
		case !ptr.Deref(d.AllowMultipleAllocations, false):
			errs = append(errs, field.Forbidden(at.Child("requestPolicy"), "allowMultipleAllocations must be true"))
		default:
			errs = append(errs, validateRequestPolicy(policy, c.Value, at.Child("requestPolicy"))...)
		}
	}
	if old == nil || !equality.Semantic.DeepEqual(d.Taints, old.Taints) {
		errs = append(errs, few(d.Taints, v1.DeviceTaintsMaxLength, fldPath.Child("taints"), validateTaint)...)
	}
	errs = append(errs, each(d.ConsumesCounters, v1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, fldPath.Child("consumesCounters"), func(c *v1.DeviceCounterConsumption, at *field.Path) field.ErrorList {
		return validateCounters(c.Counters, v1.ResourceSliceMaxCountersPerDeviceCounterConsumption, at.Child("counters"))
	})...)
	if ownNodes {
		var p places
		p.name(d.NodeName, "must not be empty", fldPath.Child("nodeName"))
		if d.NodeSelector != nil {
			p.set = append(p.set, "`nodeSelector`")
			p.errs = append(p.errs, podspec.ValidateNodeSelector(d.NodeSelector, fldPath.Child("nodeSelector"))...)
		}
		p.flag(d.AllNodes, "allNodes", fldPath)
		const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
		errs = append(errs, p.one(fldPath, one, one)...)
	} else if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
		errs = append(errs, field.Invalid(fldPath, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"))
	}
	return append(errs, validateBinding(d.BindingConditions, d.BindingFailureConditions, fldPath)...)
}

func validateTaint(t *v1.DeviceTaint, fldPath *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabelName(t.Key, fldPath.Child("key"))
	return append(errs, invalid(fldPath.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
}

// validateBinding checks the conditions that a device is waited for to have,
// and those by which it is given up.
func validateBinding(conditions, failures []string, fldPath *field.Path) field.ErrorList {
	good, bad := fldPath.Child("bindingConditions"), fldPath.Child("bindingFailureConditions")
	name := func(c *string, at *field.Path) field.ErrorList { return metav1validation.ValidateLabelName(*c, at) }
	errs := each(conditions, v1.BindingConditionsMaxSize, good, name)
	errs = append(errs, each(failures, v1.BindingFailureConditionsMaxSize, bad, name)...)
	errs = append(errs, unique(conditions, len(conditions), good, itself)...)
	errs = append(errs, unique(failures, len(failures), bad, itself)...)
	all := sets.New(conditions...)
	for i, c := range failures {
		if all.Has(c) {
			errs = append(errs, field.Invalid(bad.Index(i), c, "bindingFailureConditions must not overlap with bindingConditions"))
		}
	}
	switch n, m := len(conditions), len(failures); {
	case n == 0 && m > 0:
		errs = append(errs, field.Invalid(good, conditions, "bindingConditions are required to use bindingFailureConditions"))
	case m == 0 && n > 0:
		errs = append(errs, field.Invalid(bad, failures, "bindingFailureConditions are required to use bindingConditions"))
	}
	return errs
}

// semver is a version by semver.org 2.0.0.
var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

func validateAttribute(a *v1.DeviceAttribute, fldPath *field.Path) (errs field.ErrorList) {
	text := func(v string, fldPath *field.Path) {
		if len(v) > v1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(fldPath, "", v1.DeviceAttributeMaxValueLength))
		}
	}
	versioned := func(v string, fldPath *field.Path) {
		if !semver.MatchString(v) {
			errs = append(errs, field.Invalid(fldPath, v, "must be a string compatible with semver.org spec 2.0.0"))
		}
		text(v, fldPath)
	}
	if a.StringValue != nil {
		text(*a.StringValue, fldPath.Child("string"))
	}
	if a.VersionValue != nil {
		versioned(*a.VersionValue, fldPath.Child("version"))
	}
	for i, v := range a.StringValues {
		text(v, fldPath.Child("strings").Index(i))
	}
	for i, v := range a.VersionValues {
		versioned(v, fldPath.Child("versions").Index(i))
	}
	return errs
}

// validateRequestPolicy checks how much of a capacity may be asked for.
func validateRequestPolicy(p *v1.CapacityRequestPolicy, capacity resource.Quantity, fldPath *field.Path) field.ErrorList {
	switch {
	case len(p.ValidValues) > 0 && p.ValidRange != nil:
		return field.ErrorList{field.Forbidden(fldPath, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)}
	case len(p.ValidValues) > 0 && p.Default == nil:
		return field.ErrorList{field.Required(fldPath.Child("default"), "required when validValues is defined")}
	case len(p.ValidValues) > 0:
		return validateValues(p.ValidValues, *p.Default, capacity, fldPath.Child("validValues"))
	case p.ValidRange != nil && p.Default == nil:
		return field.ErrorList{field.Required(fldPath.Child("default"), "required when validRange is defined")}
	case p.ValidRange != nil:
		return validateRange(p.ValidRange, *p.Default, capacity, fldPath.Child("validRange"))
	}
	return nil
}

func validateValues(values []resource.Quantity, preset, capacity resource.Quantity, fldPath *field.Path) (errs field.ErrorList) {
	for i := 1; i < len(values); i++ {
		if values[i-1].Cmp(values[i]) > 0 {
			errs = append(errs, field.Invalid(fldPath.Index(i), values[i].String(), "values must be sorted in ascending order"))
		}
	}
	errs = append(errs, few(values, maxValidValues, fldPath, func(v *resource.Quantity, at *field.Path) field.ErrorList {
		if v.Cmp(capacity) > 0 {
			return field.ErrorList{field.Invalid(at, v.String(), fmt.Sprintf("option is larger than capacity value: %s", capacity.String()))}
		}
		return nil
	})...)
	errs = append(errs, unique(values, maxValidValues, fldPath, func(v *resource.Quantity) string { return fmt.Sprint(v.Value()) })...)
	if len(values) > maxValidValues || !slices.ContainsFunc(values, func(v resource.Quantity) bool { return v.Cmp(preset) == 0 }) {
		errs = append(errs, field.Invalid(fldPath, preset.String(), "default value is not valid according to the requestPolicy"))
	}
	return errs
}

func validateRange(r *v1.CapacityRequestPolicyRange, preset, capacity resource.Quantity, fldPath *field.Path) (errs field.ErrorList) {
	refuse := func(name string, value *resource.Quantity, format string, args ...any) {
		errs = append(errs, field.Invalid(fldPath.Child(name), value.String(), fmt.Sprintf(format, args...)))
	}
	if r.Min == nil {
		return field.ErrorList{field.Required(fldPath.Child("min"), "required when validRange is defined")}
	}
	if r.Min.Cmp(capacity) > 0 {
		refuse("min", r.Min, "min is larger than capacity value: %s", capacity.String())
	}
	if preset.Cmp(*r.Min) < 0 {
		refuse("min", &preset, "default is less than min: %s", r.Min.String())
	}
	if r.Max != nil {
		if r.Min.Cmp(*r.Max) > 0 {
			refuse("max", r.Min, "min is larger than max: %s", r.Max.String())
		}
		if r.Max.Cmp(capacity) > 0 {
			refuse("max", r.Max, "max is larger than capacity value: %s", capacity.String())
		}
		if preset.Cmp(*r.Max) > 0 {
			refuse("max", &preset, "default is more than max: %s", r.Max.String())
		}
	}
	if r.Step == nil {
		return errs
	}
	next := r.Min.DeepCopy()
	next.Add(*r.Step)
	if next.Cmp(capacity) > 0 {
		refuse("step", r.Step, "one step %s is larger than capacity value: %s", next.String(), capacity.String())
	}
	number := (*resource.Quantity).Value
	if inThousandths(r.Min, r.Max, r.Step) {
		number = (*resource.Quantity).MilliValue
	}
	stepped := func(v *resource.Quantity) {
		if step := number(r.Step); step == 0 || (number(v)-number(r.Min))%step != 0 {
			refuse("step", v, "value is not a multiple of a given step (%s) from (%s)", r.Step.String(), r.Min.String())
		}
	}
	stepped(&preset)
	if r.Max != nil {
		stepped(r.Max)
	}
	return errs
}

// inThousandths reports whether all of a range can be counted in thousandths, as
// the ranges of fractional capacities are.
func inThousandths(list ...*resource.Quantity) bool {
	for _, q := range list {
		if q != nil && q.CmpInt64(math.MaxInt64/1000) > 0 {
			return false
		}
	}
	return true
}
