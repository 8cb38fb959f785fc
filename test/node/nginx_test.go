package node_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	imagev1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
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

// layer collects the files of an image.
type layer struct {
	*testing.T
	buf  bytes.Buffer
	tar  *tar.Writer
	seen map[string]bool
}

func newLayer(t *testing.T) *layer {
	l := &layer{T: t, seen: map[string]bool{}}
	l.tar = tar.NewWriter(&l.buf)
	return l
}

// dir adds a folder, and those above it.
func (l *layer) dir(path string, mode int64) {
	path = strings.Trim(path, "/")
	if path == "." || path == "" || l.seen[path] {
		return
	}
	l.dir(filepath.Dir(path), 0o755)
	l.seen[path] = true
	if err := l.tar.WriteHeader(&tar.Header{Name: path + "/", Typeflag: tar.TypeDir, Mode: mode}); err != nil {
		l.Fatal(err)
	}
}

func (l *layer) file(path string, mode int64, data []byte) {
	path = strings.Trim(path, "/")
	if l.seen[path] {
		return
	}
	l.dir(filepath.Dir(path), 0o755)
	l.seen[path] = true
	if err := l.tar.WriteHeader(&tar.Header{Name: path, Mode: mode, Size: int64(len(data))}); err != nil {
		l.Fatal(err)
	}
	if _, err := l.tar.Write(data); err != nil {
		l.Fatal(err)
	}
}

// copy adds a file of this machine, under the same path.
func (l *layer) copy(path string) {
	data, err := os.ReadFile(path) // through links
	if err != nil {
		l.Fatal(err)
	}
	l.file(path, 0o755, data)
}

// libraries adds what the program at path is linked with.
func (l *layer) libraries(path string) {
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		l.Fatalf("ldd %s: %v", path, err)
	}
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				l.copy(word)
			}
		}
	}
}

func (l *layer) image(config imagev1.Config) imagev1.Image {
	if err := l.tar.Close(); err != nil {
		l.Fatal(err)
	}
	data := l.buf.Bytes()
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		l.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, content)
	if err != nil {
		l.Fatal(err)
	}
	if img, err = mutate.ConfigFile(img, withConfig(l.T, img, config)); err != nil {
		l.Fatal(err)
	}
	return img
}

func withConfig(t *testing.T, img imagev1.Image, config imagev1.Config) *imagev1.ConfigFile {
	f, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	f = f.DeepCopy()
	f.OS, f.Architecture, f.Config = "linux", runtime.GOARCH, config
	return f
}

// push puts the image into a registry on loopback that lives as long as the
// test, and gives its reference.
func push(t *testing.T, img imagev1.Image, repository string) string {
	s := httptest.NewServer(registry.New())
	t.Cleanup(s.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

// debianNginx is an image of this machine's nginx, with a shell.
func debianNginx(t *testing.T) imagev1.Image {
	l := newLayer(t)
	for _, program := range []string{"/usr/sbin/nginx", "/var/www/html/index.nginx-debian.html"} {
		if _, err := os.Stat(program); err != nil {
			t.Fatalf("%v: this test makes an image of Debian's nginx: install it (make test does)", err)
		}
		l.copy(program)
	}
	l.libraries("/usr/sbin/nginx")
	// Loaded by name, at run time.
	for _, nss := range []string{"/lib/x86_64-linux-gnu/libnss_files.so.2", "/lib/aarch64-linux-gnu/libnss_files.so.2"} {
		if _, err := os.Stat(nss); err == nil {
			l.copy(nss)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	l.file("/bin/busybox", 0o755, busybox)
	l.file("/bin/sh", 0o755, busybox)
	l.file("/etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n"))
	l.file("/etc/group", 0o644, []byte("root:x:0:\nwww-data:x:33:\n"))
	l.file("/etc/nginx/nginx.conf", 0o644, []byte(nginxConf))
	for _, d := range []string{"/run", "/var/log/nginx", "/var/lib/nginx"} {
		l.dir(d, 0o755)
	}
	l.dir("/tmp", 0o1777)
	return l.image(imagev1.Config{Entrypoint: []string{"/usr/sbin/nginx"}, Cmd: []string{"-g", "daemon off;"}, Env: []string{"PATH=/usr/sbin:/bin"}, StopSignal: "SIGQUIT"})
}

// nginx: three instances of a real web server, pulled from a registry.
func (e *env) nginx(t *testing.T) {
	image := push(t, debianNginx(t), "nginx:1")
	labels := map[string]string{"app": "nginx"}
	_, err := e.client.AppsV1().Deployments("default").Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "nginx"},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](3), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{
				Name: "nginx", Image: image, Ports: []v1.ContainerPort{{ContainerPort: 80}},
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
		if s := p.Status.ContainerStatuses[0]; s.Image != image || !strings.Contains(s.ImageID, "@sha256:") {
			e.Errorf("image %q, %q", s.Image, s.ImageID)
		}
	}
	if err := e.client.AppsV1().Deployments("default").Delete(t.Context(), "nginx", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		e.Fatal(err)
	}
	e.gone("app=nginx")
}
