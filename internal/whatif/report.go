package whatif

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/store"
)

// Report is what would happen.
type Report struct {
	// Took is how long until nothing moved any more, by the fork's clock.
	Took time.Duration `json:"took"`
	// Created, Changed and Deleted are objects other than pods, as RESOURCE NAMESPACE/NAME.
	// Those of which only the status changed are left out, and so are Leases, Events and
	// endpoints.
	Created []string `json:"created,omitempty"`
	Changed []string `json:"changed,omitempty"`
	Deleted []string `json:"deleted,omitempty"`
	// Pods are by the object that owns them.
	Pods []Pods `json:"pods,omitempty"`
	// Nodes are those with another number of pods than before.
	Nodes []Node `json:"nodes,omitempty"`
	// Pending are the pods that find no node, with the scheduler's reason.
	Pending []Problem `json:"pending,omitempty"`
	// Warnings are the warnings in the events of what happened.
	Warnings []Problem `json:"warnings,omitempty"`
	// Webhooks are those that were not asked, and could have refused or changed objects.
	Webhooks []string `json:"webhooks,omitempty"`
}

// Pods is what happens to the pods of one owner.
type Pods struct {
	Owner   string `json:"owner"` // KIND NAMESPACE/NAME
	Before  int    `json:"before"`
	After   int    `json:"after"`
	Created int    `json:"created"`
	Deleted int    `json:"deleted"`
	// On is how many run on which node afterwards.
	On map[string]int `json:"on,omitempty"`
}

// Node is how the number of pods on a node changes.
type Node struct {
	Name          string `json:"name"`
	Before, After int
}

// Problem is a message, and the objects that it is about.
type Problem struct {
	Message string   `json:"message"`
	Objects []string `json:"objects"`
}

// Report compares the fork with what it began with. Took is what Settle returned.
func (f *Fork) Report(ctx context.Context, took time.Duration) (*Report, error) {
	after, err := f.store.Content(ctx, 0)
	if err != nil {
		return nil, err
	}
	r := &Report{Took: took}
	before := map[string]*store.Entry{}
	for _, e := range f.content.Entries {
		before[e.Key] = e
	}
	pods := podSums{}
	for _, e := range after.Entries {
		old := before[e.Key]
		delete(before, e.Key)
		if p, ok := e.Object().(*v1.Pod); ok {
			was, _ := objectOf(old).(*v1.Pod)
			pods.add(was, p)
			continue
		}
		switch name := f.described(e); {
		case leftOut(e.Key):
		case old == nil:
			r.Created = append(r.Created, name)
		case old != e && !sameSpec(old, e):
			r.Changed = append(r.Changed, name)
		}
		r.webhooks(e)
	}
	for _, e := range before {
		if p, ok := e.Object().(*v1.Pod); ok {
			pods.add(p, nil)
		} else if !leftOut(e.Key) {
			r.Deleted = append(r.Deleted, f.described(e))
		}
	}
	slices.Sort(r.Created)
	slices.Sort(r.Changed)
	slices.Sort(r.Deleted)
	slices.Sort(r.Webhooks)
	r.Pods, r.Nodes, r.Pending = pods.owners(), pods.nodes(), pods.pending()
	r.Warnings = warnings(after.Entries, f.content.Revision)
	return r, nil
}

func objectOf(e *store.Entry) runtime.Object {
	if e == nil {
		return nil
	}
	return e.Object()
}

