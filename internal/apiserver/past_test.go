package apiserver_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPast reads objects as they were.
func TestPast(t *testing.T) {
	a := start(t)
	begin := time.Now().UTC().Add(-time.Second).Format(time.RFC3339)
	write := func(method, path, body string) (revision string) {
		t.Helper()
		got := a.do(method, path, body)
		if got.code >= 300 {
			t.Fatalf("%s %s: %s", method, path, got.body)
		}
		var w v1.ConfigMap
		if err := json.Unmarshal(got.body, &w); err != nil {
			t.Fatal(err)
		}
		return w.ResourceVersion
	}
	one := write(http.MethodPost, configMaps, `{"metadata":{"name":"x","labels":{"old":"yes"}},"data":{"k":"1"}}`)
	other := write(http.MethodPost, configMaps, `{"metadata":{"name":"xy"},"data":{"k":"other"}}`)
	two := write(http.MethodPut, configMaps+"/x", `{"metadata":{"name":"x"},"data":{"k":"2"}}`)
	if got := a.do(http.MethodDelete, configMaps+"/x", ""); got.code != http.StatusOK {
		t.Fatal(string(got.body))
	}
	last := write(http.MethodPost, configMaps, `{"metadata":{"name":"z"},"data":{"k":"z"}}`)

	for _, c := range []struct{ name, path, want string }{
		{"the present", configMaps + "/x", "404"},
		{"an object", "/at/" + one + configMaps + "/x", "x=1"},
		{"an object that was changed", "/at/" + two + configMaps + "/x", "x=2"},
		{"before it was made", "/at/" + one + configMaps + "/xy", "404"},
		{"after it was deleted", "/at/" + last + configMaps + "/x", "404"},
		{"the present by its age", "/at/0s" + configMaps, "xy=other z=z"},
		{"a list", "/at/" + other + configMaps, "x=1 xy=other"},
		{"a page", "/at/" + other + configMaps + "?limit=1", "x=1 …"},
		{"by label", "/at/" + other + configMaps + "?labelSelector=old%3Dyes", "x=1"},
		{"by name", "/at/" + two + configMaps + "?fieldSelector=metadata.name%3Dx", "x=2"},
		{"by revision", configMaps + "?resourceVersionMatch=Exact&resourceVersion=" + other, "x=1 xy=other"},
		{"a time", "/at/" + begin + configMaps, ""},
		{"an escaped time", "/at/" + url.PathEscape(time.Now().Add(time.Minute).Format(time.RFC3339)) + configMaps, "xy=other z=z"},
		{"nonsense", "/at/then" + configMaps, "400 is no moment"},
		{"the future", "/at/999999999" + configMaps, "504 Too large resource version"},
		{"below", "/at/-5" + configMaps, "400 it must be above 0"},
		{"of the past of the past", "/at/" + one + "/at/" + one + configMaps, "404"},
		{"a watch", "/at/" + one + configMaps + "?watch=true", "400 the past does not change"},
		{"what is computed", "/at/" + one + "/api/v1/componentstatuses", "400 there is no past of"},
		{"a log", "/at/" + one + "/api/v1/namespaces/default/pods/p/log", "400 there is no past of"},
		{"a command", "/at/" + one + "/api/v1/namespaces/default/pods/p/exec?command=ls", "400 there is no past of"},
		{"what is no object", "/at/" + one + "/metrics", "404"},
	} {
		got := a.do(http.MethodGet, c.path, "")
		said := got.Message
		if got.code == http.StatusOK {
			var l struct {
				Metadata struct{ Name, Continue string }
				Data     map[string]string
				Items    []v1.ConfigMap
			}
			if err := json.Unmarshal(got.body, &l); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if l.Metadata.Name != "" {
				l.Items = []v1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Name: l.Metadata.Name}, Data: l.Data}}
			}
			l.Items = slices.DeleteFunc(l.Items, func(m v1.ConfigMap) bool { return m.Name == "kube-root-ca.crt" })
			var objects []string
			for _, m := range l.Items {
				objects = append(objects, m.Name+"="+m.Data["k"])
			}
			if l.Metadata.Continue != "" {
				objects = append(objects, "…")
			}
			said = strings.Join(objects, " ")
			if said != c.want {
				t.Errorf("%s: %s, want %s", c.name, said, c.want)
			}
			continue
		}
		code, message, _ := strings.Cut(c.want, " ")
		if code != strconv.Itoa(got.code) || !strings.Contains(said, message) {
			t.Errorf("%s: %d %s, want %s", c.name, got.code, said, c.want)
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if got := a.do(method, "/at/"+one+configMaps+"/xy", `{}`, "Content-Type", "application/merge-patch+json"); got.code != http.StatusBadRequest || !strings.Contains(got.Message, "the past cannot be changed") {
			t.Errorf("%s: %d %s", method, got.code, got.body)
		}
	}
	page := a.do(http.MethodGet, "/at/"+other+configMaps+"?limit=1", "")
	var l v1.ConfigMapList
	if err := json.Unmarshal(page.body, &l); err != nil {
		t.Fatal(err)
	}
	page = a.do(http.MethodGet, "/at/"+other+configMaps+"?limit=1&continue="+l.Continue, "")
	if err := json.Unmarshal(page.body, &l); err != nil || len(l.Items) != 1 || l.Items[0].Name != "xy" || l.ResourceVersion != other {
		t.Errorf("the second page is %s (%v)", page.body, err)
	}
}
