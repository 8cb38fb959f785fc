package podspec

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checker checks one pod spec.
type checker struct {
	spec *v1.PodSpec
	// pod is the metadata of the pod, nil in a template.
	pod *metav1.ObjectMeta
	// volumes are the good ones by name, for the mounts.
	volumes map[string]*v1.VolumeSource
	// claims are the names of the pod's resource claims.
	claims sets.Set[string]
}

// podName is empty where it is not yet known.
func (c *checker) podName() string {
	if c.pod == nil {
		return ""
	}
	return c.pod.Name
}

// hostUsers reports whether the pod shares the user namespace of its host.
func (c *checker) hostUsers() bool { return c.spec.HostUsers == nil || *c.spec.HostUsers }

// The helpers below take the path of what holds the value and the names below
// it, so that a path is made only for an error.

// required checks that value is not empty.
func required(value string, at *field.Path, name string, more ...string) field.ErrorList {
	if value != "" {
		return nil
	}
	return field.ErrorList{field.Required(at.Child(name, more...), "")}
}

// oneOf checks that value is not empty, and is one of allowed.
func oneOf[T ~string](value T, allowed []T, at *field.Path, name string, more ...string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at.Child(name, more...), "")}
	}
	return among(value, allowed, at, name, more...)
}

// among checks that value is one of allowed.
func among[T ~string](value T, allowed []T, at *field.Path, name string, more ...string) field.ErrorList {
	if slices.Contains(allowed, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at.Child(name, more...), value, allowed)}
}

// conforms returns an error for each message of check about value.
func conforms(value string, check func(string) []string, at *field.Path, name string, more ...string) (errs field.ErrorList) {
	for _, msg := range check(value) {
		errs = append(errs, field.Invalid(at.Child(name, more...), value, msg))
	}
	return errs
}

func nonnegative(value int64, at *field.Path, name string) field.ErrorList {
	if value >= 0 {
		return nil
	}
	return apivalidation.ValidateNonnegativeField(value, at.Child(name))
}

func within(id int64, check func(int64) []string, at *field.Path, name string) (errs field.ErrorList) {
	for _, msg := range check(id) {
		errs = append(errs, field.Invalid(at.Child(name), id, msg))
	}
	return errs
}

// list is one of the lists of a pod's containers, and the name of its field.
type list struct {
	name       string
	containers []v1.Container
}

// lists returns the containers of a pod, without the ephemeral ones.
func lists(s *v1.PodSpec) [2]list {
	return [2]list{{"initContainers", s.InitContainers}, {"containers", s.Containers}}
}
