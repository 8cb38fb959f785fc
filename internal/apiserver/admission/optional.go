package admission

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/yaml"
)

// What is here is off unless it is asked for.

var everyOperation = []admission.Operation{admission.Create, admission.Update, admission.Delete, admission.Connect}

type alwaysAdmit struct{ *admission.Handler }

func newAlwaysAdmit() *alwaysAdmit { return &alwaysAdmit{admission.NewHandler(everyOperation...)} }

// Validate implements admission.ValidationInterface.
func (*alwaysAdmit) Validate(context.Context, admission.Attributes, admission.ObjectInterfaces) error {
	return nil
}

type alwaysDeny struct{ *admission.Handler }

func newAlwaysDeny() *alwaysDeny { return &alwaysDeny{admission.NewHandler(everyOperation...)} }

func (*alwaysDeny) deny(a admission.Attributes) error {
	return admission.NewForbidden(a, errors.New("admission control is denying all modifications"))
}

// Admit implements admission.MutationInterface.
func (d *alwaysDeny) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return d.deny(a)
}

// Validate implements admission.ValidationInterface.
func (d *alwaysDeny) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return d.deny(a)
}

func inNamespace(a admission.Attributes) bool {
	return a.GetNamespace() != "" && a.GetKind().GroupKind() != v1.SchemeGroupVersion.WithKind("Namespace").GroupKind()
}

// namespaceExists refuses what goes to a namespace that is not there.
type namespaceExists struct {
	*admission.Handler
	get Namespaces
}

func newNamespaceExists(e *Environment) *namespaceExists {
	return &namespaceExists{admission.NewHandler(admission.Create, admission.Update, admission.Delete), e.Namespaces}
}

// Validate implements admission.ValidationInterface.
func (n *namespaceExists) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !inNamespace(a) {
		return nil
	}
	_, err := n.get(ctx, a.GetNamespace())
	return err
}

// namespaceAutoProvision makes the namespace that an object is created in.
type namespaceAutoProvision struct {
	*admission.Handler
	e *Environment
}

func newNamespaceAutoProvision(e *Environment) *namespaceAutoProvision {
	return &namespaceAutoProvision{admission.NewHandler(admission.Create), e}
}

// Admit implements admission.MutationInterface.
func (n *namespaceAutoProvision) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.IsDryRun() || !inNamespace(a) {
		return nil
	}
	_, err := n.e.Namespaces(ctx, a.GetNamespace())
	if !apierrors.IsNotFound(err) {
		return err
	}
	_, err = n.e.Client().CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.GetNamespace()}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// antiAffinity lets pods keep others off their node, but not off more.
type antiAffinity struct{ *admission.Handler }

func newAntiAffinity() *antiAffinity {
	return &antiAffinity{admission.NewHandler(admission.Create, admission.Update)}
}

// Validate implements admission.ValidationInterface.
func (*antiAffinity) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := a.GetObject().(*v1.Pod)
	if !ok || a.GetSubresource() != "" || pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	for _, t := range pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if t.TopologyKey != v1.LabelHostname {
			return apierrors.NewForbidden(podResource, pod.Name, fmt.Errorf("affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey %v but only key %v is allowed", t.TopologyKey, v1.LabelHostname))
		}
	}
	return nil
}

