package row

import "k8s.io/apimachinery/pkg/api/validation/path"

// ValidatePathSegment wants a name that can be a segment of a URL's path, as
// "system:node" can: a ValidateName for kinds whose names are no domains.
func ValidatePathSegment(name string, prefix bool) []string {
	if prefix {
		return path.IsValidPathSegmentPrefix(name)
	}
	return path.IsValidPathSegmentName(name)
}
