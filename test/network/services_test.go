package network_test

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/test/harness"
)

// services checks that pods are reached at each kind of address.
func (e *env) services() {
	pods := e.start("web", "a", "b")
	s := e.expose("web", "web", func(s *v1.ServiceSpec) { s.Type = v1.ServiceTypeNodePort; s.ExternalIPs = []string{"203.0.113.9"} })
	url := "http://" + s.Spec.ClusterIP + "/"
	from := func(pod, url string) func() (string, error) {
		return func() (string, error) { return e.exec(pod, "get", url) }
	}
	e.reaches("pods, itself among them, by the cluster address", from("a", url), "a", "b")
	e.reaches("pods from the node", func() (string, error) { return e.get(url) }, "a", "b")
	node := net.JoinHostPort(pods[0].Status.HostIP, strconv.Itoa(int(s.Spec.Ports[0].NodePort)))
	e.reaches("pods from the node by the node port", func() (string, error) { return e.get("http://" + node + "/") }, "a", "b")
	e.reaches("pods from a pod by the node port", from("a", "http://"+node+"/"), "a", "b")
	e.reaches("pods by the external address", func() (string, error) { return e.get("http://203.0.113.9/") }, "a", "b")

	// A pod reaches itself through its own Service, and sees the addresses of other
	// pods untranslated.
	own := e.expose("own", "alone")
	e.start("alone", "c")
	e.reaches("a pod by its own Service", from("c", "http://"+own.Spec.ClusterIP+"/"), "c")
	seen, err := e.exec("a", "get", "http://"+own.Spec.ClusterIP+"/client")
	if err != nil {
		e.Fatal(err)
	}
	if ip, _, _ := net.SplitHostPort(strings.TrimSpace(seen)); ip != pods[0].Status.PodIP {
		e.Errorf("the pod saw %s as the client, which has %s", ip, pods[0].Status.PodIP)
	}

	// Connections are refused at once, not dropped.
	none := e.expose("none", "nobody")
	harness.Succeeds(e, "a refusal", func() error {
		for _, port := range []string{"80", "81"} {
			_, err := e.get("http://" + net.JoinHostPort(none.Spec.ClusterIP, port) + "/")
			if err == nil || !strings.Contains(err.Error(), "connection refused") {
				return fmt.Errorf("port %s of a Service without endpoints: %w", port, err)
			}
			_, err = e.exec("a", "get", "http://"+net.JoinHostPort(none.Spec.ClusterIP, port)+"/")
			if err == nil || !strings.Contains(err.Error(), "connection refused") {
				return fmt.Errorf("port %s of a Service without endpoints, from a pod: %w", port, err)
			}
		}
		return nil
	})

	if err := e.client.CoreV1().Pods(e.ns).Delete(e.Context(), "b", metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}
	e.reaches("the pod that is left", func() (string, error) { return e.get(url) }, "a")

	// Affinity: the client that has reached one pod stays with it.
	e.start("web", "d", "f")
	sticky := e.expose("sticky", "web", func(s *v1.ServiceSpec) { s.SessionAffinity = v1.ServiceAffinityClientIP })
	e.reaches("all pods", from("a", url), "a", "d", "f")
	first := ""
	harness.Succeeds(e, "the Service with affinity", func() error {
		out, err := e.get("http://" + sticky.Spec.ClusterIP + "/")
		first = host(out)
		return err
	})
	for range 20 {
		out, err := e.get("http://" + sticky.Spec.ClusterIP + "/")
		if err != nil || host(out) != first {
			e.Fatalf("first %s answered, then %q, %v", first, out, err)
		}
	}
}

// udp checks that a flow of UDP moves from one endpoint to the next: without an
// end, the kernel would keep sending it to the old one.
func (e *env) udp() {
	s := e.expose("dgram", "dgram")
	c, err := (&net.Dialer{}).DialContext(e.Context(), "udp", net.JoinHostPort(s.Spec.ClusterIP, "80"))
	if err != nil {
		e.Fatal(err)
	}
	defer c.Close()
	ask := func() (string, error) {
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return "", err
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			return "", err
		}
		b := make([]byte, 512)
		n, err := c.Read(b)
		return string(b[:n]), err
	}
	if out, err := ask(); err == nil {
		e.Errorf("nobody is there, and %q", out)
	}
	e.start("dgram", "a")
	e.reaches("the first pod", ask, "a")
	e.start("dgram", "b")
	if err := e.client.CoreV1().Pods(e.ns).Delete(e.Context(), "a", metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}
	e.reaches("the second pod on the same flow", ask, "b")
}

// flushed checks that rules which another process deletes are restored.
func (e *env) flushed() {
	e.start("web", "a")
	s := e.expose("web", "web")
	get := func() (string, error) { return e.get("http://" + s.Spec.ClusterIP + "/") }
	e.reaches("the pod", get, "a")
	for _, what := range []string{"flush table ip keelson-proxy", "delete table ip keelson-proxy"} {
		ctx, cancel := context.WithTimeout(e.Context(), harness.Patience)
		defer cancel()
		if out, err := exec.CommandContext(ctx, "nft", what).CombinedOutput(); err != nil {
			e.Fatalf("nft %s: %v: %s", what, err, out)
		}
		e.reaches("the pod after nft "+what, get, "a")
	}
}
