package controlplane

import (
	"net/http"
	"testing"
)

func TestHealth(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	for path, want := range map[string]string{
		"/livez":                      "ok",
		"/livez/etcd":                 "ok",
		"/livez?verbose":              "[+]etcd ok\n[+]log ok\n[+]ping ok\nlivez check passed\n",
		"/readyz?verbose":             "[+]etcd ok\n[+]informer-sync ok\n[+]log ok\n[+]ping ok\n[+]shutdown ok\nreadyz check passed\n",
		"/livez?verbose&exclude=etcd": "[+]etcd excluded: ok\n[+]log ok\n[+]ping ok\nlivez check passed\n",
		"/healthz?verbose&exclude=x":  "[+]etcd ok\n[+]log ok\n[+]ping ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\nhealthz check passed\n",
	} {
		if w := ask(c, "GET", path, ""); w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("%s answers %d %q", path, w.Code, w.Body)
		}
	}
	if w := ask(c, "GET", "/livez/nothing", ""); w.Code != http.StatusNotFound {
		t.Errorf("an unknown check: %d", w.Code)
	}
	c.Server.Drain()
	const want = "[+]etcd ok\n[+]informer-sync ok\n[+]log ok\n[+]ping ok\n[-]shutdown failed: reason withheld\nreadyz check failed\n"
	if w := ask(c, "GET", "/readyz", ""); w.Code != http.StatusInternalServerError || w.Body.String() != want {
		t.Errorf("while it ends: %d %q", w.Code, w.Body)
	}
	if w := ask(c, "GET", "/livez", ""); w.Code != http.StatusOK {
		t.Errorf("/livez while it ends: %d", w.Code)
	}
}
