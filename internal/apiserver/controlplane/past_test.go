package controlplane

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/history"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/apiserver/tracing"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/test/harness"
)

// TestPastRights gives a namespace to another tenant, who tries to read what was in it
// before, and an object to a user, who tries to read what was taken out of it.
func TestPastRights(t *testing.T) {
	for name, o := range map[string]Options{
		"in memory": {},
		"on disk":   {DataDir: t.TempDir(), NoSync: true, Past: embedded.PastOptions{Age: time.Hour}},
	} {
		t.Run(name, func(t *testing.T) { testPastRights(t, o) })
	}
}

func testPastRights(t *testing.T, o Options) {
	c := boot(t, o)
	ctx, admin := t.Context(), c.Client(inprocess.Admin)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ask := func(u user.Info, path string) (int, string) {
		req := httptest.NewRequest(http.MethodGet, path, nil)
		w := httptest.NewRecorder()
		c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), u)))
		return w.Code, w.Body.String()
	}
	who := func(name string, groups ...string) user.Info {
		return &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}
	}
	subjects := func(name string) []rbacv1.Subject {
		return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}}
	}
	reads := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets", "configmaps"}, Verbs: []string{"get", "list"}}}
	everywhere := func(name, role string) {
		t.Helper()
		b := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name + "-" + strings.ReplaceAll(role, ":", "-")}, Subjects: subjects(name),
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}}
		_, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, b, metav1.CreateOptions{})
		must(err)
	}
	within := func(namespace, name string) {
		t.Helper()
		b := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "tenant"}, Subjects: subjects(name), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "reader"}}
		_, err := admin.RbacV1().RoleBindings(namespace).Create(ctx, b, metav1.CreateOptions{})
		must(err)
	}
	namespace := func(name string) {
		t.Helper()
		_, err := admin.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		must(err)
	}
	for _, name := range []string{"reader", "auditor"} {
		_, err := admin.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: reads}, metav1.CreateOptions{})
		must(err)
	}
	everywhere("sam", "reader")
	everywhere("eve", "auditor")
	for _, name := range []string{"sam", "eve", "jane"} {
		everywhere(name, "keelson:history")
	}

	namespace("shop")
	within("shop", "joe")
	_, err := admin.CoreV1().Secrets("shop").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "card"}, StringData: map[string]string{"number": "4711"}}, metav1.CreateOptions{})
	must(err)
	m, err := admin.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "shared"}, Data: map[string]string{"password": "4711"}}, metav1.CreateOptions{})
	must(err)
	then := m.ResourceVersion

	// The namespace goes, as its controller takes care of, and comes again.
	must(admin.RbacV1().RoleBindings("shop").Delete(ctx, "tenant", metav1.DeleteOptions{}))
	must(admin.CoreV1().Secrets("shop").Delete(ctx, "card", metav1.DeleteOptions{}))
	must(admin.CoreV1().Namespaces().Delete(ctx, "shop", metav1.DeleteOptions{}))
	ns, err := admin.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
	must(err)
	ns.Spec.Finalizers = nil
	_, err = admin.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	must(err)
	namespace("shop")
	within("shop", "jane")
	// The password goes out of the object before others may read it.
	m.Data = map[string]string{"note": "none"}
	_, err = admin.CoreV1().ConfigMaps("default").Update(ctx, m, metav1.UpdateOptions{})
	must(err)
	within("default", "jane")
	// A role that has been changed may have allowed less.
	role, err := admin.RbacV1().ClusterRoles().Get(ctx, "auditor", metav1.GetOptions{})
	must(err)
	role.Labels = map[string]string{"changed": "yes"}
	_, err = admin.RbacV1().ClusterRoles().Update(ctx, role, metav1.UpdateOptions{})
	must(err)
	_, err = admin.CoreV1().Secrets("shop").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "own"}}, metav1.CreateOptions{})
	must(err)

	jane, sam, eve, node := who("jane"), who("sam"), who("eve"), who("system:node:n1", user.NodesGroup)
	const secrets = "/api/v1/namespaces/shop/secrets"
	harness.Eventually(t, "all rights to count", func() bool {
		for _, u := range []user.Info{jane, eve} {
			if code, _ := ask(u, secrets); code != http.StatusOK {
				return false
			}
		}
		code, _ := ask(jane, "/api/v1/namespaces/default/configmaps/shared")
		changed, err := c.Informers.Rbac().V1().ClusterRoles().Lister().Get("auditor")
		return code == http.StatusOK && err == nil && changed.Labels["changed"] != ""
	})
	forged := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"v":"meta.k8s.io/v1","rv":%s,"start":"shop/a","past":true}`, then))
	changes := history.ChangesPath + "?from=" + then
	const refused = "this was not allowed yet at revision"
	for _, k := range []struct {
		name string
		u    user.Info
		path string
		code int
		has  string
		not  string
	}{
		{"the present", jane, secrets, 200, `"own"`, "card"},
		{"a list", jane, "/at/" + then + secrets, 403, refused, "card"},
		{"an object", jane, "/at/" + then + secrets + "/card", 403, refused, "4711"},
		{"Exact", jane, secrets + "?resourceVersionMatch=Exact&resourceVersion=" + then, 403, refused, "card"},
		{"a token", jane, secrets + "?continue=" + forged, 403, refused, "card"},
		{"what an object was", jane, "/at/" + then + "/api/v1/namespaces/default/configmaps/shared", 403, refused, "4711"},
		{"since the rights were given", jane, "/at/0s" + secrets, 200, `"own"`, "card"},
		{"changes", jane, changes + "&namespace=shop", 200, `"own"`, "card"},
		{"changes of an object", jane, changes + "&namespace=default&name=shared", 200, "", "4711"},
		{"a trace", jane, tracing.Path + "?resource=secrets&namespace=shop&name=card", 404, "", "uid"},
		{"a trace of one's own", jane, tracing.Path + "?resource=secrets&namespace=shop&name=own", 200, `"own"`, ""},
		{"a snapshot", jane, history.SnapshotPath, 403, "", "4711"},
		{"a node", node, "/at/" + then + "/api/v1/nodes/n1", 403, refused, ""},
		{"a role that was changed", eve, "/at/" + then + secrets, 403, refused, "card"},
		{"rights that are old", sam, "/at/" + then + secrets, 200, `"card"`, ""},
		{"old rights to what an object was", sam, "/at/" + then + "/api/v1/namespaces/default/configmaps/shared", 200, "4711", ""},
		{"old rights to changes", sam, changes + "&namespace=shop", 200, `"card"`, "NDcxMQ"},
		{"an administrator", inprocess.Admin, "/at/" + then + secrets + "/card", 200, "NDcxMQ==", ""},
	} {
		code, body := ask(k.u, k.path)
		if code != k.code || !strings.Contains(body, k.has) || k.not != "" && strings.Contains(body, k.not) {
			t.Errorf("%s: %d %s, want %d with %q and without %q", k.name, code, body, k.code, k.has, k.not)
		}
	}
}
