package timeline

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/trace"
)

// recorded are the steps of a Deployment of one pod, with times in milliseconds. Steps on
// which the pod does not wait are among them.
func recorded(uid types.UID) []trace.Step {
	r := trace.NewRecorder(trace.DefaultLimit)
	start := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	ms := func(n int) trace.Millis { return trace.Millis(time.Duration(n) * time.Millisecond) }
	add := func(end, took, woke int, s trace.Step) {
		s.Time, s.Took, s.Woke, s.Namespace = start.Add(time.Duration(end)*time.Millisecond), ms(took), ms(woke), "default"
		r.Add(s)
	}
	add(5, 5, 0, trace.Step{Actor: "admin", Client: "kubectl/v1.37", Verb: "create", Resource: "deployments.apps", Name: "web", UID: "deployment", ResourceVersion: "1", Store: ms(3)})
	add(12, 2, 6, trace.Step{Actor: "deployment-controller", Verb: "create", Resource: "replicasets.apps", Name: "web-1", UID: "set", ResourceVersion: "2", CauseUID: "deployment", CauseVersion: "1"})
	add(20, 2, 3, trace.Step{Actor: "replicaset-controller", Verb: "create", Resource: "pods", Name: "web-1-x", UID: "pod", ResourceVersion: "3", CauseUID: "set", CauseVersion: "2"})
	add(22, 2, 8, trace.Step{Actor: "deployment-controller", Verb: "update", Subresource: "status", Resource: "deployments.apps", Name: "web", UID: "deployment", ResourceVersion: "4", CauseUID: "deployment", CauseVersion: "1"})
	add(142, 121, 0, trace.Step{Actor: "scheduler", Phase: trace.PhaseSchedule, Resource: "pods", Name: "web-1-x", UID: "pod", ResourceVersion: "3", Detail: "node-1: 1 of 1 nodes fit",
		Parts: []trace.Part{{Name: "waiting in the queue", Took: ms(120)}, {Name: "deciding", After: ms(120), Took: ms(1)}}})
	add(145, 3, 4, trace.Step{Actor: "system:kube-scheduler", Verb: "create", Subresource: "binding", Resource: "pods", Name: "web-1-x", UID: "pod", ResourceVersion: "5", CauseUID: "pod", CauseVersion: "3", What: "bound to node-1"})
	add(250, 100, 0, trace.Step{Actor: "kubelet", Node: "node-1", Phase: trace.PhaseSandbox, Resource: "pods", Name: "web-1-x", UID: "pod", ResourceVersion: "5"})
	add(550, 298, 0, trace.Step{Actor: "kubelet", Node: "node-1", Phase: trace.PhasePull, Resource: "pods", Name: "web-1-x", UID: "pod", ResourceVersion: "5", Detail: "web:1, 1000 bytes"})
	add(600, 50, 0, trace.Step{Actor: "kubelet", Node: "node-1", Phase: trace.PhaseStart, Resource: "pods", Name: "web-1-x", UID: "pod", ResourceVersion: "5"})
	add(605, 4, 500, trace.Step{Actor: "system:node:node-1", Verb: "patch", Subresource: "status", Resource: "pods", Name: "web-1-x", UID: "pod", ResourceVersion: "6", CauseUID: "pod", CauseVersion: "5", What: "Running, container web ready"})
	add(950, 4, 5, trace.Step{Actor: "endpointslice-controller", Verb: "update", Resource: "endpointslices.discovery.k8s.io", Name: "web-s", UID: "slice", ResourceVersion: "7", CauseUID: "service", CauseVersion: "0", About: []types.UID{"pod"}})
	add(960, 8, 0, trace.Step{Actor: "kube-proxy", Node: "node-1", Phase: trace.PhaseRules, Resource: "endpointslices.discovery.k8s.io", Name: "web-s", UID: "slice", ResourceVersion: "7"})
	add(961, 1, 0, trace.Step{Actor: "kube-proxy", Node: "node-1", Phase: trace.PhaseRules, Resource: "endpointslices.discovery.k8s.io", Name: "web-s", UID: "slice", ResourceVersion: "8"})
	return r.Way(uid)
}

