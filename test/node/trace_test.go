package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/timeline"
	"keelson.dev/keelson/test/harness"
)

// trace makes a Deployment with a Service and a readiness probe, and looks at its trace: the
// node's phases are in it, with the bytes that were pulled, up to the rules for its endpoint.
func (e *env) trace() {
	ctx := e.Context()
	labels := map[string]string{"app": "traced"}
	if _, err := e.client.CoreV1().Services("default").Create(ctx, &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "traced"},
		Spec: v1.ServiceSpec{Selector: labels, Ports: []v1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}); err != nil {
		e.Fatal(err)
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "traced"},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](0), Containers: []v1.Container{{Name: "web", Image: image,
				ImagePullPolicy: v1.PullAlways,
				ReadinessProbe:  &v1.Probe{PeriodSeconds: 1, ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80)}}}}}}}}}
	if _, err := e.client.AppsV1().Deployments("default").Create(ctx, d, metav1.CreateOptions{}); err != nil {
		e.Fatal(err)
	}
	e.available("traced", 1)
	var t timeline.Timeline
	phases := map[string]trace.Step{}
	harness.Succeeds(e, "all steps of the way", func() error {
		data, err := e.client.RESTClient().Get().AbsPath(trace.Path).Param("resource", "deployments").Param("group", "apps").Param("namespace", "default").Param("name", "traced").DoRaw(ctx)
		if err != nil {
			return err
		}
		t = timeline.Timeline{}
		if err := json.Unmarshal(data, &t); err != nil {
			return err
		}
		clear(phases)
		for _, s := range t.Steps {
			if s.Phase != "" {
				phases[s.Phase] = s
			}
		}
		for _, p := range []string{trace.PhaseSchedule, trace.PhaseVolumes, trace.PhaseSandbox, trace.PhasePull, trace.PhaseCreate, trace.PhaseStart, trace.PhaseProbe, trace.PhaseRules, trace.PhaseName} {
			if _, ok := phases[p]; !ok {
				return fmt.Errorf("there is no %s", p)
			}
		}
		return nil
	})
	var text bytes.Buffer
	(&timeline.Printer{W: &text}).Print(&t)
	e.Log("\n" + text.String())
	trail := phases[trace.PhaseSchedule].TraceID
	for name, s := range phases {
		if name != trace.PhaseSchedule && s.Node != "node" {
			e.Errorf("%s was on %q, want the node", name, s.Node)
		}
		if name != trace.PhaseRules && name != trace.PhaseName && s.TraceID != trail { // these are of the Service's
			e.Errorf("%s is not in the trace of the others", name)
		}
	}
	var size int64
	if n, err := fmt.Sscanf(phases[trace.PhasePull].Detail, image+", %d bytes", &size); n != 1 || size <= 0 {
		e.Errorf("the pull says %q (%v), want the bytes of %s", phases[trace.PhasePull].Detail, err, image)
	}
	if took := time.Duration(phases[trace.PhaseSandbox].Took); took <= 0 || took > time.Minute {
		e.Errorf("the sandbox took %v", took)
	}
	critical := map[string]bool{}
	for i := range t.Steps {
		if t.Steps[i].Critical {
			critical[t.Steps[i].Phase] = true
		}
	}
	// The start of the container is not critical if a status from before it is still being written after it.
	if !critical[trace.PhaseSandbox] || !critical[trace.PhaseCreate] || t.Total <= 0 {
		e.Errorf("the critical path has the phases %v and takes %v", critical, time.Duration(t.Total))
	}
	for _, want := range []string{"deployments.apps default/traced", "replicasets.apps default/traced-", "pods default/traced-", "endpointslices.discovery.k8s.io default/traced-", "1 of 1 nodes fit", ", disk "} {
		if !strings.Contains(text.String(), want) {
			e.Errorf("%q is not in the tree", want)
		}
	}
	if err := e.client.AppsV1().Deployments("default").Delete(ctx, "traced", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		e.Fatal(err)
	}
	if err := e.client.CoreV1().Services("default").Delete(ctx, "traced", metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}
	e.gone("app=traced")
}
