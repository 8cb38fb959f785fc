package static

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

const manifest = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: c, image: img}]}
`

func TestDecode(t *testing.T) {
	seen := time.Unix(100, 0).UTC()
	p, err := Decode([]byte(manifest), "/etc/m/web.yaml", "node-1", seen)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "web-node-1" || p.Namespace != "default" || p.Spec.NodeName != "node-1" || len(p.UID) != 32 || p.Spec.RestartPolicy != v1.RestartPolicyAlways {
		t.Errorf("%+v", p)
	}
	if a := p.Annotations; a[HashAnnotation] != string(p.UID) || a[SourceAnnotation] != "file" || a[SeenAnnotation] != "1970-01-01T00:01:40Z" {
		t.Errorf("annotations: %v", a)
	}
	if n := len(p.Spec.Tolerations); n != 1 || p.Spec.Tolerations[0] != (v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute}) {
		t.Errorf("tolerations: %v", p.Spec.Tolerations)
	}
	if !IsStatic(p) || IsMirror(p) {
		t.Error("it does not count as a static pod")
	}
	m := Mirror(p, "node-uid")
	if IsStatic(m) || !IsMirror(m) || !Shows(m, p) || m.UID != "" || m.Name != p.Name || m.OwnerReferences[0].UID != "node-uid" || !*m.OwnerReferences[0].Controller {
		t.Errorf("mirror: %+v", m.ObjectMeta)
	}
	for name, c := range map[string]struct{ manifest, file, node string }{
		"another manifest": {strings.Replace(manifest, "img", "img2", 1), "/etc/m/web.yaml", "node-1"},
		"another file":     {manifest, "/etc/m/web2.yaml", "node-1"},
		"another node":     {manifest, "/etc/m/web.yaml", "node-2"},
	} {
		q, err := Decode([]byte(c.manifest), c.file, c.node, seen)
		if err != nil || q.UID == p.UID || Shows(m, q) {
			t.Errorf("%s is the same pod (%v)", name, err)
		}
	}
	for name, c := range map[string]struct{ manifest, want string }{
		"no YAML":      {"{", "yaml"},
		"another kind": {strings.Replace(manifest, "kind: Pod", "kind: Service", 1), `a Service of "v1", want a Pod`},
		"no kind":      {"a: b", `nothing of ""`},
		"no name":      {strings.Replace(manifest, "name: web", "", 1), "without a name"},
		"no image":     {strings.Replace(manifest, ", image: img", "", 1), "spec.containers[0].image: Required value"},
	} {
		if _, err := Decode([]byte(c.manifest), "f", "n", seen); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	s := Source{Path: dir, Node: "n", Clock: clock.RealClock{}}
	write(t, filepath.Join(dir, "b.yaml"), strings.Replace(manifest, "web", "b", 1))
	write(t, filepath.Join(dir, "a.json"), `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
	write(t, filepath.Join(dir, "broken.yaml"), "{")
	write(t, filepath.Join(dir, "twice.yaml"), strings.Replace(manifest, "web", "a", 1))
	write(t, filepath.Join(dir, ".hidden"), manifest)
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	names := func(pods []*v1.Pod) string {
		var out []string
		for _, p := range pods {
			out = append(out, p.Name)
		}
		return strings.Join(out, " ")
	}
	first := s.Read(t.Context())
	if got := names(first); got != "a-n b-n" {
		t.Errorf("pods: %s", got)
	}
	again := s.Read(t.Context())
	if again[0].Annotations[SeenAnnotation] != first[0].Annotations[SeenAnnotation] {
		t.Error("a pod was seen first twice")
	}
	one := Source{Path: filepath.Join(dir, "b.yaml"), Node: "n", Clock: clock.RealClock{}}
	if got := names(one.Read(t.Context())); got != "b-n" {
		t.Errorf("of one file: %s", got)
	}
	none := Source{Path: filepath.Join(dir, "none"), Node: "n", Clock: clock.RealClock{}}
	if got := none.Read(t.Context()); got != nil {
		t.Errorf("of a folder that is not there: %v", got)
	}
}

// TestRun checks that a change of the folder is noticed.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	s := Source{Path: dir, Node: "n", Clock: clock.RealClock{}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := make(chan int)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, func(p []*v1.Pod) {
			select {
			case got <- len(p):
			case <-ctx.Done():
			}
		})
	}()
	if n := <-got; n != 0 {
		t.Fatalf("%d pods in an empty folder", n)
	}
	write(t, filepath.Join(dir, "a.yaml"), manifest)
	for n := range got {
		if n == 1 {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the new manifest was not noticed")
		}
	}
	cancel()
	<-done
}