// containersOf gives every container of a pod, of every kind.
func containersOf(pod *v1.Pod) (out []*v1.Container) {
	for i := range pod.Spec.InitContainers {
		out = append(out, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		out = append(out, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		out = append(out, (*v1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return out
}

// alwaysPull has every image pulled with the pod's own credentials.
type alwaysPull struct{ *admission.Handler }

func newAlwaysPull() *alwaysPull {
	return &alwaysPull{admission.NewHandler(admission.Create, admission.Update)}
}

func pulls(a admission.Attributes) []*v1.Container {
	pod, ok := a.GetObject().(*v1.Pod)
	if !ok || a.GetSubresource() != "" && a.GetSubresource() != "ephemeralcontainers" {
		return nil
	}
	all := containersOf(pod)
	old, ok := a.GetOldObject().(*v1.Pod)
	if !ok {
		return all
	}
	// An update that brings no new image changes nothing.
	images := map[string]bool{}
	for _, c := range containersOf(old) {
		images[c.Image] = true
	}
	if !slices.ContainsFunc(all, func(c *v1.Container) bool { return !images[c.Image] }) {
		return nil
	}
	return all
}

// Admit implements admission.MutationInterface.
func (*alwaysPull) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	for _, c := range pulls(a) {
		c.ImagePullPolicy = v1.PullAlways
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (*alwaysPull) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	for _, c := range pulls(a) {
		if c.ImagePullPolicy != v1.PullAlways {
			return admission.NewForbidden(a, fmt.Errorf("container %s: imagePullPolicy: Unsupported value: %q: supported values: %q", c.Name, c.ImagePullPolicy, v1.PullAlways))
		}
	}
	return nil
}

// extendedToleration lets pods that ask for an extended resource onto the
// nodes that are kept for it.
type extendedToleration struct{ *admission.Handler }

func newExtendedToleration() *extendedToleration {
	return &extendedToleration{admission.NewHandler(admission.Create, admission.Update)}
}

// Admit implements admission.MutationInterface.
func (*extendedToleration) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := a.GetObject().(*v1.Pod)
	if !ok || a.GetSubresource() != "" {
		return nil
	}
	var names []string
	for _, c := range containersOf(pod) {
		for name := range c.Resources.Requests {
			if s := string(name); strings.Contains(s, "/") && !strings.Contains(s, v1.ResourceDefaultNamespacePrefix) && !slices.Contains(names, s) {
				names = append(names, s)
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		t := v1.Toleration{Key: name, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule}
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(o v1.Toleration) bool { return o.MatchToleration(&t) }) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, t)
		}
	}
	return nil
}

// denyExternalIPs lets no Service take external addresses that it has not had.
type denyExternalIPs struct{ *admission.Handler }

func newDenyExternalIPs() *denyExternalIPs {
	return &denyExternalIPs{admission.NewHandler(admission.Create, admission.Update)}
}

// Validate implements admission.ValidationInterface.
func (*denyExternalIPs) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	svc, ok := a.GetObject().(*v1.Service)
	if !ok || a.GetSubresource() != "" {
		return nil
	}
	var had []string
	if old, ok := a.GetOldObject().(*v1.Service); ok {
		had = old.Spec.ExternalIPs
	}
	for _, ip := range svc.Spec.ExternalIPs {
		if !slices.Contains(had, ip) {
			return admission.NewForbidden(a, errors.New("Use of external IPs is denied by admission control."))
		}
	}
	return nil
}

const nodeSelectorAnnotation = "scheduler.alpha.kubernetes.io/node-selector"

// podNodeSelector keeps the pods of a namespace on its nodes.
type podNodeSelector struct {
	*admission.Handler
	get     Namespaces
	cluster map[string]string // by namespace, and "clusterDefaultNodeSelector"
}

func newPodNodeSelector(e *Environment) (admission.Interface, error) {
	p := &podNodeSelector{Handler: admission.NewHandler(admission.Create), get: e.Namespaces}
	r, err := e.Configuration.ConfigFor("PodNodeSelector")
	if err != nil || r == nil {
		return p, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var config struct {
		Selectors map[string]string `json:"podNodeSelectorPluginConfig"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("the configuration is not a podNodeSelectorPluginConfig: %w", err)
	}
	p.cluster = config.Selectors
	return p, nil
}

// selector gives the node selector that the pods of a namespace must have.
func (p *podNodeSelector) selector(ctx context.Context, a admission.Attributes) (labels.Set, error) {
	ns, err := p.get(ctx, a.GetNamespace())
	if err != nil {
		return nil, err
	}
	text, ok := ns.Annotations[nodeSelectorAnnotation]
	if !ok {
		text = p.cluster["clusterDefaultNodeSelector"]
	}
	return labels.ConvertSelectorToLabelsMap(text)
}

// Admit implements admission.MutationInterface.
func (p *podNodeSelector) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod := newPod(a)
	if pod == nil {
		return nil
	}
	want, err := p.selector(ctx, a)
	if err != nil {
		return err
	}
	if labels.Conflicts(want, labels.Set(pod.Spec.NodeSelector)) {
		return apierrors.NewForbidden(podResource, pod.Name, errors.New("pod node label selector conflicts with its namespace node label selector"))
	}
	if len(want) > 0 {
		pod.Spec.NodeSelector = labels.Merge(want, pod.Spec.NodeSelector)
	}
	return p.Validate(ctx, a, nil)
}

// Validate implements admission.ValidationInterface.
func (p *podNodeSelector) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod := newPod(a)
	if pod == nil {
		return nil
	}
	want, err := p.selector(ctx, a)
	if err != nil {
		return err
	}
	if labels.Conflicts(want, labels.Set(pod.Spec.NodeSelector)) {
		return apierrors.NewForbidden(podResource, pod.Name, errors.New("pod node label selector conflicts with its namespace node label selector"))
	}
	allowed, err := labels.ConvertSelectorToLabelsMap(p.cluster[a.GetNamespace()])
	if err != nil {
		return err
	}
	if len(allowed) > 0 && !within(pod.Spec.NodeSelector, allowed) {
		return apierrors.NewForbidden(podResource, pod.Name, errors.New("pod node label selector labels conflict with its namespace whitelist"))
	}
	return nil
}

func within(set, allowed map[string]string) bool {
	for k, v := range set {
		if got, ok := allowed[k]; !ok || got != v {
			return false
		}
	}
	return true
}
