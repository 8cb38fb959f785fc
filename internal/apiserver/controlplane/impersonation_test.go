package controlplane

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/inprocess"
)

// TestConstrainedImpersonation checks that a user with a constrained permission to
// impersonate (KEP-5284) may do so for the permitted actions only, a user with the
// unconstrained one for all.
func TestConstrainedImpersonation(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	ctx := t.Context()
	admin := c.Client(inprocess.Admin)
	grant := func(who, group string, rules ...rbacv1.PolicyRule) {
		t.Helper()
		name := who + "-" + group
		if _, err := admin.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: who}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	rule := func(verb, group, resource string, names ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names}
	}
	grant("dave", "work", rule("list", "", "pods"), rule("list", "", "secrets"))
	grant("part", "be", rule("impersonate:user-info", "authentication.k8s.io", "users", "dave"))
	grant("part", "on", rule("impersonate-on:user-info:list", "", "pods"))
	grant("all", "be", rule("impersonate", "", "users", "dave"))
	as := func(who string, im rest.ImpersonationConfig) kubernetes.Interface {
		cfg := c.Config(&user.DefaultInfo{Name: who, Groups: []string{user.AllAuthenticated}})
		cfg.Impersonate = im
		return kubernetes.NewForConfigOrDie(cfg)
	}
	pods := func(k kubernetes.Interface) error {
		_, err := k.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		return err
	}
	secrets := func(k kubernetes.Interface) error {
		_, err := k.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{})
		return err
	}
	dave := rest.ImpersonationConfig{UserName: "dave"}
	if err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		return pods(as("part", dave)) == nil && pods(as("all", dave)) == nil, nil // once the authorizer has the roles
	}); err != nil {
		t.Fatalf("part: %v, all: %v", pods(as("part", dave)), pods(as("all", dave)))
	}
	if err := secrets(as("all", dave)); err != nil {
		t.Errorf("all may not list secrets: %v", err)
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"other action": {secrets(as("part", dave)), `cannot impersonate`},
		"other user":   {pods(as("part", rest.ImpersonationConfig{UserName: "erin"})), `cannot impersonate`},
		"a group":      {pods(as("part", rest.ImpersonationConfig{UserName: "dave", Groups: []string{"g"}})), `cannot impersonate`},
		"no right":     {pods(as("nobody", dave)), `cannot impersonate`},
	} {
		if !apierrors.IsForbidden(c.err) || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, c.err, c.want)
		}
	}
	for header, value := range map[string]string{"Impersonate-Group": "g", "Impersonate-Uid": "1", "Impersonate-Extra-a": "b"} {
		w := askWith(c, header, value)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "without impersonating a user name") {
			t.Errorf("%s alone: %d %s", header, w.Code, w.Body)
		}
	}
	// A name of five parts is a user's, whatever it begins with.
	w := askWith(c, "Impersonate-User", "system:serviceaccount:a:b:c")
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `User \"system:serviceaccount:a:b:c\" cannot list`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// askWith lists pods as an administrator that sends a header.
func askWith(c *Instance, header, value string) *httptest.ResponseRecorder {
	req := httptest.NewRequest("GET", "/api/v1/namespaces/default/pods", nil)
	req.Header.Set(header, value)
	w := httptest.NewRecorder()
	c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), inprocess.Admin)))
	return w
}
