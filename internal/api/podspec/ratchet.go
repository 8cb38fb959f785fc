package podspec

import "k8s.io/apimachinery/pkg/util/validation/field"

// Ratchet returns the errors of an object after an update that are not errors of
// the object before it as well: an object that was stored under weaker rules can
// still be changed in its other parts.
func Ratchet(is field.ErrorList, was func() field.ErrorList) field.ErrorList {
	if len(is) == 0 {
		return nil
	}
	known := map[string]bool{}
	for _, e := range was() {
		known[e.Error()] = true
	}
	var errs field.ErrorList
	for _, e := range is {
		if !known[e.Error()] {
			errs = append(errs, e)
		}
	}
	return errs
}