// leftOut reports whether objects at a key follow from others, or only say that
// something is alive.
func leftOut(key string) bool {
	for _, prefix := range []string{"/registry/services/endpoints/", "/registry/endpointslices/", "/registry/ipaddresses/", "/registry/keelson/"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return signOfLife(key)
}

// described returns an entry's resource and name.
func (f *Fork) described(e *store.Entry) string {
	row, ns, name := f.cluster.Catalogue.ForKey(e.Key)
	if row == nil {
		return e.Key
	}
	if ns != "" {
		name = ns + "/" + name
	}
	return row.GroupVersionResource.GroupResource().String() + " " + name
}

// sameSpec reports whether two versions of an object differ in nothing but what
// controllers report.
func sameSpec(a, b *store.Entry) bool {
	return reflect.DeepEqual(spec(a), spec(b))
}

func spec(e *store.Entry) map[string]any {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(e.Object())
	if err != nil {
		return nil
	}
	u := (&unstructured.Unstructured{Object: m}).DeepCopy()
	u.SetManagedFields(nil)
	u.SetResourceVersion("")
	u.SetGeneration(0)
	unstructured.RemoveNestedField(u.Object, "status")
	return u.Object
}

// webhooks notes the webhooks of a configuration.
func (r *Report) webhooks(e *store.Entry) {
	for prefix, kind := range map[string]string{"/registry/mutatingwebhookconfigurations/": "mutating", "/registry/validatingwebhookconfigurations/": "validating"} {
		if name, ok := strings.CutPrefix(e.Key, prefix); ok {
			r.Webhooks = append(r.Webhooks, kind+" "+name)
		}
	}
}

// podSums sums up what happens to pods.
type podSums struct {
	byOwner map[string]*Pods
	byNode  map[string]*Node
	stuck   map[string][]string // by message
}

// add notes a pod, as it was and as it is; nil is not there.
func (s *podSums) add(was, is *v1.Pod) {
	if s.byOwner == nil {
		*s = podSums{map[string]*Pods{}, map[string]*Node{}, map[string][]string{}}
	}
	if was != nil && is != nil && was.UID != is.UID { // another one by the same name
		s.add(was, nil)
		s.add(nil, is)
		return
	}
	p := is
	if p == nil {
		p = was
	}
	name := ownerOf(p)
	o := s.byOwner[name]
	if o == nil {
		o = &Pods{Owner: name, On: map[string]int{}}
		s.byOwner[name] = o
	}
	if was != nil {
		o.Before++
		s.on(was.Spec.NodeName, func(n *Node) { n.Before++ })
	} else {
		o.Created++
	}
	if is == nil {
		o.Deleted++
		return
	}
	o.After++
	s.on(is.Spec.NodeName, func(n *Node) { n.After++ })
	if is.Spec.NodeName != "" {
		o.On[is.Spec.NodeName]++
		return
	}
	for _, c := range is.Status.Conditions {
		if c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse {
			s.stuck[c.Message] = append(s.stuck[c.Message], is.Namespace+"/"+is.Name)
		}
	}
}

func (s *podSums) on(node string, f func(*Node)) {
	if node == "" {
		return
	}
	if s.byNode[node] == nil {
		s.byNode[node] = &Node{Name: node}
	}
	f(s.byNode[node])
}

// ownerOf returns the controller of a pod: for a ReplicaSet of a Deployment that.
func ownerOf(p *v1.Pod) string {
	o := metav1.GetControllerOf(p)
	switch {
	case o == nil:
		return "Pod " + p.Namespace + "/" + p.Name
	case o.Kind == "ReplicaSet" && p.Labels["pod-template-hash"] != "":
		return "Deployment " + p.Namespace + "/" + strings.TrimSuffix(o.Name, "-"+p.Labels["pod-template-hash"])
	}
	return o.Kind + " " + p.Namespace + "/" + o.Name
}

func (s *podSums) owners() (out []Pods) {
	for _, o := range s.byOwner {
		if o.Created > 0 || o.Deleted > 0 {
			out = append(out, *o)
		}
	}
	slices.SortFunc(out, func(a, b Pods) int { return strings.Compare(a.Owner, b.Owner) })
	return out
}

func (s *podSums) nodes() (out []Node) {
	for _, n := range s.byNode {
		if n.Before != n.After {
			out = append(out, *n)
		}
	}
	slices.SortFunc(out, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (s *podSums) pending() []Problem { return problems(s.stuck) }

// warnings returns the warnings of the events that are written after a revision.
func warnings(entries []*store.Entry, since int64) []Problem {
	byMessage := map[string][]string{}
	for _, e := range entries {
		ev, ok := e.Object().(*v1.Event)
		if !ok || e.ModRevision <= since || ev.Type != v1.EventTypeWarning || ev.Reason == "FailedScheduling" {
			continue
		}
		m := ev.Reason + ": " + ev.Message
		byMessage[m] = append(byMessage[m], fmt.Sprintf("%s %s/%s", ev.InvolvedObject.Kind, ev.InvolvedObject.Namespace, ev.InvolvedObject.Name))
	}
	return problems(byMessage)
}

func problems(byMessage map[string][]string) (out []Problem) {
	for m, objects := range byMessage {
		slices.Sort(objects)
		out = append(out, Problem{Message: m, Objects: slices.Compact(objects)})
	}
	slices.SortFunc(out, func(a, b Problem) int { return strings.Compare(a.Message, b.Message) })
	return out
}
