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
	ScaleUp   scaleUp  `json:"scaleUp"`
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
		Unready      struct {
			Total           int `json:"total"`
			ResourceUnready int `json:"resourceUnready"`
		} `json:"unready"`
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

// scaleUp is a group's activity, with the failure for which it backs off.
type scaleUp struct {
	activity
	BackoffInfo struct {
		ErrorCode    string `json:"errorCode,omitempty"`
		ErrorMessage string `json:"errorMessage,omitempty"`
	} `json:"backoffInfo,omitzero"`
}

// counts is a census as the status has it.
func (c *census) counts() (n nodeCounts) {
	r := &n.Registered
	r.Total, r.Ready, r.NotStarted, r.BeingDeleted = c.registered, c.ready, c.notStarted, c.deleted
	r.Unready.Total = c.unready
	n.Unregistered, n.LongUnregistered = len(c.unregistered), len(c.overdue)
	return n
}

// healthOf names a health.
func healthOf(well bool) string {
	if well {
		return "Healthy"
	}
	return "Unhealthy"
}

// tell writes the status, if it has changed or is older than statusPeriod.
func (a *autoscaler) tell(ctx context.Context, v *view) {
	next := a.summarize(v)
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
		clear(&s.NodeGroups[i].Health, &s.NodeGroups[i].ScaleUp.activity, &s.NodeGroups[i].ScaleDown)
	}
	return s
}

func (a *autoscaler) summarize(v *view) status {
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
	well := func(ok bool, counts nodeCounts, before health) health {
		status := healthOf(ok)
		return health{Status: status, NodeCounts: counts, LastProbeTime: now, LastTransitionTime: turned(status != before.Status, before.LastTransitionTime)}
	}
	presence := func(candidates int) string {
		if candidates > 0 {
			return "CandidatesPresent"
		}
		return "NoCandidates"
	}
	total, wideUp := 0, "NoActivity"
	for _, g := range v.groups {
		was := old[g.ID()]
		target, least, most := g.target, g.Least(), g.Most()
		candidates := 0
		for _, node := range g.nodes {
			if _, ok := a.unneeded[node.Name]; ok {
				candidates++
			}
		}
		total += candidates
		one := groupStatus{Name: g.ID(), Health: well(g.healthy, g.counts(), was.Health), ScaleDown: act(presence(candidates), candidates, was.ScaleDown)}
		one.Health.CloudProviderTarget, one.Health.MinSize, one.Health.MaxSize = &target, &least, &most
		up := "NoActivity"
		b, backing := a.backoffs[g.ID()]
		switch _, growing := a.growths[g.ID()]; {
		case growing && target > g.registered-g.notStarted:
			up, wideUp = "InProgress", "InProgress"
		case !g.healthy:
			up = "Unhealthy"
		case backing && v.now.Before(b.until):
			up = "Backoff"
			one.ScaleUp.BackoffInfo.ErrorCode, one.ScaleUp.BackoffInfo.ErrorMessage = b.code, b.message
		}
		one.ScaleUp.activity = act(up, 0, was.ScaleUp.activity)
		s.NodeGroups = append(s.NodeGroups, one)
	}
	was := a.status.ClusterWide
	s.ClusterWide = clusterWide{
		Health:  well(a.tolerable(v.total.unready, v.total.registered), v.total.counts(), was.Health),
		ScaleUp: act(wideUp, 0, was.ScaleUp), ScaleDown: act(presence(total), total, was.ScaleDown),
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
