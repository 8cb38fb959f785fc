package node_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

// proxies checks requests through the API server to a pod, a service and the node, and
// to the node's own server.
func (e *env) proxies() {
	ctx := e.Context()
	labels := map[string]string{"app": "proxied"}
	_, err := e.client.AppsV1().Deployments("default").Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "proxied"},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "web", Image: image,
				Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 80}}}}}}}}, metav1.CreateOptions{})
	if err != nil {
		e.Fatal(err)
	}
	_, err = e.client.CoreV1().Services("default").Create(ctx, &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "proxied"},
		Spec: v1.ServiceSpec{Selector: labels, Ports: []v1.ServicePort{{Port: 8000, TargetPort: intstr.FromString("http")}}}}, metav1.CreateOptions{})
	if err != nil {
		e.Fatal(err)
	}
	e.available("proxied", 1)
	pods, err := e.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=proxied"})
	if err != nil || len(pods.Items) != 1 {
		e.Fatal(pods, err)
	}
	pod := &pods.Items[0]
	node, err := e.client.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{})
	if err != nil {
		e.Fatal(err)
	}
	port := strconv.Itoa(int(node.Status.DaemonEndpoints.KubeletEndpoint.Port))
	for path, want := range map[string]string{
		"/api/v1/namespaces/default/pods/" + pod.Name + "/proxy/a/b":      "Hello from " + pod.Name + "\nGET /a/b\n",
		"/api/v1/namespaces/default/pods/" + pod.Name + ":http/proxy/a":   "Hello from " + pod.Name + "\nGET /a\n",
		"/api/v1/namespaces/default/services/proxied:8000/proxy/a/b":      "Hello from " + pod.Name + "\nGET /a/b\n",
		"/api/v1/nodes/" + pod.Spec.NodeName + "/proxy/healthz":           "ok",
		"/api/v1/nodes/" + pod.Spec.NodeName + "/proxy/pods":              pod.Name,
		"/api/v1/nodes/" + pod.Spec.NodeName + ":" + port + "/proxy/pods": pod.Name,
	} {
		harness.Succeeds(e, path, func() error {
			got, err := e.client.CoreV1().RESTClient().Get().AbsPath(path).DoRaw(ctx)
			if err == nil && !strings.Contains(string(got), want) {
				err = fmt.Errorf("the answer is %.300q, want %q", got, want)
			}
			return err
		})
	}
	if !strings.HasSuffix(node.Status.NodeInfo.KubeletVersion, "+keelson") {
		e.Errorf("the node's version is %s: its certificate would not be verified", node.Status.NodeInfo.KubeletVersion)
	}
	at := "https://" + net.JoinHostPort(pod.Status.HostIP, port)
	strangers := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for _, path := range []string{"/pods", "/healthz", "/exec/default/" + pod.Name + "/web?command=id&output=1"} {
		resp, err := strangers.Get(at + path)
		if err != nil {
			e.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			e.Errorf("a stranger gets %s: %d %.100s", path, resp.StatusCode, body)
		}
	}
	if err := e.client.CoreV1().Services("default").Delete(ctx, "proxied", metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}
	if err := e.client.AppsV1().Deployments("default").Delete(ctx, "proxied", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		e.Fatal(err)
	}
	e.gone("app=proxied")
}
