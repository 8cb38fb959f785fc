package dash

import (
	"encoding/json"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/api/core"
	"keelson.dev/keelson/internal/trace"
)

// The lines of a stream are arrays of JSON. They are put together by hand: the first
// picture of a large cluster is made of tens of thousands.

// Flags of a node.
const (
	nodeReady = 1 << iota
	nodeCordoned
	nodePressure
	nodeSimulated
	// nodeNamed says that nothing but the name is known: the user may not list nodes, or
	// the Node is gone and its pods are not.
	nodeNamed
)

// Phases of a pod.
const (
	phasePending = iota
	phaseScheduled
	phaseRunning
	phaseSucceeded
	phaseFailed
	phaseUnknown
)

// Flags of a pod.
const (
	podReady = 1 << iota
	podDeleting
	podWaiting
	podUnschedulable
)

// appendString appends s in quotes.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil {
				return append(b, `""`...) // strings can be marshalled
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendInt appends a comma and n.
func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(append(b, ','), n, 10) }

// appendField appends a comma and s in quotes.
func appendField(b []byte, s string) []byte { return appendString(append(b, ','), s) }

// begin appends the kind of a line, and the number of what it is about.
func begin(b []byte, kind string, id uint32) []byte {
	b = append(b, '[', '"')
	b = append(b, kind...)
	return appendInt(append(b, '"'), int64(id))
}

const end = "]\n"

func appendGone(b []byte, kind string, id uint32) []byte {
	b = append(b, `["gone","`...)
	b = append(b, kind...)
	return append(appendInt(append(b, '"'), int64(id)), end...)
}

// appendNode appends a node; label is the key of the label that the stream was asked for.
func appendNode(b []byte, id uint32, n *v1.Node, label string) []byte {
	flags := int64(0)
	for i := range n.Status.Conditions {
		c := &n.Status.Conditions[i]
		switch {
		case c.Status != v1.ConditionTrue:
		case c.Type == v1.NodeReady:
			flags |= nodeReady
		case strings.HasSuffix(string(c.Type), "Pressure"):
			flags |= nodePressure
		}
	}
	if n.Spec.Unschedulable {
		flags |= nodeCordoned
	}
	if core.Simulated(n) {
		flags |= nodeSimulated
	}
	b = appendInt(appendField(begin(b, "node", id), n.Name), flags)
	a := n.Status.Allocatable
	b = strconv.AppendInt(append(b, ",["...), a.Cpu().MilliValue(), 10)
	b = appendInt(appendInt(b, a.Memory().Value()>>20), a.Pods().Value())
	b = appendField(append(b, ']'), n.Labels[v1.LabelTopologyZone])
	if label != "" {
		b = appendField(b, n.Labels[label])
	}
	return append(b, end...)
}

// appendNamedNode appends a node of which there is only the name.
func appendNamedNode(b []byte, id uint32, name string) []byte {
	return append(appendInt(appendField(begin(b, "node", id), name), nodeNamed), `,[0,0,0],""`+end...)
}

func appendOwner(b []byte, id uint32, as *ident, desired, ready int32, parent uint32) []byte {
	b = appendField(appendField(appendField(begin(b, "owner", id), as.kind), as.namespace), as.name)
	return append(appendInt(appendInt(appendInt(b, int64(desired)), int64(ready)), int64(parent)), end...)
}

func appendPod(b []byte, id uint32, p *v1.Pod, node, owner uint32) []byte {
	phase, flags, restarts := podState(p)
	b = appendField(appendField(begin(b, "pod", id), p.Namespace), p.Name)
	b = appendInt(appendInt(appendInt(appendInt(appendInt(b, int64(node)), phase), flags), int64(owner)), restarts)
	return append(b, end...)
}

// podState returns a pod's phase, its flags and how often its containers were started
// again.
func podState(p *v1.Pod) (phase, flags, restarts int64) {
	switch p.Status.Phase {
	case v1.PodRunning:
		phase = phaseRunning
	case v1.PodSucceeded:
		phase = phaseSucceeded
	case v1.PodFailed:
		phase = phaseFailed
	case v1.PodUnknown:
		phase = phaseUnknown
	default:
		if phase = phasePending; p.Spec.NodeName != "" {
			phase = phaseScheduled
		}
	}
	for i := range p.Status.Conditions {
		switch c := &p.Status.Conditions[i]; {
		case c.Type == v1.PodReady && c.Status == v1.ConditionTrue:
			flags |= podReady
		case c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse && c.Reason == v1.PodReasonUnschedulable:
			flags |= podUnschedulable
		}
	}
	if p.DeletionTimestamp != nil {
		flags |= podDeleting
	}
	for _, all := range [2][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range all {
			restarts += int64(all[i].RestartCount)
			if w := all[i].State.Waiting; w != nil {
				switch w.Reason {
				case "", "ContainerCreating", "PodInitializing":
				default:
					flags |= podWaiting
				}
			}
		}
	}
	return phase, flags, restarts
}

// appendStep appends a step without the end of the line, of which it is a part.
func appendStep(b []byte, s *trace.Step) []byte {
	b = strconv.AppendInt(append(b, '['), s.Time.UnixMilli(), 10)
	b = appendField(b, actor(s))
	verb := s.Verb
	switch {
	case verb == "":
		verb = s.Phase
	case s.Subresource != "":
		verb += "/" + s.Subresource
	}
	b = appendField(appendField(appendField(appendField(b, verb), s.Resource), s.Namespace), s.Name)
	b = appendField(b, s.ResourceVersion)
	cause := ""
	if s.CauseUID != "" {
		cause = string(s.CauseUID) + "@" + s.CauseVersion
	}
	return append(appendField(appendField(b, cause), s.What), ']')
}

// actor returns a short name of who did a step: a component's, or the client's with which
// a user asked for it.
func actor(s *trace.Step) string {
	if node, ok := strings.CutPrefix(s.Actor, "system:node:"); ok {
		return "kubelet " + node
	}
	if name, ok := strings.CutPrefix(s.Actor, "system:"); ok && !strings.HasPrefix(name, "serviceaccount:") {
		return strings.TrimPrefix(name, "kube-")
	}
	if s.Client == "" {
		return s.Actor
	}
	client, _, _ := strings.Cut(s.Client, " ")
	client, _, _ = strings.Cut(client, "/")
	return client
}
