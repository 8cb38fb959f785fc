package certs

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

// FuzzMerge merges into a kubeconfig whatever it holds: it is refused and left as it
// is, or has what was added and all else that it had.
func FuzzMerge(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: a, cluster: {server: 'https://a', certificate-authority: ca.crt}}]\n" +
		"users: [{name: keelson, user: {token: t}}]\ncontexts: [{name: a, context: {cluster: a, user: u, namespace: n}}, {name: keelson, context: {namespace: kept}}]\n" +
		"preferences: {colors: true}\nextensions: [{name: e, extension: {x: 1}}]\n"))
	f.Add([]byte(`{"apiVersion":"v1","clusters":null,"users":[{"name":"x","user":{"exec":{"apiVersion":"client.authentication.k8s.io/v1","command":"c"}}}]}`))
	f.Add([]byte("clusters: [{name: '', cluster: {}}, {name: '', cluster: null}, {}]"))
	f.Fuzz(func(t *testing.T, old []byte) {
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("KUBECONFIG", path)
		before, readable := clientcmd.Load(old)
		add := Kubeconfig("keelson", "https://127.0.0.1:6443", []byte("ca"), Pair{Cert: []byte("cert"), Key: []byte("key")})
		if _, err := Merge(add); err != nil {
			if now, rerr := os.ReadFile(path); rerr != nil || string(now) != string(old) {
				t.Errorf("it failed (%v) and left %q of %q", err, now, old)
			}
			return
		}
		if readable != nil {
			t.Fatalf("%q was merged, though it cannot be read: %v", old, readable)
		}
		after, err := clientcmd.LoadFromFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if after.CurrentContext != "keelson" || string(after.AuthInfos["keelson"].ClientKeyData) != "key" || after.Clusters["keelson"].Server != "https://127.0.0.1:6443" {
			t.Errorf("what was added is not there: %+v", after)
		}
		for name, c := range before.Contexts {
			got := after.Contexts[name]
			if got == nil || got.Namespace != c.Namespace || name != "keelson" && (got.Cluster != c.Cluster || got.AuthInfo != c.AuthInfo) {
				t.Errorf("context %q was %+v and is %+v", name, c, got)
			}
		}
		for name, c := range before.Clusters {
			if got := after.Clusters[name]; name != "keelson" && (got == nil || got.Server != c.Server || got.InsecureSkipTLSVerify != c.InsecureSkipTLSVerify) {
				t.Errorf("cluster %q was %+v and is %+v", name, c, got)
			}
		}
		for name, u := range before.AuthInfos {
			if got := after.AuthInfos[name]; name != "keelson" && (got == nil || got.Token != u.Token || got.Username != u.Username || !reflect.DeepEqual(got.Exec, u.Exec) && (got.Exec == nil) != (u.Exec == nil)) {
				t.Errorf("user %q was %+v and is %+v", name, u, got)
			}
		}
		if err := Remove("keelson"); err != nil {
			t.Error(err)
		}
		if last, err := clientcmd.LoadFromFile(path); err != nil || last.Clusters["keelson"] != nil {
			t.Errorf("it is still there: %v", err)
		}
	})
}
