package controlplane

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"keelson.dev/keelson/internal/apiserver/answer"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/test/harness"
)

// endless is a server that answers begin, and then x for as long as its client
// reads, or as sane has it where that answers.
type endless struct {
	*httptest.Server
	begin string
	sane  func(path string) string
	// sent is how much of x the longest answer had, ended how many answers have ended.
	sent, ended atomic.Int64
}

func newEndless(t *testing.T, begin string, sane func(path string) string) *endless {
	e := &endless{begin: begin, sane: sane}
	e.Server = httptest.NewTLSServer(e)
	t.Cleanup(e.Close)
	return e
}

// ServeHTTP implements http.Handler.
func (e *endless) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body)
	w.Header().Set("Content-Type", "application/json")
	if e.sane != nil {
		if s := e.sane(req.URL.Path); s != "" {
			_, _ = io.WriteString(w, s)
			return
		}
	}
	defer e.ended.Add(1)
	_, _ = io.WriteString(w, e.begin)
	x := []byte(strings.Repeat("x", 64<<10))
	for n := int64(0); ; {
		if _, err := w.Write(x); err != nil {
			return
		}
		n += int64(len(x))
		for most := e.sent.Load(); n > most && !e.sent.CompareAndSwap(most, n); most = e.sent.Load() {
		}
	}
}

// authority returns the server's certificate, in the base64 of PEM.
func (e *endless) authority() string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate().Raw}))
}

// check waits for the end of an answer, and checks that no more than most bytes
// of it were read.
func (e *endless) check(t *testing.T, most int64) {
	t.Helper()
	harness.Eventually(t, "an answer to be asked for and ended", func() bool { return e.ended.Load() > 0 })
	if n := e.sent.Load(); n > most+16<<20 { // what is on its way
		t.Errorf("%d MB of an answer were taken", n>>20)
	}
}

