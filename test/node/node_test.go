// Package node_test runs pods in real containers. It needs root, containerd,
// runc, the CNI plug-ins and nftables, and leaves nothing behind.
package node_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/podtest"
	"keelson.dev/keelson/test/harness/realnode"
)

const image = "keelson.local/demo"

func TestMain(m *testing.M) {
	harness.OwnNetwork()
	if settings := os.Getenv(agentProcess); settings != "" {
		runAgent(settings)
		return
	}
	os.Exit(m.Run())
}

type env struct {
	testing.TB
	client *kubernetes.Clientset
	cfg    *rest.Config
	// runtime is the CRI socket.
	runtime string
	// logs is the folder of the pods' logs; each log is rotated at maxLog.
	logs string
	// manifests is the folder of the static pods' manifests.
	manifests string
}

const maxLog = 16 << 10

func start(t testing.TB) *env {
	t.Helper()
	n := realnode.Start(t, agent.Options{LogMaxSize: maxLog})
	return &env{t, kubernetes.NewForConfigOrDie(n.Config), n.Config, n.Runtime, n.Logs, n.Manifests}
}

// pod waits until the pod is as ok wants it.
func (e *env) pod(name string, ok func(*v1.Pod) bool) *v1.Pod {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	w, err := e.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		e.Fatal(err)
	}
	defer w.Stop()
	var last *v1.Pod
	for ev := range w.ResultChan() {
		p, is := ev.Object.(*v1.Pod)
		if !is || ev.Type == watch.Deleted {
			continue
		}
		if last = p; ok(p) {
			return p
		}
	}
	e.Fatalf("pod %s: %+v", name, last)
	return nil
}

func ready(p *v1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func (e *env) get(url string) string {
	e.Helper()
	resp, err := (&http.Client{Timeout: time.Minute}).Get(url) //nolint:noctx // a test
	if err != nil {
		e.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		e.Fatal(err)
	}
	return string(b)
}

// exec runs a command in a container of a pod.
func (e *env) exec(pod, container string, stdin string, command ...string) string {
	e.Helper()
	out, err := podtest.Exec(e.Context(), e.cfg, "default", pod, container, stdin, command...)
	if err != nil {
		e.Fatal(err)
	}
	return out
}

func TestNode(t *testing.T) {
	e := start(t)
	for name, f := range map[string]func(*env, *testing.T){
		"Deployment":    func(e *env, _ *testing.T) { e.deployment() },
		"Nginx":         (*env).nginx,
		"LoadedImage":   (*env).loadedImage,
		"Devices":       (*env).devices,
		"Certificates":  (*env).certificates,
		"Pod":           func(e *env, _ *testing.T) { e.everything() },
		"RestartPolicy": func(e *env, _ *testing.T) { e.restarts() },
		"HostPort":      func(e *env, _ *testing.T) { e.hostPort() },
		"Evictions":     func(e *env, _ *testing.T) { e.evictions() },
		"Endpoints":     func(e *env, _ *testing.T) { e.endpoints() },
		"StaticPods":    func(e *env, _ *testing.T) { e.staticPods() },
		"Preemption":    func(e *env, _ *testing.T) { e.preemption() },
		"Ephemeral":     func(e *env, _ *testing.T) { e.ephemeral() },
		"Resize":        func(e *env, _ *testing.T) { e.resize() },
		"Logs":          func(e *env, _ *testing.T) { e.rotation() },
		"HostNetwork":   func(e *env, _ *testing.T) { e.hostNetwork() },
		"Cgroups":       func(e *env, _ *testing.T) { e.cgroups() },
		"Tokens":        func(e *env, _ *testing.T) { e.tokens() },
		"Proxy":         func(e *env, _ *testing.T) { e.proxies() },
		"SubPath":       func(e *env, _ *testing.T) { e.subPath() },
		"Volumes":       func(e *env, _ *testing.T) { e.volumes() },
		"RestartRules":  func(e *env, _ *testing.T) { e.restartRules() },
		"Failures":      (*env).failures,
	} {
		t.Run(name, func(t *testing.T) { f(&env{t, e.client, e.cfg, e.runtime, e.logs, e.manifests}, t) })
	}
}

func (e *env) deployment() {
	ctx := e.Context()
	labels := map[string]string{"app": "web"}
	_, err := e.client.AppsV1().Deployments("default").Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](3), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "web", Image: image}}}}}}, metav1.CreateOptions{})
	if err != nil {
		e.Fatal(err)
	}
	e.available("web", 3)
	pods, err := e.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		e.Fatal(err)
	}
	ips := map[string]bool{}
	for _, p := range pods.Items {
		ips[p.Status.PodIP] = true
		e.pod(p.Name, func(p *v1.Pod) bool { return e.answers(p) })
		if got := e.get("http://" + p.Status.PodIP + "/x"); got != "Hello from "+p.Name+"\nGET /x\n" {
			e.Errorf("%s says %q", p.Name, got)
		}
		harness.Succeeds(e, "the request in the log of "+p.Name, func() error {
			log, err := e.client.CoreV1().Pods("default").GetLogs(p.Name, &v1.PodLogOptions{TailLines: ptr.To[int64](1)}).DoRaw(ctx)
			if err == nil && !strings.HasPrefix(string(log), "GET /x from ") {
				err = fmt.Errorf("the log ends with %q", log)
			}
			return err
		})
	}
	if len(ips) != 3 {
		e.Errorf("addresses: %v", ips)
	}
	if err := e.client.AppsV1().Deployments("default").Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		e.Fatal(err)
	}
	e.gone("app=web")
}

