package report

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestTellFeatures(t *testing.T) {
	var s v1.NodeStatus
	tellFeatures(&s, &runtimeapi.StatusResponse{
		Features:        &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, UserNamespacesHostNetwork: true},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Name: "runc", Features: &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: true}}, {Name: ""}},
	})
	if len(s.RuntimeHandlers) != 2 || s.RuntimeHandlers[0].Name != "" || !*s.RuntimeHandlers[1].Features.UserNamespaces || *s.RuntimeHandlers[1].Features.RecursiveReadOnlyMounts {
		t.Errorf("handlers: %+v", s.RuntimeHandlers)
	}
	if !*s.Features.SupplementalGroupsPolicy || !slices.Equal(s.DeclaredFeatures, []string{"RestartAllContainersOnContainerExits", "UserNamespacesHostNetworkSupport"}) {
		t.Errorf("features: %+v, %v", s.Features, s.DeclaredFeatures)
	}
	s = v1.NodeStatus{}
	if tellFeatures(&s, nil); *s.Features.SupplementalGroupsPolicy || len(s.RuntimeHandlers) != 0 {
		t.Errorf("a runtime that says nothing: %+v", s)
	}
}
