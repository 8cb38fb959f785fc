package auditing

import (
	"os"
	"path/filepath"
	"testing"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// FuzzPolicy reads audit policies: each is refused, or decides about requests.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: ["system:*"]
  nonResourceURLs: ["/healthz*", "/version"]
- level: RequestResponse
  userGroups: [system:authenticated]
  verbs: [create]
  resources: [{group: "", resources: [pods, pods/log, "*/status"], resourceNames: [a]}]
  namespaces: [kube-system, ""]
- level: Metadata
`))
	f.Add([]byte(`{"kind":"Policy","apiVersion":"audit.k8s.io/v1","rules":[{"level":"Request","resources":[{}],"nonResourceURLs":["*"]}]}`))
	f.Add([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Nothing}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "policy")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s := Default()
		s.PolicyFile, s.Log.Path = path, "-"
		a, err := New(s)
		if err != nil {
			return
		}
		if a == nil {
			t.Fatal("it is neither an auditor nor an error")
		}
		for _, r := range []authorizer.AttributesRecord{
			{User: &user.DefaultInfo{Name: "u", Groups: []string{"g"}}, Verb: "create", Resource: "pods", Subresource: "status", Namespace: "n", Name: "a", ResourceRequest: true, APIVersion: "v1"},
			{User: &user.DefaultInfo{}, Verb: "get", Path: "/healthz/etcd"}, {Verb: "list", ResourceRequest: true},
		} {
			switch got := a.Policy.EvaluatePolicyRule(&r); got.Level {
			case auditinternal.LevelNone, auditinternal.LevelMetadata, auditinternal.LevelRequest, auditinternal.LevelRequestResponse:
			default:
				t.Errorf("the level is %q", got.Level)
			}
		}
	})
}
