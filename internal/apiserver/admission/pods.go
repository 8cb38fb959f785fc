package admission

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
	"k8s.io/utils/ptr"
)

var podResource = v1.Resource("pods")

// newPod gives the pod that is being created, or nil.
func newPod(a admission.Attributes) *v1.Pod {
	if a.GetResource().GroupResource() != podResource || a.GetSubresource() != "" || a.GetOperation() != admission.Create {
		return nil
	}
	pod, _ := a.GetObject().(*v1.Pod)
	return pod
}

// DefaultTolerationSeconds lets pods stay for a while, by default five minutes, on
// a node that is not ready or not reachable.
type DefaultTolerationSeconds struct {
	*admission.Handler
	stay []v1.Toleration
}

// NewDefaultTolerationSeconds makes the plug-in; nil stands for five minutes.
func NewDefaultTolerationSeconds(notReady, unreachable *int64) DefaultTolerationSeconds {
	d := DefaultTolerationSeconds{Handler: admission.NewHandler(admission.Create, admission.Update)}
	for _, t := range []struct {
		key     string
		seconds *int64
	}{{v1.TaintNodeNotReady, notReady}, {v1.TaintNodeUnreachable, unreachable}} {
		d.stay = append(d.stay, v1.Toleration{Key: t.key, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute, TolerationSeconds: ptr.To(ptr.Deref(t.seconds, 300))})
	}
	return d
}

// Admit implements admission.MutationInterface.
func (d DefaultTolerationSeconds) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != podResource || a.GetSubresource() != "" {
		return nil
	}
	pod, ok := a.GetObject().(*v1.Pod)
	if !ok {
		return nil
	}
	for _, stay := range d.stay {
		tolerated := slices.ContainsFunc(pod.Spec.Tolerations, func(t v1.Toleration) bool {
			return (t.Key == stay.Key || t.Key == "") && (t.Effect == v1.TaintEffectNoExecute || t.Effect == "")
		})
		if !tolerated {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, *stay.DeepCopy())
		}
	}
	return nil
}

// Priority gives pods the priority of their class.
type Priority struct {
	*admission.Handler
	Classes schedulinglisters.PriorityClassLister
}

// NewPriority makes the plug-in.
func NewPriority(classes schedulinglisters.PriorityClassLister) *Priority {
	return &Priority{admission.NewHandler(admission.Create, admission.Update), classes}
}

// Admit implements admission.MutationInterface.
func (p *Priority) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != podResource || a.GetSubresource() != "" {
		return nil
	}
	pod, ok := a.GetObject().(*v1.Pod)
	if !ok {
		return nil
	}
	if a.GetOperation() == admission.Update {
		if old, ok := a.GetOldObject().(*v1.Pod); ok && pod.Spec.Priority == nil {
			pod.Spec.Priority, pod.Spec.PreemptionPolicy = old.Spec.Priority, old.Spec.PreemptionPolicy
		}
		return nil
	}
	name, value, policy := pod.Spec.PriorityClassName, int32(0), ptr.To(v1.PreemptLowerPriority)
	if name == "" {
		class, err := p.global()
		if err != nil {
			return err
		}
		if class != nil {
			name, value = class.Name, class.Value
			if class.PreemptionPolicy != nil {
				policy = class.PreemptionPolicy
			}
		}
	} else {
		class, err := p.Classes.Get(name)
		if apierrors.IsNotFound(err) {
			return admission.NewForbidden(a, fmt.Errorf("no PriorityClass with name %v was found", name))
		}
		if err != nil {
			return err
		}
		value = class.Value
		if class.PreemptionPolicy != nil {
			policy = class.PreemptionPolicy
		}
	}
	if pod.Spec.Priority != nil && *pod.Spec.Priority != value {
		return admission.NewForbidden(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *pod.Spec.Priority, value))
	}
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy != *policy {
		return admission.NewForbidden(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *pod.Spec.PreemptionPolicy, *policy))
	}
	pod.Spec.PriorityClassName, pod.Spec.Priority, pod.Spec.PreemptionPolicy = name, &value, policy
	return nil
}

