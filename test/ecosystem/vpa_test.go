package ecosystem

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/cert"

	"keelson.dev/keelson/test/harness"
)

// The Vertical Pod Autoscaler, and the module that its programs are built in: with the
// versions that it needs.
const (
	vpa       = "k8s.io/autoscaler/vertical-pod-autoscaler"
	vpaModule = "test/ecosystem/vpa"
)

// workload is a Deployment whose pods use eight times the CPU that they request, with an
// autoscaler that may resize them.
const workload = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations: {keelson.dev/usage-cpu: 800m, keelson.dev/usage-memory: 400Mi}
    spec:
      containers:
      - name: c
        image: web
        resources: {requests: {cpu: 100m, memory: 64Mi}}
---
apiVersion: autoscaling.k8s.io/v1
kind: VerticalPodAutoscaler
metadata: {name: web, namespace: default}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  updatePolicy: {updateMode: InPlaceOrRecreate}
`

// TestVPA runs the recommender, the updater and the admission controller of the Vertical
// Pod Autoscaler, each with the rights that its project gives it: pods are resized in
// place to what they use, and new pods begin with that.
func TestVPA(t *testing.T) {
	k := start(t)
	deploy := filepath.Join(source(t, vpaModule, vpa), "deploy")
	k.kubectl("", "apply", "--server-side", "-f", filepath.Join(deploy, "vpa-v1-crd-gen.yaml"), "-f", filepath.Join(deploy, "vpa-rbac.yaml"))
	k.kubectl("", "wait", "--for=condition=Established", "crd/verticalpodautoscalers.autoscaling.k8s.io", "crd/verticalpodautoscalercheckpoints.autoscaling.k8s.io")

	_, port, _ := net.SplitHostPort(harness.FreeAddress(t))
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"crt": certPEM, "key": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k.run(harness.Program(t, vpaModule, vpa+"/pkg/admission-controller"), "--kubeconfig="+k.as("kube-system", "vpa-admission-controller"), "--address="+harness.FreeAddress(t), "--port="+port,
		"--client-ca-file="+dir+"/crt", "--tls-cert-file="+dir+"/crt", "--tls-private-key="+dir+"/key", "--register-by-url", "--webhook-address=https://127.0.0.1", "--webhook-port="+port,
		"--status-lease-update-interval=1s")
	// A pod's usage is believed after a day, and looked at each minute: here at once, each second.
	k.run(harness.Program(t, vpaModule, vpa+"/pkg/recommender"), "--kubeconfig="+k.as("kube-system", "vpa-recommender"), "--address="+harness.FreeAddress(t),
		"--recommender-interval=1s", "--confidence-interval-cpu=1s", "--confidence-interval-memory=1s")
	k.run(harness.Program(t, vpaModule, vpa+"/pkg/updater"), "--kubeconfig="+k.as("kube-system", "vpa-updater"), "--address="+harness.FreeAddress(t), "--updater-interval=1s")
	k.kubectl(workload, "apply", "-f", "-")
	k.kubectl("", "rollout", "status", "deployment/web")
	uids := map[string]bool{}
	for _, p := range k.pods() {
		uids[string(p.UID)] = true
	}

	autoscalers := schema.GroupVersionResource{Group: "autoscaling.k8s.io", Version: "v1", Resource: "verticalpodautoscalers"}
	var target string
	harness.Eventually(t, "a recommendation", func() bool {
		target = value(k.get(autoscalers, "default", "web"), "status", "recommendation", "containerRecommendations")
		return strings.Contains(target, "containerName:c") && strings.Contains(target, "target:map[cpu:")
	})
	// At least what is used, with the safety margin of 15 %.
	enough := resource.MustParse("800m")
	harness.Succeeds(t, "pods that have been resized in place", func() error {
		for _, p := range k.pods() {
			var got *v1.ResourceRequirements
			for _, s := range p.Status.ContainerStatuses {
				got = s.Resources
			}
			if got == nil || got.Requests.Cpu().Cmp(enough) < 0 || p.Spec.Containers[0].Resources.Requests.Cpu().Cmp(enough) < 0 {
				return fmt.Errorf("%s has %v of %v; the recommendation is %s", p.Name, got, p.Spec.Containers[0].Resources, target)
			}
		}
		return nil
	})
	for _, p := range k.pods() {
		if !uids[string(p.UID)] || p.Status.ContainerStatuses[0].RestartCount > 0 {
			t.Errorf("%s was not resized in place: it is another pod, or has been started anew", p.Name)
		}
	}
	harness.Eventually(t, "the updater's event", func() bool {
		return strings.Contains(k.kubectl("", "get", "events", "--field-selector=reason=InPlaceResizedByVPA", "-o", "name"), "event/")
	})
	harness.Eventually(t, "a checkpoint", func() bool {
		return strings.Contains(k.kubectl("", "get", "verticalpodautoscalercheckpoints", "-o", "name"), "web-c")
	})

	k.kubectl("", "scale", "deployment/web", "--replicas=3")
	k.kubectl("", "rollout", "status", "deployment/web")
	for _, p := range k.pods() {
		if uids[string(p.UID)] {
			continue
		}
		if p.Spec.Containers[0].Resources.Requests.Cpu().Cmp(enough) < 0 || p.Annotations["vpaUpdates"] == "" {
			t.Errorf("the new pod %s requests %v, annotations %v", p.Name, p.Spec.Containers[0].Resources.Requests, p.Annotations)
		}
	}
}

// pods returns the workload's pods.
func (k *keelson) pods() []v1.Pod {
	k.Helper()
	l, err := k.client.CoreV1().Pods("default").List(k.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		k.Fatal(err)
	}
	return l.Items
}
