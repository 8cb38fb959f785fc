package node_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	imagev1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/imageload"
	"keelson.dev/keelson/test/harness/imagetest"
)

// loadedImage checks that a pod runs an image that no registry has, from an archive;
// the archive is loaded again with another image of that name.
func (e *env) loadedImage(t *testing.T) {
	const image = "docker.io/library/loaded:1"
	runtime, err := cri.Connect(t.Context(), e.runtime)
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.Close()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"the first", "the second"} {
		l := imagetest.NewLayer(t)
		l.File("/bin/busybox", 0o755, program)
		var archive bytes.Buffer
		if err := tarball.Write(name.MustParseReference("loaded:1"), l.Image(imagev1.Config{Entrypoint: []string{"/bin/busybox"}, Cmd: []string{"echo", text}}), &archive); err != nil {
			t.Fatal(err)
		}
		var loaded []string
		if err := imageload.Load(t.Context(), runtime, &archive, func(n string) { loaded = append(loaded, n) }); err != nil {
			t.Fatal(err)
		}
		if len(loaded) != 1 || loaded[0] != image {
			t.Errorf("loaded %v", loaded)
		}
		pod := strings.ReplaceAll("loaded-"+text, " ", "-")
		if _, err := e.client.CoreV1().Pods("default").Create(t.Context(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: pod},
			Spec: v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, Containers: []v1.Container{{Name: "c", Image: "loaded:1", ImagePullPolicy: v1.PullNever}}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		e.pod(pod, func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded })
		log, err := e.client.CoreV1().Pods("default").GetLogs(pod, &v1.PodLogOptions{}).DoRaw(t.Context())
		if err != nil || string(log) != text+"\n" {
			t.Errorf("log %q, %v", log, err)
		}
		if err := e.client.CoreV1().Pods("default").Delete(t.Context(), pod, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := runtime.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list.Images {
		for _, n := range append(i.RepoTags, i.RepoDigests...) {
			if strings.HasPrefix(n, "127.0.0.1:") && strings.Contains(n, "/loaded") {
				t.Errorf("the name %s is left", n)
			}
		}
	}
}
