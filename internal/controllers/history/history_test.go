package history

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/reconcile"
)

var kind = apps.SchemeGroupVersion.WithKind("StatefulSet")

func TestTemplate(t *testing.T) {
	template := &v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "one"}}}}
	data, err := Patch(template)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"image":"one","name":"c","resources":{}}]}}}}`; string(data) != want {
		t.Errorf("the patch is %s, want %s", data, want)
	}
	have, err := Template(&apps.ControllerRevision{Data: runtime.RawExtension{Raw: data}})
	if err != nil || !equality.Semantic.DeepEqual(have, template) {
		t.Errorf("the template is %+v, %v", have, err)
	}
	for _, bad := range []string{`{`, `{"spec":{}}`} {
		if _, err := Template(&apps.ControllerRevision{Data: runtime.RawExtension{Raw: []byte(bad)}}); err == nil {
			t.Errorf("there is a template in %s", bad)
		}
	}
}

// TestUpdate checks that a change makes a revision, a change back numbers the old
// one anew, and a name that is taken makes another.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		var s Store
		c := controllertest.New(t, func(c controllers.Context) (reconcile.Run, error) {
			informer := c.Informers.Apps().V1().ControllerRevisions()
			s = Store{Client: c.Client(), Lister: informer.Lister()}
			informer.Informer()
			return func(context.Context) {}, nil
		})
		owner := &apps.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "web", Annotations: map[string]string{"cause": "x"}}}
		mine := map[string]string{"app": "web"}
		// A matching one without an owner is adopted; one of another owner is
		// left.
		for name, l := range map[string]map[string]string{"orphan": mine, "other": nil} {
			controllertest.Must[*apps.ControllerRevision](t)(c.Client.AppsV1().ControllerRevisions("ns").Create(ctx, &apps.ControllerRevision{
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: l}, Data: runtime.RawExtension{Raw: []byte(`"orphan"`)}, Revision: 1}, metav1.CreateOptions{}))
		}
		synctest.Wait()
		claim := func() []*apps.ControllerRevision {
			t.Helper()
			synctest.Wait()
			out, err := s.Claim(ctx, owner, kind, labels.SelectorFromSet(mine), func(context.Context) (metav1.Object, error) { return owner, nil })
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return out
		}
		collisions := int32(0)
		update := func(data string) *apps.ControllerRevision {
			t.Helper()
			r, err := s.Update(ctx, owner, kind, mine, []byte(data), claim(), &collisions)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		first := update(`"one"`)
		if first.Revision != 2 || first.Annotations["cause"] != "x" || !controllers.ControlledBy(first, owner) {
			t.Errorf("the first revision: %+v", first)
		}
		if again := update(`"one"`); again.Name != first.Name || again.Revision != 2 {
			t.Errorf("without a change the revision is %s, %d", again.Name, again.Revision)
		}
		// The name that the next would have is taken.
		controllertest.Must[*apps.ControllerRevision](t)(c.Client.AppsV1().ControllerRevisions("ns").Create(ctx, &apps.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{Name: Name(owner, hash([]byte(`"two"`), 0))}, Data: runtime.RawExtension{Raw: []byte(`"x"`)}}, metav1.CreateOptions{}))
		if second := update(`"two"`); second.Revision != 3 || collisions != 1 {
			t.Errorf("the second revision is %d, after %d collisions", second.Revision, collisions)
		}
		if back := update(`"one"`); back.Name != first.Name || back.Revision != 4 {
			t.Errorf("after the way back the revision is %s, %d", back.Name, back.Revision)
		}
		if err := s.Truncate(ctx, claim(), map[string]bool{first.Name: true}, 1); err != nil {
			t.Fatal(err)
		}
		var numbers []int64
		for _, r := range claim() {
			numbers = append(numbers, r.Revision)
		}
		if !slices.Equal(numbers, []int64{3, 4}) {
			t.Errorf("after the cut the revisions are %v", numbers)
		}
	})
}
