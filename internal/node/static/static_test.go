package static

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"
)

const manifest = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: c, image: img}]}
`

func TestDecode(t *testing.T) {
	seen := time.Unix(100, 0).UTC()
	p, err := Decode([]byte(manifest), Origin{FileSource, "/etc/m/web.yaml"}, "node-1", seen)
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
		q, err := Decode([]byte(c.manifest), Origin{FileSource, c.file}, c.node, seen)
		if err != nil || q.UID == p.UID || Shows(m, q) {
			t.Errorf("%s is the same pod (%v)", name, err)
		}
	}
	for name, c := range map[string]struct{ manifest, want string }{
		"no YAML":      {"{", "yaml"},
		"another kind": {strings.Replace(manifest, "kind: Pod", "kind: Service", 1), `a Service of "v1", want a Pod`},
		"no kind":      {"a: b", `nothing of ""`},
		"no name":      {strings.Replace(manifest, "name: web", "", 1), "name is needed for the pod"},
		"no image":     {strings.Replace(manifest, ", image: img", "", 1), "spec.containers[0].image: Required value"},
	} {
		if _, err := Decode([]byte(c.manifest), Origin{FileSource, "f"}, "n", seen); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestReferences checks that a static pod may use no object of the API, whatever it is of, and from wherever
// its manifest is.
func TestReferences(t *testing.T) {
	spec := func(s string) string {
		return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{` + s + `}}`
	}
	container := func(s string) string { return `"containers":[{"name":"c","image":"img"` + s + `}]` }
	volume := func(s string) string { return spec(container("") + `,"volumes":[{"name":"v",` + s + `}]`) }
	projected := func(s string) string { return volume(`"projected":{"sources":[` + s + `]}`) }
	for m, want := range map[string]string{
		spec(container("") + `,"serviceAccountName":"a"`):                                                                                   "serviceaccounts",
		spec(container("") + `,"serviceAccount":"a"`):                                                                                       "serviceaccounts",
		spec(container("") + `,"imagePullSecrets":[{"name":"s"}]`):                                                                          "secrets",
		spec(container(`,"env":[{"name":"E","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}]`)):                                        "secrets",
		spec(container(`,"envFrom":[{"secretRef":{"name":"s"}}]`)):                                                                          "secrets",
		spec(container(`,"env":[{"name":"E","valueFrom":{"configMapKeyRef":{"name":"s","key":"k"}}}]`)):                                     "configmaps",
		spec(container(`,"envFrom":[{"configMapRef":{"name":"s"}}]`)):                                                                       "configmaps",
		spec(container("") + `,"initContainers":[{"name":"i","image":"img","envFrom":[{"secretRef":{"name":"s"}}]}]`):                       "secrets",
		spec(container("") + `,"resourceClaims":[{"name":"r","resourceClaimName":"c"}]`):                                                    "resourceclaims",
		volume(`"secret":{"secretName":"s"}`):                                                                                               "secrets",
		volume(`"configMap":{"name":"s"}`):                                                                                                  "configmaps",
		volume(`"azureFile":{"secretName":"s","shareName":"x"}`):                                                                            "secrets",
		volume(`"csi":{"driver":"example.com"}`):                                                                                            "csidrivers (via CSI volumes)",
		volume(`"csi":{"driver":"example.com","nodePublishSecretRef":{"name":"s"}}`):                                                        "secrets",
		volume(`"glusterfs":{"endpoints":"e","path":"p"}`):                                                                                  "endpoints (via glusterFS volumes)",
		volume(`"persistentVolumeClaim":{"claimName":"c"}`):                                                                                 "persistentvolumeclaims",
		volume(`"ephemeral":{"volumeClaimTemplate":{"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}}`): "persistentvolumeclaims (via ephemeral volumes)",
		projected(`{"secret":{"name":"s"}}`):                                                                                                "secrets",
		projected(`{"configMap":{"name":"s"}}`):                                                                                             "configmaps",
		projected(`{"clusterTrustBundle":{"name":"b","path":"t"}}`):                                                                         "clustertrustbundles",
		projected(`{"podCertificate":{"signerName":"example.com/s","keyType":"ED25519","credentialBundlePath":"c"}}`):                       "podcertificates",
		projected(`{"downwardAPI":{"items":[{"path":"n","fieldRef":{"fieldPath":"metadata.name"}}]}}`):                                      "",
		volume(`"emptyDir":{}`): "", volume(`"hostPath":{"path":"/x"}`): "", volume(`"image":{"reference":"i"}`): "", spec(container("")): "",
	} {
		_, err := Decode([]byte(m), Origin{FileSource, "f"}, "n", time.Unix(1, 0))
		_, listErr := DecodeAll([]byte(`{"apiVersion":"v1","kind":"PodList","items":[`+m+`]}`), Origin{URLSource, "u"}, "n", time.Unix(1, 0))
		if want == "" {
			if err != nil || listErr != nil {
				t.Errorf("%s: %v, %v", m, err, listErr)
			}
			continue
		}
		want = "static pods may not reference " + want
		if err == nil || err.Error() != want || listErr == nil || !strings.HasSuffix(listErr.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", m, err, listErr, want)
		}
	}
}

// TestURL checks that the pods of a URL follow what it answers, and stay as they are while it does not.
func TestURL(t *testing.T) {
	var answer atomic.Pointer[string]
	asked := make(chan http.Header, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.Header:
		default:
		}
		if text := *answer.Load(); text != "down" {
			_, _ = w.Write([]byte(text))
		} else {
			http.Error(w, "down", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	second := strings.Replace(manifest, "web", "other", 1)
	clock := testingclock.NewFakeClock(time.Unix(1, 0))
	u := URL{URL: server.URL, Header: http.Header{"Authorization": {"Bearer x"}}, Node: "n", Clock: clock}
	client := server.Client()
	for _, c := range []struct {
		answer string
		names  string
		fresh  bool
		err    string
	}{
		{"down", "", false, "503"}, {manifest, "web-n", true, ""}, {manifest, "", false, ""}, {"down", "", false, "503"}, {manifest, "", false, ""},
		{`{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}]}},{"metadata":{"name":"b"},"spec":{"containers":[{"name":"c","image":"i"}]}}]}`, "a-n b-n", true, ""},
		{"a: b", "", false, "want a Pod"}, {second, "other-n", true, ""}, {"", "", true, "zero-length data received from"}, {second, "other-n", true, ""},
		{`{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}]}},{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}]}}]}`, "", false, "two static pods have the name default/a-n"},
	} {
		answer.Store(&c.answer)
		pods, fresh, err := u.read(t.Context(), client)
		var names []string
		for _, p := range pods {
			names = append(names, p.Name)
			if p.Annotations[SourceAnnotation] != "http" || !IsStatic(p) || len(p.Spec.Tolerations) != 0 || len(p.UID) != 32 {
				t.Errorf("%+v", p.ObjectMeta)
			}
		}
		if strings.Join(names, " ") != c.names || fresh != c.fresh || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%.40q: %v %v %v, want %s %v %q", c.answer, names, fresh, err, c.names, c.fresh, c.err)
		}
	}
	if h := <-asked; h.Get("Authorization") != "Bearer x" {
		t.Errorf("headers: %v", h)
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
