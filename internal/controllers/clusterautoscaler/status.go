package clusterautoscaler

import (
	"context"
	"fmt"
	"reflect"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"
)

const (
	// statusName is the ConfigMap of the status; events about the autoscaler itself
	// refer to it.
	statusName = "cluster-autoscaler-status"
	// lastUpdated is its annotation with the time, in this layout.
	lastUpdated  = "cluster-autoscaler.kubernetes.io/last-updated"
	updateLayout = "2006-01-02 15:04:05.999999999 -0700 MST"
	// statusPeriod is how often an unchanged status is written.
	statusPeriod = time.Minute
)

// status is the ConfigMap's text, in upstream's form (cluster-autoscaler/clusterstate/api).
type status struct {
	Time             string        `json:"time"`
	AutoscalerStatus string        `json:"autoscalerStatus"`
	ClusterWide      clusterWide   `json:"clusterWide"`
	NodeGroups       []groupStatus `json:"nodeGroups,omitempty"`
}

type clusterWide struct {
	Health    health   `json:"health"`
	ScaleUp   activity `json:"scaleUp"`
	ScaleDown activity `json:"scaleDown"`
}

type groupStatus struct {
	Name      string   `json:"name"`
	Health    health   `json:"health"`
	ScaleUp   activity `json:"scaleUp"`
	ScaleDown activity `json:"scaleDown"`
}

type health struct {
	Status              string      `json:"status"`
	NodeCounts          nodeCounts  `json:"nodeCounts"`
	CloudProviderTarget *int        `json:"cloudProviderTarget,omitempty"`
	MinSize             *int        `json:"minSize,omitempty"`
	MaxSize             *int        `json:"maxSize,omitempty"`
	LastProbeTime       metav1.Time `json:"lastProbeTime"`
	LastTransitionTime  metav1.Time `json:"lastTransitionTime"`
}

type nodeCounts struct {
	Registered struct {
		Total        int `json:"total"`
		Ready        int `json:"ready"`
		NotStarted   int `json:"notStarted"`
		BeingDeleted int `json:"beingDeleted,omitempty"`
	} `json:"registered"`
	LongUnregistered int `json:"longUnregistered"`
	Unregistered     int `json:"unregistered"`
}

type activity struct {
	Status             string      `json:"status"`
	Candidates         int         `json:"candidates,omitempty"`
	LastProbeTime      metav1.Time `json:"lastProbeTime"`
	LastTransitionTime metav1.Time `json:"lastTransitionTime"`
}

// tell writes the status, if it has changed or is older than statusPeriod.
func (a *autoscaler) tell(ctx context.Context, v *view, scaled bool) {
	next := a.summarize(v, scaled)
	same := next
	same.Time = a.status.Time
	last, err := time.Parse(updateLayout, a.status.Time)
	if err == nil && v.now.Sub(last) < statusPeriod && reflect.DeepEqual(withoutProbes(same), withoutProbes(a.status)) {
		return
	}
	text, err := yaml.Marshal(next)
	if err == nil {
		err = a.writeStatus(ctx, string(text), next.Time)
	}
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Writing the status failed", "err", err)
		return
	}
	a.status = next
}

// withoutProbes returns s without the probe times.
func withoutProbes(s status) status {
	s.NodeGroups = append([]groupStatus(nil), s.NodeGroups...)
	clear := func(h *health, up, down *activity) {
		h.LastProbeTime, up.LastProbeTime, down.LastProbeTime = metav1.Time{}, metav1.Time{}, metav1.Time{}
	}
	clear(&s.ClusterWide.Health, &s.ClusterWide.ScaleUp, &s.ClusterWide.ScaleDown)
	for i := range s.NodeGroups {
		clear(&s.NodeGroups[i].Health, &s.NodeGroups[i].ScaleUp, &s.NodeGroups[i].ScaleDown)
	}
	return s
}