// TestEndlessAnswers has webhooks and an aggregated API server answer without end:
// the client gets an error, or goes on without the answer, and no part of the
// process holds more than a little of it.
func TestEndlessAnswers(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	post := func(path, body string) {
		t.Helper()
		if w := ask(c, "POST", path, body); w.Code != http.StatusCreated {
			t.Fatal(w.Body)
		}
	}
	t.Run("admission", func(t *testing.T) {
		e := newEndless(t, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"`, nil)
		post("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", fmt.Sprintf(`{"metadata":{"name":"endless"},"webhooks":[{"name":"endless.example.com","sideEffects":"None","admissionReviewVersions":["v1"],
			"clientConfig":{"url":%q,"caBundle":%q},"rules":[{"operations":["CREATE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["configmaps"]}]}]}`, e.URL, e.authority()))
		var w *httptest.ResponseRecorder
		harness.Eventually(t, "the webhook is asked", func() bool {
			w = ask(c, "POST", configMaps+"?dryRun=All", `{"metadata":{"name":"m"}}`)
			return w.Code != http.StatusCreated
		})
		if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "is too large") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		e.check(t, answer.MaxBytes)
	})
	t.Run("conversion", func(t *testing.T) {
		e := newEndless(t, `{"kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/v1","response":{"uid":"`, nil)
		const boats = "/apis/sea.example.com/v1/namespaces/default/boats"
		post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", fmt.Sprintf(`{"metadata":{"name":"boats.sea.example.com"},"spec":{"group":"sea.example.com","scope":"Namespaced","names":{"plural":"boats","kind":"Boat"},
			"conversion":{"strategy":"Webhook","webhook":{"conversionReviewVersions":["v1"],"clientConfig":{"url":%q,"caBundle":%q}}},
			"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}},{"name":"v2","served":true,"storage":false,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`, e.URL, e.authority()))
		harness.Eventually(t, "the resource is served", func() bool { return ask(c, "GET", boats, "").Code == http.StatusOK })
		post(boats, `{"apiVersion":"sea.example.com/v1","kind":"Boat","metadata":{"name":"b"}}`)
		if w := ask(c, "GET", strings.Replace(boats, "/v1/", "/v2/", 1)+"/b", ""); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "is too large") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		e.check(t, answer.MaxBytes)
	})
	// aggregate has e serve the group.
	aggregate := func(t *testing.T, e *endless, group string) schema.GroupVersionResource {
		t.Helper()
		_, port, err := net.SplitHostPort(e.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ReplaceAll(group, ".", "-")
		post("/api/v1/namespaces/default/services", fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"type":"ExternalName","externalName":"127.0.0.1"}}`, name))
		post("/apis/apiregistration.k8s.io/v1/apiservices", fmt.Sprintf(`{"metadata":{"name":"v1.%[1]s"},"spec":{"group":%[1]q,"version":"v1","groupPriorityMinimum":2000,"versionPriority":10,
			"insecureSkipTLSVerify":true,"service":{"namespace":"default","name":%[2]q,"port":%[3]s}}}`, group, name, port))
		harness.Eventually(t, "the API is available", func() bool {
			return ask(c, "GET", "/apis/"+group+"/v1", "").Code == http.StatusOK
		})
		return schema.GroupVersionResource{Group: group, Version: "v1", Resource: "fish"}
	}
	t.Run("discovery", func(t *testing.T) {
		e := newEndless(t, `{"paths":{"`, func(path string) string {
			if path == "/apis/endless.example.com/v1" {
				return `{"kind":"APIResourceList","groupVersion":"endless.example.com/v1","resources":[{"name":"fish","kind":"Fish","namespaced":true,"verbs":["list","watch"]}]}`
			}
			return ""
		})
		aggregate(t, e, "endless.example.com")
		e.check(t, answer.MaxBytes)
		if w := ask(c, "GET", "/apis/apps/v1", ""); w.Code != http.StatusOK {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("list", func(t *testing.T) {
		e := newEndless(t, `{"kind":"FishList","apiVersion":"list.example.com/v1","metadata":{"continue":"`, func(path string) string {
			if strings.Contains(path, "fish") {
				return ""
			}
			return `{"kind":"APIResourceList","groupVersion":"list.example.com/v1","resources":[{"name":"fish","kind":"Fish","namespaced":true,"verbs":["list","watch"]}]}`
		})
		fish := dynamic.NewForConfigOrDie(c.Config(inprocess.Admin)).Resource(aggregate(t, e, "list.example.com"))
		var l *unstructured.UnstructuredList
		var err error
		harness.Eventually(t, "the list is passed on", func() bool {
			l, err = fish.List(t.Context(), metav1.ListOptions{})
			return !apierrors.IsServiceUnavailable(err)
		})
		if err == nil {
			t.Errorf("a list of %d bytes", len(l.GetContinue()))
		}
		e.check(t, 64<<20)
	})
	t.Run("watch", func(t *testing.T) {
		const event = `{"type":"ADDED","object":{"kind":"Fish","apiVersion":"watch.example.com/v1","metadata":{"name":"first"}}}` + "\n"
		e := newEndless(t, event+`{"type":"ADDED","object":{"kind":"Fish","apiVersion":"watch.example.com/v1","metadata":{"name":"`, func(path string) string {
			if strings.Contains(path, "fish") {
				return ""
			}
			return `{"kind":"APIResourceList","groupVersion":"watch.example.com/v1","resources":[{"name":"fish","kind":"Fish","namespaced":true,"verbs":["list","watch"]}]}`
		})
		fish := dynamic.NewForConfigOrDie(c.Config(inprocess.Admin)).Resource(aggregate(t, e, "watch.example.com"))
		var w watch.Interface
		var err error
		harness.Eventually(t, "the watch is passed on", func() bool {
			w, err = fish.Watch(t.Context(), metav1.ListOptions{})
			return !apierrors.IsServiceUnavailable(err)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		var seen []string
		for ev := range w.ResultChan() {
			if u, ok := ev.Object.(*unstructured.Unstructured); ok {
				seen = append(seen, u.GetName())
			} else if _, err := meta.Accessor(ev.Object); err == nil {
				t.Errorf("event %v", ev)
			}
		}
		if len(seen) != 1 || seen[0] != "first" {
			t.Errorf("saw %q", seen)
		}
		e.check(t, answer.MaxBytes)
	})
}
