package core

import (
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubectl/pkg/util/qos"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/api/row"
)

func pods() *api.Resource {
	r := api.Resource{ShortNames: []string{"po"}, Namespaced: true}
	r.Categories = []string{"all"}
	r.ValidateName = apivalidation.NameIsDNSSubdomain
	r.DeleteReturnsObject = true
	r.Columns = podColumns()
	r.FieldLabels = []string{"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
		"spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"}
	r.IndexedField = "spec.nodeName"
	podKind := v1.SchemeGroupVersion.WithKind
	r.Subresources = []api.Subresource{
		streamOf("attach", "PodAttachOptions"),
		created("binding", podKind("Binding")),
		created("eviction", schema.GroupVersionKind{Group: "policy", Version: "v1", Kind: "Eviction"}),
		streamOf("exec", "PodExecOptions"),
		{Name: "log", Kind: podKind("Pod"), Verbs: []string{"get"}, Options: &v1.PodLogOptions{}},
		streamOf("portforward", "PodPortForwardOptions"),
		proxyOf("PodProxyOptions"),
	}
	return row.New[v1.PodList](v1.SchemeGroupVersion, r, row.Kind[*v1.Pod]{
		Generation: true,
		Spec:       func(p *v1.Pod) any { return &p.Spec },
		Status:     func(p *v1.Pod) any { return &p.Status },
		Updates: map[string]row.Update[*v1.Pod]{
			"ephemeralcontainers": {Prepare: prepareEphemeral, Validate: podspec.ValidateEphemeralContainersUpdate},
			"resize":              {Prepare: prepareResize, Validate: podspec.ValidateResize},
		},
		GracePeriod: podGracePeriod,
		Default:     podspec.SetDefaultsPod,
		PrepareForCreate: func(p *v1.Pod) {
			p.Status = v1.PodStatus{Phase: v1.PodPending, QOSClass: qos.ComputePodQOS(p)}
			podspec.SelectOwnLabels(p)
		},
		Validate:       podspec.ValidatePod,
		ValidateUpdate: podspec.ValidatePodUpdate,
		PrepareStatusUpdate: func(p, old *v1.Pod) {
			// The class follows from the spec; a write of the status may leave it
			// out.
			if p.Status.QOSClass == "" {
				p.Status.QOSClass = old.Status.QOSClass
			}
			p.DeletionTimestamp, p.OwnerReferences = old.DeletionTimestamp, old.OwnerReferences
		},
		ValidateStatusUpdate: podspec.ValidatePodStatusUpdate,
		Warnings:             podspec.Warnings,
		// Pods are updated by programs, which do not read warnings.
		UpdateWarnings: func(_, _ *v1.Pod) []string { return nil },
		Fields:         podFields,
		Cells:          podCells,
		RowConditions:  podRowConditions,
	})
}

func podFields(p *v1.Pod) fields.Set {
	ip := p.Status.PodIP
	if ip == "" && len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             ip,
		"status.podIPs":            ip,
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

// podGracePeriod returns the grace period for a deletion: 0 for a pod that no
// node has or that has ended, as it has nothing to finish.
func podGracePeriod(p *v1.Pod, wanted *int64) int64 {
	period := int64(0)
	switch {
	case wanted != nil:
		period = *wanted
	case p.Spec.TerminationGracePeriodSeconds != nil:
		period = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.Spec.NodeName == "" || p.Status.Phase == v1.PodFailed || p.Status.Phase == v1.PodSucceeded {
		return 0
	}
	if period < 0 {
		return 1
	}
	return period
}

// prepareEphemeral lets only the ephemeral containers through.
func prepareEphemeral(p, old *v1.Pod) {
	wanted := p.Spec.EphemeralContainers
	restore(p, old)
	p.Spec.EphemeralContainers = wanted
	advance(p, old)
}

// prepareResize lets only the containers' resources and resize policies through.
func prepareResize(p, old *v1.Pod) {
	wanted := p.Spec
	restore(p, old)
	merge := func(to, from []v1.Container) {
		for i := range to {
			for j := range from {
				if to[i].Name == from[j].Name {
					to[i].Resources, to[i].ResizePolicy = from[j].Resources, from[j].ResizePolicy
				}
			}
		}
	}
	merge(p.Spec.Containers, wanted.Containers)
	merge(p.Spec.InitContainers, wanted.InitContainers)
	if p.Spec.Resources != nil && wanted.Resources != nil {
		p.Spec.Resources = wanted.Resources
	}
	advance(p, old)
}

// restore makes p a copy of old, except for the version that it claims to change and
// the owners of its fields.
func restore(p, old *v1.Pod) {
	version, owners := p.ResourceVersion, p.ManagedFields
	old.DeepCopyInto(p)
	p.ResourceVersion, p.ManagedFields = version, owners
}

func advance(p, old *v1.Pod) {
	if !equality.Semantic.DeepEqual(p.Spec, old.Spec) {
		p.Generation = old.Generation + 1
	}
}
