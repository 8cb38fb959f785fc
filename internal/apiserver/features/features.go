// Package features has the feature gates of the API server that can be switched.
// It imports nothing of this module.
package features

import "slices"

// Gates are feature gates by their name; those that are not there are at their
// default.
type Gates map[string]bool

// The gates that can be switched: all are on by default in v1.37.
const (
	AllowUnsafeMalformedObjectDeletion = "AllowUnsafeMalformedObjectDeletion"
	ConstrainedImpersonation           = "ConstrainedImpersonation"
	ComponentStatusz                   = "ComponentStatusz"
	ComponentFlagz                     = "ComponentFlagz"
)

var switchable = []string{AllowUnsafeMalformedObjectDeletion, ComponentFlagz, ComponentStatusz, ConstrainedImpersonation}

// Switchable returns the names of the gates that can be switched.
func Switchable() []string { return slices.Clone(switchable) }

// Enabled reports whether a gate is on.
func (g Gates) Enabled(name string) bool {
	on, given := g[name]
	return on || !given
}
