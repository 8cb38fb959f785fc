package node_test

import (
	"errors"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realnode"
)

// startApart starts a cluster whose agent has only a kubeconfig.
func startApart(t testing.TB) *env {
	t.Helper()
	n := realnode.StartApart(t, agent.Options{LogMaxSize: maxLog})
	return &env{t, kubernetes.NewForConfigOrDie(n.Config), n.Config, n.Runtime, n.Logs, n.Manifests}
}

// TestAgentAlone checks that an agent that has a kubeconfig of its node's user,
// and nothing else, runs pods with what they need, and sends no request that is
// forbidden.
func TestAgentAlone(t *testing.T) {
	e := startApart(t)
	t.Run("Deployment", func(t *testing.T) { (&env{t, e.client, e.cfg, e.runtime, e.logs, e.manifests}).deployment() })
	t.Run("Tokens", func(t *testing.T) { (&env{t, e.client, e.cfg, e.runtime, e.logs, e.manifests}).tokens() })

	t.Run("Trace", func(t *testing.T) { (&env{t, e.client, e.cfg, e.runtime, e.logs, e.manifests}).trace() })

	ctx := t.Context()
	config := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "alone"}, Data: map[string]string{"k": "first"}}
	secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "alone"}, StringData: map[string]string{"k": "hidden"}}
	if _, err := e.client.CoreV1().ConfigMaps("default").Create(ctx, config, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.client.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	named := v1.LocalObjectReference{Name: "alone"}
	p := sleeper("alone")
	p.Spec.Volumes = []v1.Volume{{Name: "c", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: named}}}}
	c := &p.Spec.Containers[0]
	c.VolumeMounts = []v1.VolumeMount{{Name: "c", MountPath: "/c"}}
	c.Env = []v1.EnvVar{{Name: "HIDDEN", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: named, Key: "k"}}}}
	e.create(p)
	e.pod("alone", ready)
	if got := e.exec("alone", "c", "", "/bin/demo", "cat", "/proc/self/environ"); !strings.Contains(got, "HIDDEN=hidden\x00") {
		t.Errorf("the environment is %q", got)
	}
	config.Data["k"] = "second"
	if _, err := e.client.CoreV1().ConfigMaps("default").Update(ctx, config, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Succeeds(t, "the change in the pod's file", func() error {
		if got := e.exec("alone", "c", "", "/bin/demo", "cat", "/c/k"); got != "second" {
			return errors.New(got)
		}
		return nil
	})
	e.remove("alone")

	metrics, err := e.client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		t.Fatal(err)
	}
	counted := false
	for line := range strings.Lines(string(metrics)) {
		if !strings.HasPrefix(line, "apiserver_request_total{") {
			continue
		}
		counted = counted || strings.Contains(line, `code="200"`) && strings.Contains(line, `resource="secrets"`)
		if strings.Contains(line, `code="403"`) {
			t.Errorf("somebody has asked for what it may not have: %s", line)
		}
	}
	if !counted {
		t.Error("the metrics count no requests")
	}
}