// global is the default class of the lowest value.
func (p *Priority) global() (*schedulingv1.PriorityClass, error) {
	all, err := p.Classes.List(everything)
	if err != nil {
		return nil, err
	}
	var out *schedulingv1.PriorityClass
	for _, c := range all {
		if c.GlobalDefault && (out == nil || c.Value < out.Value) {
			out = c
		}
	}
	return out, nil
}

// ServiceAccounts waits for and reads service accounts.
type ServiceAccounts interface {
	// ServiceAccount gives the account as it is now; where a default one is
	// only being made, it waits for it a moment.
	ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error)
}

// ServiceAccount gives pods an account, its pull secrets and its token.
type ServiceAccount struct {
	*admission.Handler
	Accounts ServiceAccounts
}

// NewServiceAccount makes the plug-in.
func NewServiceAccount(accounts ServiceAccounts) *ServiceAccount {
	return &ServiceAccount{admission.NewHandler(admission.Create), accounts}
}

const (
	mirrorAnnotation = "kubernetes.io/config.mirror"
	tokenPath        = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenLife        = 3607 // seconds, upstream's
)

// Admit implements admission.MutationInterface.
func (s *ServiceAccount) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod := newPod(a)
	if pod == nil {
		return nil
	}
	if _, mirror := pod.Annotations[mirrorAnnotation]; mirror {
		return s.mirror(a, pod)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = "default"
	}
	sa, err := s.Accounts.ServiceAccount(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	mount := true
	if sa.AutomountServiceAccountToken != nil {
		mount = *sa.AutomountServiceAccountToken
	}
	if pod.Spec.AutomountServiceAccountToken != nil {
		mount = *pod.Spec.AutomountServiceAccountToken
	}
	if mount {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		for _, r := range sa.ImagePullSecrets {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, v1.LocalObjectReference{Name: r.Name})
		}
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	return nil
}

// mirror checks a pod that stands for one in a node's own folder.
func (s *ServiceAccount) mirror(a admission.Attributes, pod *v1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return admission.NewForbidden(a, fmt.Errorf("a mirror pod may not reference service accounts"))
	}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Secret != nil || v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(p v1.VolumeProjection) bool { return p.ServiceAccountToken != nil || p.Secret != nil }) {
			return admission.NewForbidden(a, fmt.Errorf("a mirror pod may not reference secrets"))
		}
	}
	return nil
}

// mountToken adds the volume with the token, the CA and the namespace, where a
// container has nothing at its path.
func mountToken(pod *v1.Pod) {
	name := ""
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; len(v.Name) > 16 && v.Name[:16] == "kube-api-access-" {
			name = v.Name
		}
	}
	add := name == ""
	if add {
		name = "kube-api-access-" + rand.String(5)
	}
	needed := false
	each := func(cs []v1.Container) {
		for i := range cs {
			if slices.ContainsFunc(cs[i].VolumeMounts, func(m v1.VolumeMount) bool { return m.MountPath == tokenPath }) {
				continue
			}
			cs[i].VolumeMounts = append(cs[i].VolumeMounts, v1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenPath})
			needed = true
		}
	}
	each(pod.Spec.InitContainers)
	each(pod.Spec.Containers)
	if !needed || !add {
		return
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, v1.Volume{Name: name, VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{
		DefaultMode: ptr.To(v1.ProjectedVolumeSourceDefaultMode),
		Sources: []v1.VolumeProjection{
			{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](tokenLife)}},
			{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []v1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
			{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
		}}}})
}

// LimitRanger fills in and enforces the limits of a namespace.
type LimitRanger struct {
	*admission.Handler
	Ranges corelisters.LimitRangeLister
}

// NewLimitRanger makes the plug-in.
func NewLimitRanger(l corelisters.LimitRangeLister) *LimitRanger {
	return &LimitRanger{admission.NewHandler(admission.Create, admission.Update), l}
}
