package controlplane

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"keelson.dev/keelson/internal/apiserver/authz"
)

// TestAuthorizationWebhook checks that a webhook is asked what the authorizers
// before it have no opinion of, and its conditions and denials hold.
func TestAuthorizationWebhook(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		asked.Add(1)
		a := review.Spec.ResourceAttributes
		review.Status.Allowed = a.Resource == "configmaps"
		review.Status.Denied = a.Resource == "secrets"
		if review.Status.Denied {
			review.Status.Reason = "secrets are secret"
		}
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	}))
	defer s.Close()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "webhook.kubeconfig")
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["w"] = &clientcmdapi.Cluster{Server: s.URL, CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})}
	cfg.Contexts["w"] = &clientcmdapi.Context{Cluster: "w"}
	cfg.CurrentContext = "w"
	if err := clientcmd.WriteToFile(*cfg, kubeconfig); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "authorization.yaml")
	if err := os.WriteFile(file, []byte(strings.NewReplacer("KUBECONFIG", kubeconfig).Replace(`
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {type: Node, name: node}
- type: Webhook
  name: hook
  webhook:
    timeout: 5s
    failurePolicy: Deny
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: KUBECONFIG}
    matchConditions:
    - expression: has(request.resourceAttributes) && request.user != 'left-alone'
- {type: RBAC, name: rbac}
`)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, selection := range map[string]authz.Selection{
		"flags": {Modes: []string{"Webhook", "RBAC"}, WebhookConfigFile: kubeconfig, WebhookVersion: "v1", AuthorizedTTL: time.Minute},
		"file":  {ConfigFile: file},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Start(t.Context(), Options{Authorization: selection})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Stop()
			jane := c.Client(&user.DefaultInfo{Name: "jane", Groups: []string{user.AllAuthenticated}})
			before := asked.Load()
			for range 2 {
				if _, err := jane.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}); err != nil {
					t.Error(err)
				}
			}
			if n := asked.Load() - before; n != 1 {
				t.Errorf("the webhook was asked %d times for the same", n)
			}
			if _, err := jane.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "secrets are secret") {
				t.Errorf("secrets: %v", err)
			}
			if name == "file" {
				before := asked.Load()
				alone := c.Client(&user.DefaultInfo{Name: "left-alone", Groups: []string{user.AllAuthenticated}})
				if _, err := alone.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) || asked.Load() != before {
					t.Errorf("a request that does not match: %v", err)
				}
			}
		})
	}
	for _, bad := range []struct {
		s    authz.Selection
		want string
	}{
		{authz.Selection{Modes: []string{"Odd"}}, `authorization-mode "Odd" is not a valid mode`},
		{authz.Selection{Modes: []string{"RBAC", "RBAC"}}, `authorization-mode "RBAC" has mode specified more than once`},
		{authz.Selection{Modes: []string{"Webhook"}}, "authorization-mode Webhook's authorization config file not passed"},
		{authz.Selection{ConfigFile: filepath.Join(dir, "absent")}, "no such file"},
		{authz.Selection{ConfigFile: file, Modes: []string{"RBAC"}}, "--authorization-config can not be specified"},
	} {
		if _, err := Start(t.Context(), Options{Authorization: bad.s}); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%+v: %v, want %s", bad.s, err, bad.want)
		}
	}
}
