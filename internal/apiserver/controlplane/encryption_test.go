package controlplane

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	kms "k8s.io/kms/pkg/service"

	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/store/encryption"
	"keelson.dev/keelson/internal/store/etcd"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/etcdtest"
)

// encrypting writes a configuration for secrets and the custom fish.
func encrypting(t *testing.T, path string, providers ...string) {
	t.Helper()
	cfg := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, '*.bench.example.com']\n  providers:\n  - " + strings.Join(providers, "\n  - ") + "\n"
	if err := os.WriteFile(path, []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
}

func secretbox(name string) string {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{name[0]}, 32))
	return fmt.Sprintf("secretbox: {keys: [{name: %s, secret: %q}]}", name, key)
}

// holds reports whether a file below dir has the bytes, or the store there, whose files may
// be compressed.
func holds(t *testing.T, dir, what string) bool {
	t.Helper()
	found := false
	harness.Succeeds(t, "a copy of the store", func() error { // its files come and go where it is in use
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			return err
		}
		if err := filepath.WalkDir(copied, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			found = found || bytes.Contains(b, []byte(what))
			return err
		}); err != nil {
			return err
		}
		db, err := pebble.Open(filepath.Join(copied, "store"), &pebble.Options{ReadOnly: true})
		if err != nil {
			return err
		}
		defer db.Close()
		all, err := db.NewIter(nil)
		if err != nil {
			return err
		}
		for ok := all.First(); ok; ok = all.Next() {
			found = found || bytes.Contains(all.Value(), []byte(what))
		}
		return all.Close()
	})
	return found
}

func TestEncryptionAtRest(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(t.TempDir(), "encryption.yaml")
	o := Options{DataDir: dir, NoDrain: true, Encryption: encryption.Options{File: config}}
	ctx := context.Background()
	run := func(f func(c *Instance, client kubernetes.Interface)) {
		t.Helper()
		c, err := Start(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		f(c, c.Client(inprocess.Admin))
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	// touch writes the secret as it is.
	touch := func(client kubernetes.Interface, name string) (changed bool) {
		t.Helper()
		s, err := client.CoreV1().Secrets("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil || string(s.Data["k"]) != "marker-of-a-secret" {
			t.Fatalf("%v: %v", s, err)
		}
		n, err := client.CoreV1().Secrets("default").Update(ctx, s, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return n.ResourceVersion != s.ResourceVersion
	}
	make := func(client kubernetes.Interface, name string) {
		t.Helper()
		if _, err := client.CoreV1().Secrets("default").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"k": "marker-of-a-secret"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	encrypting(t, config, secretbox("one"), "identity: {}")
	run(func(_ *Instance, client kubernetes.Interface) {
		make(client, "a")
		if _, err := client.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"k": "marker-of-a-map"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if touch(client, "a") {
			t.Error("what is encrypted with the first key was written anew")
		}
	})
	if !holds(t, dir, "marker-of-a-map") || holds(t, dir, "marker-of-a-secret") || !holds(t, dir, "k8s:enc:secretbox:v1:one:") {
		t.Error("the secret is on the disk as it is, or the map is not")
	}
	encrypting(t, config, secretbox("two"), secretbox("one"))
	run(func(_ *Instance, client kubernetes.Interface) {
		if !touch(client, "a") {
			t.Error("what is encrypted with an older key was not written anew")
		}
		if touch(client, "a") {
			t.Error("it was written anew twice")
		}
	})
	encrypting(t, config, secretbox("two"))
	run(func(_ *Instance, client kubernetes.Interface) { touch(client, "a") })
	encrypting(t, config, secretbox("three"))
	run(func(_ *Instance, client kubernetes.Interface) {
		_, err := client.CoreV1().Secrets("default").Get(ctx, "a", metav1.GetOptions{})
		if !apierrors.IsStoreReadError(err) || !strings.Contains(err.Error(), "/registry/secrets/default/a") || !strings.Contains(err.Error(), "needs the key") {
			t.Errorf("without the key: %v", err)
		}
	})
	encrypting(t, config, "secretbox: {keys: [{name: one, secret: c2hvcnQ=}]}")
	if _, err := Start(ctx, o); err == nil || !strings.Contains(err.Error(), "--encryption-provider-config") {
		t.Errorf("a key that is too short: %v", err)
	}

	t.Run("Reload", func(t *testing.T) {
		encrypting(t, config, secretbox("two"))
		o.Encryption.Reload = true
		run(func(_ *Instance, client kubernetes.Interface) {
			encrypting(t, config, "aesgcm: {keys: [{name: four, secret: "+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("4"), 32))+"}]}", secretbox("two"))
			harness.Eventually(t, "the new key", func() bool { return touch(client, "a") })
		})
		if !holds(t, dir, "k8s:enc:aesgcm:v1:four:") {
			t.Error("nothing is encrypted with the new key")
		}
	})

	t.Run("KMS", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "kms.sock")
		plugin := &plugin{}
		server := kms.NewGRPCService(socket, 5*time.Second, plugin)
		go func() { _ = server.ListenAndServe() }()
		defer server.Shutdown()
		encrypting(t, config, "kms: {apiVersion: v2, name: mine, endpoint: 'unix://"+socket+"', timeout: 5s}", "aesgcm: {keys: [{name: four, secret: "+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("4"), 32))+"}]}")
		o.Encryption.Reload = false
		run(func(c *Instance, client kubernetes.Interface) {
			if !touch(client, "a") {
				t.Error("not written anew")
			}
			if err := c.encryption.Check(); err != nil {
				t.Error(err)
			}
		})
		if !holds(t, dir, "k8s:enc:kms:v2:mine:") || !plugin.used {
			t.Error("the key management service was not used")
		}
		run(func(_ *Instance, client kubernetes.Interface) { touch(client, "a") })
	})
}