// available waits until the deployment has n available replicas.
func (e *env) available(name string, n int32) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	w, err := e.client.AppsV1().Deployments("default").Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		e.Fatal(err)
	}
	defer w.Stop()
	available := int32(0)
	for ev := range w.ResultChan() {
		if d, ok := ev.Object.(*appsv1.Deployment); ok {
			if available = d.Status.AvailableReplicas; available == n {
				return
			}
		}
	}
	e.Fatalf("%d of %d replicas of %s are available", available, n, name)
}

// answers reports whether the web server in the pod has begun to listen.
func (e *env) answers(p *v1.Pod) bool {
	if p.Status.PodIP == "" {
		return false
	}
	for range 100 {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(p.Status.PodIP, "80"), time.Second)
		if err == nil {
			c.Close()
			return true
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-e.Context().Done():
		}
	}
	return false
}

// gone waits until no pod has the label.
func (e *env) gone(selector string) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	w, err := e.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		e.Fatal(err)
	}
	defer w.Stop()
	for {
		l, err := e.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			e.Fatal(err)
		}
		if len(l.Items) == 0 {
			return
		}
		if _, ok := <-w.ResultChan(); !ok {
			e.Fatalf("%d pods are left", len(l.Items))
		}
	}
}

func (e *env) everything() {
	ctx := e.Context()
	cm, err := e.client.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cm"}, Data: map[string]string{"k": "v1"}}, metav1.CreateOptions{})
	if err != nil {
		e.Fatal(err)
	}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "full", Labels: map[string]string{"a": "b"}}, Spec: v1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](5),
		InitContainers:                []v1.Container{{Name: "init", Image: image, Args: []string{"echo", "first"}}},
		Containers: []v1.Container{{
			Name: "c", Image: image,
			Env: []v1.EnvVar{{Name: "POD", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
				{Name: "KEY", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}, Key: "k"}}},
				{Name: "BOTH", Value: "$(POD)-$(KEY)-$$(POD)"}},
			VolumeMounts:   []v1.VolumeMount{{Name: "cm", MountPath: "/cm"}, {Name: "d", MountPath: "/d"}, {Name: "e", MountPath: "/e"}},
			ReadinessProbe: &v1.Probe{ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(80)}}, PeriodSeconds: 1},
			LivenessProbe:  &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"/bin/demo", "echo", "alive"}}}, PeriodSeconds: 1},
		}},
		Volumes: []v1.Volume{
			{Name: "cm", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}}},
			{Name: "d", VolumeSource: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
			{Name: "e", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
		},
	}}
	if _, err := e.client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		e.Fatal(err)
	}
	p := e.pod("full", ready)
	if s := p.Status.InitContainerStatuses[0]; s.State.Terminated == nil || s.State.Terminated.Reason != "Completed" {
		e.Errorf("init container: %+v", s)
	}
	if got := e.exec("full", "c", "", "/bin/demo", "env"); !strings.Contains(got, "BOTH=full-v1-$(POD)\n") {
		e.Errorf("environment:\n%s", got)
	}
	if got := e.exec("full", "c", "", "/bin/demo", "cat", "/cm/k", "/d/labels", "/var/run/secrets/kubernetes.io/serviceaccount/namespace"); got != `v1a="b"default` {
		e.Errorf("volumes: %q", got)
	}
	if got := e.exec("full", "c", "typed\n", "/bin/demo", "cat"); got != "typed\n" {
		e.Errorf("standard input: %q", got)
	}
	cm.Data["k"] = "v2"
	if _, err := e.client.CoreV1().ConfigMaps("default").Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		e.Fatal(err)
	}
	harness.Eventually(e, "a change of the ConfigMap to reach the pod", func() bool { return e.exec("full", "c", "", "/bin/demo", "cat", "/cm/k") == "v2" })
	if err := e.client.CoreV1().Pods("default").Delete(ctx, "full", metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}
	e.gone("a=b")
}

func (e *env) restarts() {
	ctx := e.Context()
	for _, c := range []struct {
		policy v1.RestartPolicy
		args   []string
		ok     func(*v1.Pod) bool
	}{
		{v1.RestartPolicyNever, []string{"echo", "done"}, func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded }},
		{v1.RestartPolicyNever, []string{"fail"}, func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed }},
		{v1.RestartPolicyOnFailure, []string{"fail"}, func(p *v1.Pod) bool {
			s := p.Status.ContainerStatuses
			return len(s) > 0 && s[0].RestartCount > 0 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff"
		}},
	} {
		name := strings.ToLower(fmt.Sprintf("%s-%s", c.policy, c.args[0]))
		_, err := e.client.CoreV1().Pods("default").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"restarts": ""}},
			Spec: v1.PodSpec{RestartPolicy: c.policy, Containers: []v1.Container{{Name: "c", Image: image, Args: c.args}}}}, metav1.CreateOptions{})
		if err != nil {
			e.Fatal(err)
		}
		e.pod(name, c.ok)
	}
	if _, err := e.client.CoreV1().Pods("default").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "absent", Labels: map[string]string{"restarts": ""}},
		Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "keelson.local/absent"}}}}, metav1.CreateOptions{}); err != nil {
		e.Fatal(err)
	}
	e.pod("absent", func(p *v1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) > 0 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "ImagePullBackOff"
	})
	if err := e.client.CoreV1().Pods("default").DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, metav1.ListOptions{LabelSelector: "restarts"}); err != nil && !apierrors.IsNotFound(err) {
		e.Fatal(err)
	}
	e.gone("restarts")
}
