package cloud

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realnode"
)

// TestAgent has a node that runs containers be a machine of the cloud.
func TestAgent(t *testing.T) {
	n := realnode.StartApart(t, agent.Options{ExternalCloud: true, ProviderID: providerName + "://i-7"})
	s := &site{t, kubernetes.NewForConfigOrDie(n.Config), NewCloud(t)}
	node := s.node("node")
	if !tainted(node, uninitialized) || len(node.Status.Addresses) != 1 || node.Status.Addresses[0].Type != v1.NodeHostName || node.Spec.ProviderID != providerName+"://i-7" {
		t.Fatalf("the node has registered with %+v and the addresses %v", node.Spec, node.Status.Addresses)
	}
	const internal, external = "172.29.213.2", "198.51.100.7"
	s.cloud.Add("another name", machine("i-7", internal, external))
	manage(t, s.cloud, n.Config, podRange)
	pods := s.client.CoreV1().Pods("default")
	if _, err := pods.Create(t.Context(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"app": "web"}},
		Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "keelson.local/demo"}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Succeeds(t, "the pod to run", func() error {
		p, err := pods.Get(t.Context(), "web", metav1.GetOptions{})
		if err == nil && (p.Status.Phase != v1.PodRunning || p.Status.HostIP != internal) {
			err = fmt.Errorf("it is %s on %s: %v", p.Status.Phase, p.Status.HostIP, p.Status.Conditions)
		}
		return err
	})
	// The node is reached by the address that the cloud has given.
	harness.Succeeds(t, "the pod's log", func() error {
		_, err := pods.GetLogs("web", &v1.PodLogOptions{}).DoRaw(t.Context())
		return err
	})
	s.service("web", func(svc *v1.Service) {
		svc.Spec.Selector, svc.Spec.Ports = map[string]string{"app": "web"}, []v1.ServicePort{{Port: 80}}
	})
	s.has("web", "203.0.113.1", true)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	harness.Succeeds(t, "an answer at the load balancer's address", func() error {
		resp, err := client.Get("http://203.0.113.1/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && !strings.Contains(string(b), "web") {
			err = fmt.Errorf("%s: %s", resp.Status, b)
		}
		return err
	})
	// The node has told its images since, and has left the addresses as they were given.
	harness.Succeeds(t, "a status with the pod's image", func() error {
		node := s.node("node")
		want := []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: internal}, {Type: v1.NodeExternalIP, Address: external}, {Type: v1.NodeHostName, Address: "node"}}
		if !slices.Equal(node.Status.Addresses, want) {
			return fmt.Errorf("the addresses %v, want %v", node.Status.Addresses, want)
		}
		if !slices.ContainsFunc(node.Status.Images, func(i v1.ContainerImage) bool {
			return strings.Contains(strings.Join(i.Names, " "), "keelson.local/demo")
		}) {
			return fmt.Errorf("the images %v", node.Status.Images)
		}
		return nil
	})
}
