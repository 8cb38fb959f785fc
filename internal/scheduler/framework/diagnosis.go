package framework

import (
	"fmt"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// Diagnosis holds the reasons why no node fits.
type Diagnosis struct {
	// NodeToStatus has the refusal of each node looked at.
	NodeToStatus map[string]*Status
	// Absent is the status of all other nodes.
	Absent *Status
	// UnschedulablePlugins are the plugins that refused.
	UnschedulablePlugins sets.Set[string]
	// PreFilterMsg is set where the pod was refused before any node.
	PreFilterMsg string
	// PostFilterMsg is the message of the PostFilter plugins and preemption.
	PostFilterMsg string
}

// NewDiagnosis makes an empty one.
func NewDiagnosis() *Diagnosis {
	return &Diagnosis{
		NodeToStatus:         map[string]*Status{},
		Absent:               NewStatus(UnschedulableAndUnresolvable),
		UnschedulablePlugins: sets.New[string](),
	}
}

// Status returns the status of a node.
func (d *Diagnosis) Status(node string) *Status {
	if s, ok := d.NodeToStatus[node]; ok {
		return s
	}
	return d.Absent
}

// FitError is the error of a pod that fits no node.
type FitError struct {
	Pod         *v1.Pod
	NumAllNodes int
	Diagnosis   *Diagnosis
}

// Error returns the message of the FailedScheduling event.
func (f *FitError) Error() string {
	d := f.Diagnosis
	var b strings.Builder
	fmt.Fprintf(&b, "0/%d nodes are available:", f.NumAllNodes)
	if d.PreFilterMsg != "" {
		fmt.Fprintf(&b, " %s.", d.PreFilterMsg)
	} else {
		reasons := map[string]int{}
		for _, s := range d.NodeToStatus {
			for _, r := range s.Reasons() {
				reasons[r]++
			}
		}
		if n := f.NumAllNodes - len(d.NodeToStatus); n > 0 {
			for _, r := range d.Absent.Reasons() {
				reasons[r] += n
			}
		}
		lines := make([]string, 0, len(reasons))
		for r, n := range reasons {
			lines = append(lines, fmt.Sprintf("%d %s", n, r))
		}
		sort.Strings(lines)
		if len(lines) > 0 {
			fmt.Fprintf(&b, " %s.", strings.Join(lines, ", "))
		}
	}
	if d.PostFilterMsg != "" {
		b.WriteString(" " + d.PostFilterMsg)
	}
	return b.String()
}
