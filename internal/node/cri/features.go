package cri

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Features are the optional features that a runtime reports. One that reports
// none, as containerd before 2.0, has none.
type Features struct {
	// SupplementalGroupsPolicy reports whether the runtime enforces the policy
	// Strict (https://kep.k8s.io/3619).
	SupplementalGroupsPolicy bool
	// UserNamespacesHostNetwork reports whether a pod in the machine's network can
	// have a user namespace.
	UserNamespacesHostNetwork bool

	handlers map[string]*runtimeapi.RuntimeHandlerFeatures
}

// Features asks the runtime for them.
func (c *Client) Features(ctx context.Context) (*Features, error) {
	r, err := c.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, err
	}
	return FeaturesOf(r), nil
}

// FeaturesOf reads them from the runtime's status.
func FeaturesOf(r *runtimeapi.StatusResponse) *Features {
	f := &Features{
		SupplementalGroupsPolicy:  r.GetFeatures().GetSupplementalGroupsPolicy(),
		UserNamespacesHostNetwork: r.GetFeatures().GetUserNamespacesHostNetwork(),
		handlers:                  map[string]*runtimeapi.RuntimeHandlerFeatures{},
	}
	for _, h := range r.GetRuntimeHandlers() {
		f.handlers[h.Name] = h.GetFeatures()
	}
	return f
}

// UserNamespaces returns an error if pods of a runtime handler (empty is the
// default one) cannot have user namespaces.
func (f *Features) UserNamespaces(handler string) error {
	h, known := f.handlers[handler]
	if h.GetUserNamespaces() {
		return nil
	}
	msg := "can't set `spec.hostUsers: false`, runtime does not support user namespaces"
	if handler != "" {
		msg = fmt.Sprintf("can't set `spec.hostUsers: false`, RuntimeClass handler %q does not support user namespaces", handler)
	}
	if !known {
		return fmt.Errorf("%s: the handler %q is not known", msg, handler)
	}
	return fmt.Errorf("%s", msg)
}

// RecursiveReadOnly reports whether the handler makes a mount read-only with
// all that is mounted below it (https://kep.k8s.io/3857).
func (f *Features) RecursiveReadOnly(handler string) bool {
	return f.handlers[handler].GetRecursiveReadOnlyMounts()
}

// MountsImages reports whether the runtime mounts images into containers, which CRI
// has no feature of (https://kep.k8s.io/4639): all that have the field do, save for
// containerd before 2.1.
func (c *Client) MountsImages() bool { return c.atLeast(2, 1) }

// InjectsDevices reports whether the runtime gives containers the CDI devices that CRI
// names: containerd does from 2.0 on, before only where it is configured to.
func (c *Client) InjectsDevices() bool { return c.atLeast(2, 0) }

// atLeast reports whether the runtime is not containerd, or is one of that version.
func (c *Client) atLeast(major, minor uint) bool {
	if c.RuntimeName != "containerd" {
		return true
	}
	v, err := version.ParseGeneric(c.RuntimeVersion)
	return err == nil && v.AtLeast(version.MajorMinor(major, minor))
}