// plugin is a key management service whose key is its own inverse.
type plugin struct{ used bool }

func flip(data []byte) []byte {
	out := bytes.Clone(data)
	for i := range out {
		out[i] ^= 0x5a
	}
	return out
}

func (p *plugin) Status(context.Context) (*kms.StatusResponse, error) {
	return &kms.StatusResponse{Version: "v2", Healthz: "ok", KeyID: "k1"}, nil
}

func (p *plugin) Encrypt(_ context.Context, _ string, data []byte) (*kms.EncryptResponse, error) {
	p.used = true
	return &kms.EncryptResponse{Ciphertext: flip(data), KeyID: "k1"}, nil
}

func (p *plugin) Decrypt(_ context.Context, _ string, r *kms.DecryptRequest) ([]byte, error) {
	return flip(r.Ciphertext), nil
}

// TestEncryptionInEtcd checks that two servers with the same keys read what
// each other has encrypted.
func TestEncryptionInEtcd(t *testing.T) {
	server := etcdtest.Start(t)
	config := filepath.Join(t.TempDir(), "encryption.yaml")
	encrypting(t, config, secretbox("one"))
	var servers [2]kubernetes.Interface
	for i := range servers {
		c := boot(t, Options{NoDrain: true, Encryption: encryption.Options{File: config}, Etcd: &etcd.Options{Servers: []string{server.URL}}})
		servers[i] = c.Client(inprocess.Admin)
	}
	ctx := t.Context()
	if _, err := servers[0].CoreV1().Secrets("default").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a"}, StringData: map[string]string{"k": "marker-of-a-secret"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := servers[1].CoreV1().Secrets("default").Get(ctx, "a", metav1.GetOptions{})
	if err != nil || string(s.Data["k"]) != "marker-of-a-secret" {
		t.Errorf("%v: %v", s, err)
	}
	value, err := server.Client().Get(ctx, "/registry/secrets/default/a")
	if err != nil || len(value.Kvs) != 1 || !bytes.HasPrefix(value.Kvs[0].Value, []byte("k8s:enc:secretbox:v1:one:")) || bytes.Contains(value.Kvs[0].Value, []byte("marker")) {
		t.Errorf("in etcd: %v (%v)", value, err)
	}
}
