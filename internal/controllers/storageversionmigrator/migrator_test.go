package storageversionmigrator_test

import (
	"context"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/api/storagemigration/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/testcluster"
)

func TestMigration(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t).Config)
	cm, err := client.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	migrations := client.StoragemigrationV1beta1().StorageVersionMigrations()
	for _, c := range []struct {
		resource string
		want     v1beta1.MigrationConditionType
		reason   string
		message  string
	}{
		{"configmaps", v1beta1.MigrationSucceeded, "StorageVersionMigrationSucceeded", ""},
		{"unicorns", v1beta1.MigrationFailed, "StorageVersionMigrationFailed", "resource not found"},
	} {
		w, err := migrations.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", c.resource).String()})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		if _, err := migrations.Create(ctx, &v1beta1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: c.resource},
			Spec: v1beta1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Resource: c.resource}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		for ev := range w.ResultChan() {
			m := ev.Object.(*v1beta1.StorageVersionMigration)
			cond := meta.FindStatusCondition(m.Status.Conditions, string(c.want))
			if cond == nil {
				continue
			}
			if cond.Status != metav1.ConditionTrue || cond.Reason != c.reason || cond.Message != c.message {
				t.Errorf("%s ended with %v, want %s %q", c.resource, cond, c.reason, c.message)
			}
			if c.want == v1beta1.MigrationSucceeded && m.Status.ResourceVersion == "" {
				t.Errorf("%s: status has no resourceVersion", c.resource)
			}
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%s did not end", c.resource)
		}
	}
	after, err := client.CoreV1().ConfigMaps("default").Get(ctx, "kept", metav1.GetOptions{})
	if err != nil || after.Data["k"] != "v" || after.UID != cm.UID {
		t.Errorf("the object after the migration: %v, %v", after, err)
	}
}
