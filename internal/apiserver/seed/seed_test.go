package seed

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
)

// seeder returns one with a store in memory.
func seeder(t *testing.T) *Seeder {
	t.Helper()
	s, err := embedded.Open(embedded.Options{Codec: store.NewCodec(catalogue.Scheme), Clock: clock.RealClock{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Seeder{Store: s, Catalogue: catalogue.New(catalogue.Builtin()), Clock: clock.RealClock{}}
}

// at reads what is stored at key.
func at(t *testing.T, s *Seeder, key string) runtime.Object {
	t.Helper()
	e, err := s.Store.Get(t.Context(), key)
	if err != nil || e == nil {
		t.Fatalf("%s: %v, %v", key, e, err)
	}
	return e.Object()
}

// TestTwice runs the seeding again: nothing is written.
func TestTwice(t *testing.T) {
	s := seeder(t)
	objs, err := Objects("10.96.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), objs); err != nil {
		t.Fatal(err)
	}
	was := s.Store.Revision()
	if was < int64(len(objs)) {
		t.Errorf("%d revisions for %d objects", was, len(objs))
	}
	if err := s.Run(t.Context(), objs); err != nil {
		t.Fatal(err)
	}
	if now := s.Store.Revision(); now != was {
		t.Errorf("the second run wrote: revision %d, then %d", was, now)
	}
	admin := at(t, s, "/registry/clusterroles/admin").(*rbacv1.ClusterRole)
	if !slices.ContainsFunc(admin.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "pods") }) {
		t.Error("admin has no rule for pods: it was not aggregated")
	}
}

// TestReconcile starts with objects that another version stored, or that were
// changed since.
func TestReconcile(t *testing.T) {
	get := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}
	list := rbacv1.PolicyRule{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"pods"}}
	all := rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}
	named := func(annotation string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: "x", Namespace: "", Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: annotation}}
	}
	role := func(annotation string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{ObjectMeta: named(annotation), Rules: rules}
	}
	binding := func(annotation, to string, users ...string) *rbacv1.ClusterRoleBinding {
		b := &rbacv1.ClusterRoleBinding{ObjectMeta: named(annotation), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: to}}
		for _, u := range users {
			b.Subjects = append(b.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: u})
		}
		return b
	}
	config := func(v string) *v1.ConfigMap {
		return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "x"}, Data: map[string]string{"k": v}}
	}
	const roles, bindings, configs = "/registry/clusterroles/x", "/registry/clusterrolebindings/x", "/registry/configmaps/ns/x"
	for _, c := range []struct {
		name        string
		key         string
		stored, new runtime.Object
		want        runtime.Object
	}{
		{"a missing rule is added", roles, role("true", get), role("true", list), role("true", get, list)},
		{"a rule that is covered is not", roles, role("true", all), role("true", list), role("true", all)},
		{"a protected role is left", roles, role("false", get), role("true", list), role("false", get)},
		{"a missing subject is added", bindings, binding("true", "r", "a"), binding("true", "r", "b"), binding("true", "r", "a", "b")},
		{"a protected binding is left", bindings, binding("false", "r"), binding("true", "r", "b"), binding("false", "r")},
		{"a binding to another role is made anew", bindings, binding("true", "r", "a"), binding("true", "q", "b"), binding("true", "q", "b")},
		{"the data of a ConfigMap is replaced", configs, config("1"), config("2"), config("2")},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := seeder(t)
			for _, o := range []runtime.Object{c.stored, c.new} {
				if err := s.Run(t.Context(), []runtime.Object{o}); err != nil {
					t.Fatal(err)
				}
			}
			got := at(t, s, c.key).DeepCopyObject()
			acc := got.(metav1.Object)
			if created := acc.GetCreationTimestamp(); acc.GetUID() == "" || created.IsZero() {
				t.Errorf("no UID or time: %+v", acc)
			}
			acc.SetUID("")
			acc.SetResourceVersion("")
			acc.SetCreationTimestamp(metav1.Time{})
			if !equality.Semantic.DeepEqual(got, c.want) {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
		})
	}
}
