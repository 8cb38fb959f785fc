package network_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/podtest"
	"keelson.dev/keelson/test/harness/realnode"
)

func TestMain(m *testing.M) {
	harness.OwnNetwork()
	os.Exit(m.Run())
}

const image = "keelson.local/demo"

// env is a cluster of one node, and a namespace in it.
type env struct {
	testing.TB
	client *kubernetes.Clientset
	cfg    *rest.Config
	ns     string
}

// TestNetwork runs all tests on one node, one after the other, each in a
// namespace of its own.
func TestNetwork(t *testing.T) {
	n := realnode.Start(t, agent.Options{})
	client := kubernetes.NewForConfigOrDie(n.Config)
	for _, test := range []struct {
		name string
		f    func(*env)
	}{
		{"services", (*env).services},
		{"udp", (*env).udp},
		{"not-ready", (*env).notReady},
		{"names", (*env).names},
		{"flushed", (*env).flushed},
		{"firewalled", (*env).firewalled},
		{"policies", (*env).policies},
		{"balancers", (*env).balancers},
		{"ingress", (*env).ingress},
		{"reserved", (*env).reserved},
		{"readdressed", (*env).readdressed},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns, err := client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: test.name + "-"}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			test.f(&env{t, client, n.Config, ns.Name})
		})
	}
}

// start makes pods of the demo image, labelled app=<name>, and waits until they
// are ready.
func (e *env) start(app string, names ...string) (pods []*v1.Pod) {
	e.Helper()
	for _, n := range names {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: n, Labels: map[string]string{"app": app}}, Spec: v1.PodSpec{
			Containers: []v1.Container{{Name: "c", Image: image,
				ReadinessProbe: &v1.Probe{PeriodSeconds: 1, ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(80)}}}}},
		}}
		e.create(p)
	}
	for _, n := range names {
		pods = append(pods, e.ready(n))
	}
	return pods
}

func (e *env) create(p *v1.Pod) {
	e.Helper()
	if _, err := e.client.CoreV1().Pods(e.ns).Create(e.Context(), p, metav1.CreateOptions{}); err != nil {
		e.Fatal(err)
	}
}

func (e *env) ready(name string) *v1.Pod {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.Context(), harness.Patience)
	defer cancel()
	w, err := e.client.CoreV1().Pods(e.ns).Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		e.Fatal(err)
	}
	defer w.Stop()
	var last any
	for ev := range w.ResultChan() {
		p, ok := ev.Object.(*v1.Pod)
		if last = ev.Object; !ok {
			continue
		}
		if podtest.Ready(p) {
			return p
		}
	}
	e.Fatalf("pod %s is not ready: %+v", name, last)
	return nil
}

// expose makes a Service of the pods of an app, with port 80 of TCP and UDP.
func (e *env) expose(name, app string, change ...func(*v1.ServiceSpec)) *v1.Service {
	e.Helper()
	s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceSpec{Selector: map[string]string{"app": app},
		Ports: []v1.ServicePort{{Name: "web", Port: 80, Protocol: v1.ProtocolTCP}, {Name: "dgram", Port: 80, Protocol: v1.ProtocolUDP}}}}
	for _, f := range change {
		f(&s.Spec)
	}
	s, err := e.client.CoreV1().Services(e.ns).Create(e.Context(), s, metav1.CreateOptions{})
	if err != nil {
		e.Fatal(err)
	}
	return s
}

// exec runs the demo program in a pod.
func (e *env) exec(pod string, args ...string) (string, error) {
	return podtest.Exec(e.Context(), e.cfg, e.ns, pod, "", "", append([]string{"/bin/demo"}, args...)...)
}

// get sends a GET from the node, on a connection of its own.
func (e *env) get(url string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(e.Context(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// host returns the pod that answered.
func host(answer string) string {
	line, _, _ := strings.Cut(answer, "\n")
	return strings.TrimPrefix(line, "Hello from ")
}

// reaches waits until f has been answered by each of these pods and by no other.
func (e *env) reaches(what string, f func() (string, error), pods ...string) {
	e.Helper()
	want := map[string]bool{}
	for _, p := range pods {
		want[p] = true
	}
	harness.Succeeds(e, what, func() error {
		seen := map[string]bool{}
		for range 40 {
			out, err := f()
			if err != nil {
				return err
			}
			h := host(out)
			if !want[h] {
				return fmt.Errorf("%s answered", h)
			}
			if seen[h] = true; len(seen) == len(want) {
				return nil
			}
		}
		return fmt.Errorf("only %v answered, want %v", seen, pods)
	})
}
