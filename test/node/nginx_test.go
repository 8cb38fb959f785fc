package node_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	imagev1 "github.com/google/go-containerregistry/pkg/v1"
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness/imagetest"
)

const nginxConf = `user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
	access_log /dev/stdout;
	server { listen 80; root /var/www/html; index index.nginx-debian.html; }
}
`

// debianNginx returns an image of this machine's nginx, with a shell.
func debianNginx(t *testing.T) imagev1.Image {
	l := imagetest.NewLayer(t)
	for _, program := range []string{"/usr/sbin/nginx", "/var/www/html/index.nginx-debian.html"} {
		if _, err := os.Stat(program); err != nil {
			t.Fatalf("%v: this test makes an image of Debian's nginx: install it (make test does)", err)
		}
		l.Copy(program)
	}
	l.Libraries("/usr/sbin/nginx")
	// Loaded by name, at run time.
	for _, nss := range []string{"/lib/x86_64-linux-gnu/libnss_files.so.2", "/lib/aarch64-linux-gnu/libnss_files.so.2"} {
		if _, err := os.Stat(nss); err == nil {
			l.Copy(nss)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	l.File("/bin/busybox", 0o755, busybox)
	l.File("/bin/sh", 0o755, busybox)
	l.File("/etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n"))
	l.File("/etc/group", 0o644, []byte("root:x:0:\nwww-data:x:33:\n"))
	l.File("/etc/nginx/nginx.conf", 0o644, []byte(nginxConf))
	for _, d := range []string{"/run", "/var/log/nginx", "/var/lib/nginx"} {
		l.Dir(d, 0o755)
	}
	l.Dir("/tmp", 0o1777)
	return l.Image(imagev1.Config{Entrypoint: []string{"/usr/sbin/nginx"}, Cmd: []string{"-g", "daemon off;"}, Env: []string{"PATH=/usr/sbin:/bin"}, StopSignal: "SIGQUIT"})
}

// nginx runs three instances of a real web server, pulled from a registry.
func (e *env) nginx(t *testing.T) {
	nginx := imagetest.Push(t, debianNginx(t), "nginx:1")
	labels := map[string]string{"app": "nginx"}
	_, err := e.client.AppsV1().Deployments("default").Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "nginx"},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](3), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{
				Name: "nginx", Image: nginx, Ports: []v1.ContainerPort{{ContainerPort: 80}},
				ReadinessProbe: &v1.Probe{ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Port: intstr.FromInt32(80)}}, PeriodSeconds: 1},
			}}}}}}, metav1.CreateOptions{})
	if err != nil {
		e.Fatal(err)
	}
	e.available("nginx", 3)
	pods, err := e.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=nginx"})
	if err != nil {
		e.Fatal(err)
	}
	if len(pods.Items) != 3 {
		e.Fatalf("%d pods", len(pods.Items))
	}
	for _, p := range pods.Items {
		if got := e.get(fmt.Sprintf("http://%s/", p.Status.PodIP)); !strings.Contains(got, "<h1>Welcome to nginx!</h1>") {
			e.Errorf("%s says %q", p.Name, got)
		}
		if got := e.exec(p.Name, "nginx", "", "/bin/sh", "-c", "busybox id -u; busybox cat /proc/1/comm"); got != "0\nnginx\n" {
			e.Errorf("in %s: %q", p.Name, got)
		}
		log, err := e.client.CoreV1().Pods("default").GetLogs(p.Name, &v1.PodLogOptions{}).DoRaw(t.Context())
		if err != nil || !strings.Contains(string(log), `"GET / HTTP/1.1" 200`) {
			e.Errorf("log of %s: %q, %v", p.Name, log, err)
		}
		if s := p.Status.ContainerStatuses[0]; s.Image != nginx || !strings.Contains(s.ImageID, "@sha256:") {
			e.Errorf("image %q, %q", s.Image, s.ImageID)
		}
	}
	if err := e.client.AppsV1().Deployments("default").Delete(t.Context(), "nginx", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		e.Fatal(err)
	}
	e.gone("app=nginx")
}
