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

func alwaysAdmit(context.Context, admission.Attributes) error { return nil }

func alwaysDeny(_ context.Context, a admission.Attributes) error {
	return admission.NewForbidden(a, errors.New("admission control is denying all modifications"))
}

func inNamespace(a admission.Attributes) bool {
	return a.GetNamespace() != "" && a.GetKind().GroupKind() != v1.SchemeGroupVersion.WithKind("Namespace").GroupKind()
}

// namespaceExists refuses what goes to a namespace that is not there.
func (e *Environment) namespaceExists(ctx context.Context, a admission.Attributes) error {
	if !inNamespace(a) {
		return nil
	}
	_, err := e.Namespaces(ctx, a.GetNamespace())
	return err
}

// provisionNamespace makes the namespace that an object is created in.
func (e *Environment) provisionNamespace(ctx context.Context, a admission.Attributes) error {
	if a.IsDryRun() || !inNamespace(a) {
		return nil
	}
	_, err := e.Namespaces(ctx, a.GetNamespace())
	if !apierrors.IsNotFound(err) {
		return err
	}
	_, err = e.Client().CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.GetNamespace()}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// limitAntiAffinity lets pods keep others off their node, but not off more.
func limitAntiAffinity(_ context.Context, _ admission.Attributes, pod *v1.Pod) error {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	for _, t := range pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if t.TopologyKey != v1.LabelHostname {
			return apierrors.NewForbidden(podResource, pod.Name, fmt.Errorf("affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey %v but only key %v is allowed", t.TopologyKey, v1.LabelHostname))
		}
	}
	return nil
}

// containersOf returns every container of a pod, of every kind.
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

// pulled returns the containers whose images have to be pulled with the pod's own
// credentials: all of them, unless an update brings no new image.
func pulled(a admission.Attributes, pod *v1.Pod) []*v1.Container {
	all := containersOf(pod)
	old, ok := a.GetOldObject().(*v1.Pod)
	if !ok {
		return all
	}
	images := map[string]bool{}
	for _, c := range containersOf(old) {
		images[c.Image] = true
	}
	if !slices.ContainsFunc(all, func(c *v1.Container) bool { return !images[c.Image] }) {
		return nil
	}
	return all
}

func alwaysPull(_ context.Context, a admission.Attributes, pod *v1.Pod) error {
	for _, c := range pulled(a, pod) {
		c.ImagePullPolicy = v1.PullAlways
	}
	return nil
}

func validatePull(_ context.Context, a admission.Attributes, pod *v1.Pod) error {
	for _, c := range pulled(a, pod) {
		if c.ImagePullPolicy != v1.PullAlways {
			return admission.NewForbidden(a, fmt.Errorf("container %s: imagePullPolicy: Unsupported value: %q: supported values: %q", c.Name, c.ImagePullPolicy, v1.PullAlways))
		}
	}
	return nil
}

// tolerateExtended lets pods that ask for an extended resource onto the nodes that are
// kept for it.
func tolerateExtended(_ context.Context, _ admission.Attributes, pod *v1.Pod) error {
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
func denyExternalIPs(_ context.Context, a admission.Attributes, svc *v1.Service) error {
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
	get     Namespaces
	cluster map[string]string // by namespace, and "clusterDefaultNodeSelector"
}

func newPodNodeSelector(e *Environment) (admission.Interface, error) {
	p := &podNodeSelector{get: e.Namespaces}
	plugin := both(onObject(p.admit), onObject(p.validate), admission.Create)
	r, err := e.Configuration.ConfigFor("PodNodeSelector")
	if err != nil || r == nil {
		return plugin, err
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
	return plugin, nil
}

// selector returns the node selector that the pods of a namespace must have.
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

func (p *podNodeSelector) admit(ctx context.Context, a admission.Attributes, pod *v1.Pod) error {
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
	return p.validate(ctx, a, pod)
}

func (p *podNodeSelector) validate(ctx context.Context, a admission.Attributes, pod *v1.Pod) error {
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
