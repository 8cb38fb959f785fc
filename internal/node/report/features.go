package report

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/restartallcontainers"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/usernamespaceshostnetwork"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// tellFeatures sets the runtime's features in the node's status, for each of its
// handlers, and the declared features of v1.37 (https://kep.k8s.io/5328).
func tellFeatures(out *v1.NodeStatus, r *runtimeapi.StatusResponse) {
	for _, h := range r.GetRuntimeHandlers() {
		out.RuntimeHandlers = append(out.RuntimeHandlers, v1.NodeRuntimeHandler{Name: h.Name, Features: &v1.NodeRuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: ptr.To(h.GetFeatures().GetRecursiveReadOnlyMounts()), UserNamespaces: ptr.To(h.GetFeatures().GetUserNamespaces()),
		}})
	}
	slices.SortFunc(out.RuntimeHandlers, func(a, b v1.NodeRuntimeHandler) int { return strings.Compare(a.Name, b.Name) })
	out.Features = &v1.NodeFeatures{SupplementalGroupsPolicy: ptr.To(r.GetFeatures().GetSupplementalGroupsPolicy())}
	out.DeclaredFeatures = []string{restartallcontainers.RestartAllContainersOnContainerExits}
	if r.GetFeatures().GetUserNamespacesHostNetwork() {
		out.DeclaredFeatures = append(out.DeclaredFeatures, usernamespaceshostnetwork.UserNamespacesHostNetworkSupport)
	}
}
