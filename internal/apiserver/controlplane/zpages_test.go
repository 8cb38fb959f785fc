package controlplane

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	flagzv1beta1 "k8s.io/apiserver/pkg/server/flagz/api/v1beta1"
	statuszv1beta1 "k8s.io/apiserver/pkg/server/statusz/api/v1beta1"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/features"
	"keelson.dev/keelson/internal/apiserver/inprocess"
)

func page(c *Instance, u user.Info, path, accept string) *httptest.ResponseRecorder {
	req := httptest.NewRequest("GET", path, nil)
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), u)))
	return w
}

func TestZPages(t *testing.T) {
	c := boot(t, Options{NoDrain: true, Flags: map[string]string{"service-cidr": "10.96.0.0/16"}})
	if w := page(c, inprocess.Admin, "/statusz", "text/plain"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "kube-apiserver statusz") || !strings.Contains(w.Body.String(), "/readyz") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := page(c, inprocess.Admin, "/flagz", "text/plain"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "service-cidr") || !strings.Contains(w.Body.String(), "10.96.0.0/16") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	var status statuszv1beta1.Statusz
	w := page(c, inprocess.Admin, "/statusz", "application/json;as=Statusz;v=v1beta1;g=config.k8s.io")
	if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil || status.Kind != "Statusz" || status.GoVersion != runtime.Version() || !strings.HasPrefix(status.BinaryVersion, "1.37") {
		t.Errorf("%d %s (%v)", w.Code, w.Body, err)
	}
	var flags flagzv1beta1.Flagz
	w = page(c, inprocess.Admin, "/flagz", "application/json;as=Flagz;v=v1beta1;g=config.k8s.io")
	if err := json.Unmarshal(w.Body.Bytes(), &flags); err != nil || flags.Flags["service-cidr"] != "10.96.0.0/16" {
		t.Errorf("%d %s (%v)", w.Code, w.Body, err)
	}
	// Members of system:monitoring may read both, others may not.
	monitor := &user.DefaultInfo{Name: "m", Groups: []string{user.MonitoringGroup, user.AllAuthenticated}}
	nobody := &user.DefaultInfo{Name: "n", Groups: []string{user.AllAuthenticated}}
	for _, path := range []string{"/statusz", "/flagz"} {
		if w := page(c, monitor, path, "text/plain"); w.Code != http.StatusOK {
			t.Errorf("%s for the monitor: %d %s", path, w.Code, w.Body)
		}
		if w := page(c, nobody, path, "text/plain"); w.Code != http.StatusForbidden {
			t.Errorf("%s for anyone: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestZPagesOff(t *testing.T) {
	c := boot(t, Options{NoDrain: true, Features: features.Gates{features.ComponentFlagz: false, features.ComponentStatusz: false}})
	for _, path := range []string{"/statusz", "/flagz"} {
		if w := page(c, inprocess.Admin, path, "text/plain"); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