// TestCriticalPath follows the path back from the rules to the request, and names what was
// lost on it.
func TestCriticalPath(t *testing.T) {
	tl := New("deployment", recorded("deployment"))
	var got []string
	for _, s := range tl.Steps {
		if s.Critical {
			got = append(got, what(&s)+" "+s.Name)
		}
	}
	want := "create web, create web-1, create web-1-x, schedule web-1-x, bound to node-1 web-1-x, sandbox web-1-x, pull web-1-x, start web-1-x, Running, container web ready web-1-x, the update web-s, rules web-s"
	if s := strings.Join(got, ", "); s != strings.Replace(want, "the update", "update", 1) {
		t.Errorf("the critical path is\n%s\nwant\n%s", s, want)
	}
	if d := time.Duration(tl.Total); d != 960*time.Millisecond {
		t.Errorf("it took %v, want 960ms", d)
	}
	got = nil
	for _, l := range tl.Lost {
		got = append(got, fmt.Sprintf("%v %s", time.Duration(l.Ms), l.What))
	}
	for i, want := range []string{
		"340ms between Running, container web ready of pod/web-1-x and its endpoints",
		"120ms pod/web-1-x: waiting in the queue of the scheduler",
		"5ms until kubelet of node-1 began with sandbox of pod/web-1-x",
		"5ms until replicaset-controller saw create of replicaset/web-1",
	} {
		if i >= len(got) || got[i] != want {
			t.Errorf("loss %d of %q, want %q", i, got, want)
		}
	}
}

// TestPrint prints the tree, also of what has no steps.
func TestPrint(t *testing.T) {
	var b bytes.Buffer
	tl := New("deployment", recorded("deployment"))
	tl.Waits = []Wait{{Object: "pod/web-1-y", For: "a node that fits: 0/1", Who: "who adds nodes"}}
	tl.Missing = []trace.Gap{{From: tl.Begin, To: tl.Begin.Add(time.Second), Node: "node-1", Who: "node-1", Why: "it reported too many", Steps: 12}}
	(&Printer{W: &b, Escape: func(s string) string { return strings.ReplaceAll(s, "kubectl", "KUBECTL") }}).Print(tl)
	for _, want := range []string{
		"        0       5ms    1% *create  admin with KUBECTL/v1.37  [disk 3ms, revision 1]\n",
		"    252ms     298ms   31% *    pull  kubelet on node-1  (web:1, 1000 bytes)\n",
		"  340ms   35%  between Running",
		"  12 of node-1, from " + tl.Begin.Local().Format("15:04:05.000") + " to " + tl.Begin.Add(time.Second).Local().Format("15:04:05.000") + ": it reported too many\n",
		"  pod/web-1-y waits for a node that fits: 0/1; who can change it: who adds nodes\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	b.Reset()
	(&Printer{W: &b}).Print(New("none", nil))
	if !strings.Contains(b.String(), "nothing is recorded") {
		t.Error(b.String())
	}
}

// TestManyAlike hides most of many pods.
func TestManyAlike(t *testing.T) {
	r := trace.NewRecorder(trace.DefaultLimit)
	r.Add(trace.Step{Time: time.Unix(0, 0), Verb: "create", Resource: "replicasets.apps", Name: "web", UID: "set", ResourceVersion: "1"})
	for i := range 1000 {
		r.Add(trace.Step{Time: time.Unix(int64(i+1), 0), Verb: "create", Resource: "pods", Name: fmt.Sprint("web-", i), UID: types.UID(fmt.Sprint(i)), CauseUID: "set", CauseVersion: "1"})
	}
	for all, want := range map[bool]int{false: fewest + 1, true: 1000} {
		var b bytes.Buffer
		tl := New("set", r.Way("set"))
		for i := range tl.Steps {
			tl.Steps[i].Critical = i == 500
		}
		(&Printer{W: &b, All: all}).Print(tl)
		if got := strings.Count(b.String(), "pods web-"); got != want {
			t.Errorf("%d pods are shown, want %d", got, want)
		}
		if hides := strings.Contains(b.String(), fmt.Sprintf("%d more pods", 1000-want)); hides == all {
			t.Errorf("all is %v, the rest is mentioned: %v", all, hides)
		}
	}
}