func (a *autoscaler) summarize(v *view, scaled bool) status {
	now := metav1.NewTime(v.now)
	s := status{Time: v.now.Format(updateLayout), AutoscalerStatus: "Running"}
	old := map[string]groupStatus{}
	for _, g := range a.status.NodeGroups {
		old[g.Name] = g
	}
	turned := func(changed bool, before metav1.Time) metav1.Time {
		if changed || before.IsZero() {
			return now
		}
		return before
	}
	act := func(status string, candidates int, before activity) activity {
		return activity{Status: status, Candidates: candidates, LastProbeTime: now, LastTransitionTime: turned(status != before.Status, before.LastTransitionTime)}
	}
	total := 0
	var all nodeCounts
	wideUp := "NoActivity"
	for _, g := range v.groups {
		was := old[g.ID()]
		target, least, most := g.target, g.Least(), g.Most()
		var n nodeCounts
		n.Registered.Total, n.Registered.Ready = len(g.nodes), g.ready
		n.Registered.NotStarted = len(g.nodes) - g.ready
		n.Unregistered = max(target-len(g.nodes), 0)
		candidates := 0
		for _, node := range g.nodes {
			if tainted(node) {
				n.Registered.BeingDeleted++
			}
			if _, ok := a.unneeded[node.Name]; ok {
				candidates++
			}
		}
		total += candidates
		up := "NoActivity"
		switch {
		case v.now.Before(a.backoffs[g.ID()].until):
			up = "Backoff"
		case target > g.ready:
			up, wideUp = "InProgress", "InProgress"
		}
		down := "NoCandidates"
		if candidates > 0 {
			down = "CandidatesPresent"
		}
		s.NodeGroups = append(s.NodeGroups, groupStatus{
			Name:    g.ID(),
			Health:  health{Status: "Healthy", NodeCounts: n, CloudProviderTarget: &target, MinSize: &least, MaxSize: &most, LastProbeTime: now, LastTransitionTime: turned(false, was.Health.LastTransitionTime)},
			ScaleUp: act(up, 0, was.ScaleUp), ScaleDown: act(down, candidates, was.ScaleDown),
		})
		all.Registered.Total += n.Registered.Total
		all.Registered.Ready += n.Registered.Ready
		all.Registered.NotStarted += n.Registered.NotStarted
		all.Registered.BeingDeleted += n.Registered.BeingDeleted
		all.Unregistered += n.Unregistered
	}
	if scaled {
		wideUp = "InProgress"
	}
	down := "NoCandidates"
	if total > 0 {
		down = "CandidatesPresent"
	}
	was := a.status.ClusterWide
	s.ClusterWide = clusterWide{
		Health:  health{Status: "Healthy", NodeCounts: all, LastProbeTime: now, LastTransitionTime: turned(false, was.Health.LastTransitionTime)},
		ScaleUp: act(wideUp, 0, was.ScaleUp), ScaleDown: act(down, total, was.ScaleDown),
	}
	return s
}

func (a *autoscaler) writeStatus(ctx context.Context, text, at string) error {
	maps := a.client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	cm, err := maps.Get(ctx, statusName, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	switch {
	case missing:
		cm = &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: statusName}}
	case err != nil:
		return err
	default:
		cm = cm.DeepCopy()
	}
	if cm.Annotations == nil {
		cm.Annotations = map[string]string{}
	}
	cm.Annotations[lastUpdated] = at
	cm.Data = map[string]string{"status": text}
	if missing {
		_, err = maps.Create(ctx, cm, metav1.CreateOptions{})
	} else {
		_, err = maps.Update(ctx, cm, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("writing ConfigMap %s: %w", statusName, err)
	}
	return nil
}

// event records an event about the autoscaler itself.
func (a *autoscaler) event(kind, reason, message string) {
	a.recorder.Event(&v1.ObjectReference{APIVersion: "v1", Kind: "ConfigMap", Namespace: metav1.NamespaceSystem, Name: statusName}, kind, reason, message)
}
