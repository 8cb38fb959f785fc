package controlplane

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/features"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/store/etcd"
	"keelson.dev/keelson/test/harness/etcdtest"
)

// TestUnreadableObjects checks that an object whose encryption key is lost is
// never left out silently: reads of it and lists fail, its name is taken, and only
// users with the permission to delete unreadable objects can delete it.
func TestUnreadableObjects(t *testing.T) {
	for name, options := range map[string]func(t *testing.T) Options{
		"embedded": func(t *testing.T) Options { return Options{DataDir: t.TempDir()} },
		"etcd": func(t *testing.T) Options {
			return Options{DataDir: t.TempDir(), Etcd: &etcd.Options{Servers: []string{etcdtest.Start(t).URL}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			o.NoDrain = true
			o.Encryption.File = filepath.Join(t.TempDir(), "encryption.yaml")
			ctx := t.Context()
			make := func(c *Instance, name string) error {
				_, err := c.Client(inprocess.Admin).CoreV1().Secrets("default").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{"a.b/c"}}}, metav1.CreateOptions{})
				return err
			}
			encrypting(t, o.Encryption.File, secretbox("one"))
			first, err := Start(context.WithoutCancel(ctx), o)
			if err != nil {
				t.Fatal(err)
			}
			if err := make(first, "lost"); err != nil {
				t.Fatal(err)
			}
			if err := first.Stop(); err != nil {
				t.Fatal(err)
			}
			encrypting(t, o.Encryption.File, secretbox("two"))
			c := boot(t, o)
			secrets := c.Client(inprocess.Admin).CoreV1().Secrets("default")
			if err := make(c, "good"); err != nil {
				t.Fatal(err)
			}
			_, listed := secrets.List(ctx, metav1.ListOptions{})
			_, got := secrets.Get(ctx, "lost", metav1.GetOptions{})
			_, patched := secrets.Patch(ctx, "lost", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
			for verb, err := range map[string]error{"list": listed, "get": got, "patch": patched, "delete": secrets.Delete(ctx, "lost", metav1.DeleteOptions{}),
				"deletecollection": secrets.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})} {
				if !apierrors.IsStoreReadError(err) || !strings.HasPrefix(err.Error(), "failed to read one or more secrets from the storage: ") {
					t.Errorf("%s: %v", verb, err)
				}
			}
			if _, err := c.Client(inprocess.Admin).CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{}); err != nil {
				t.Errorf("where nothing is lost: %v", err)
			}
			if err := make(c, "lost"); !apierrors.IsAlreadyExists(err) {
				t.Errorf("create: %v", err)
			}
			ignore := metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: ptr.To(true)}
			if err := secrets.Delete(ctx, "good", ignore); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "is exclusively used to delete corrupt object(s)") {
				t.Errorf("what can be read: %v", err)
			}
			if err := secrets.Delete(ctx, "none", ignore); !apierrors.IsNotFound(err) {
				t.Errorf("what is not there: %v", err)
			}
			if err := secrets.DeleteCollection(ctx, ignore, metav1.ListOptions{}); !apierrors.IsInvalid(err) {
				t.Errorf("a collection: %v", err)
			}
			// The right to delete is not enough.
			rbac := c.Client(inprocess.Admin).RbacV1()
			if _, err := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "cleaner"}, Rules: []rbacv1.PolicyRule{
				{Verbs: []string{"delete"}, APIGroups: []string{""}, Resources: []string{"secrets"}}}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "cleaner"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cleaner"},
				Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "cleaner"}}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			cleaner := c.Client(&user.DefaultInfo{Name: "cleaner", Groups: []string{user.AllAuthenticated}}).CoreV1().Secrets("default")
			var refused error
			if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
				refused = cleaner.Delete(ctx, "lost", ignore)
				return apierrors.IsForbidden(refused) && strings.Contains(refused.Error(), `cannot unsafe-delete-ignore-read-errors resource "secrets"`), nil
			}); err != nil {
				t.Errorf("without the right: %v", refused)
			}
			dry := ignore
			dry.DryRun = []string{"All"}
			for _, opts := range []metav1.DeleteOptions{dry, ignore} {
				if err := secrets.Delete(ctx, "lost", opts); err != nil {
					t.Errorf("dry run %v: %v", opts.DryRun, err)
				}
			}
			list, err := secrets.List(ctx, metav1.ListOptions{})
			if err != nil || len(list.Items) != 1 || list.Items[0].Name != "good" {
				t.Errorf("after it: %v, %v", list, err)
			}
			if err := make(c, "lost"); err != nil {
				t.Errorf("a new one: %v", err)
			}
		})
	}
}

// TestUnsafeDeletionOff checks that without the gate the option is as if it were
// not there.
func TestUnsafeDeletionOff(t *testing.T) {
	c := boot(t, Options{NoDrain: true, Features: features.Gates{features.AllowUnsafeMalformedObjectDeletion: false}})
	maps := c.Client(inprocess.Admin).CoreV1().ConfigMaps("default")
	if _, err := maps.Create(t.Context(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(t.Context(), "m", metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: ptr.To(true)}); err != nil {
		t.Error(err)
	}
}
