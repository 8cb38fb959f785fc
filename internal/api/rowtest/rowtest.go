package rowtest

import (
	"slices"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/api"
)

// UID is the UID of the objects of cases.
const UID types.UID = "0e6f0000-0000-4000-8000-000000000001"

// Case is one write and what becomes of it.
type Case struct {
	Name string
	// Object is created; or, with one of the following, has been.
	Object string
	// Update, Status and Sub are merge patches of the object, of its status
	// and of the subresource In.
	Update, Status, Sub, In string
	// Errors and Warnings are the messages, in any order.
	Errors, Warnings []string
	// Check, if set, looks at what would be stored.
	Check func(t *testing.T, obj runtime.Object)
}

// Run runs cases on a row.
func Run(t *testing.T, r *api.Resource, cases ...Case) {
	t.Helper()
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.Name, " ", "_"), func(t *testing.T) {
			t.Helper()
			old := Object(t, r, c.Object)
			acc, err := meta.Accessor(old)
			if err != nil {
				t.Fatal(err)
			}
			acc.SetUID(UID)
			obj, errs, warnings := old, field.ErrorList(nil), []string(nil)
			switch {
			case c.Update != "":
				obj = Merge(t, r, old, c.Update)
				errs = update(r, &r.UpdateStrategy, obj, old)
				if r.Warnings != nil {
					warnings = r.Warnings(obj, old)
				}
			case c.Status != "":
				obj = Merge(t, r, old, `{"status": `+jsonOf(t, c.Status)+`}`)
				errs = update(r, r.Status, obj, old)
			case c.In != "":
				obj = Merge(t, r, old, c.Sub)
				errs = update(r, r.Updates[c.In], obj, old)
			default:
				errs, warnings = create(r, obj)
			}
			Expect(t, errs, c.Errors...)
			equal(t, "warnings", warnings, c.Warnings)
			if c.Check != nil {
				c.Check(t, obj)
			}
		})
	}
}

func create(r *api.Resource, obj runtime.Object) (field.ErrorList, []string) {
	if r.PrepareForCreate != nil {
		r.PrepareForCreate(obj)
	}
	acc, _ := meta.Accessor(obj)
	var errs field.ErrorList
	name := r.ValidateName
	if name == nil {
		name = apivalidation.NameIsDNSSubdomain
	}
	if acc.GetName() != "" { // cases need not name what they are not about
		for _, msg := range name(acc.GetName(), false) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), acc.GetName(), msg))
		}
	}
	if r.Validate != nil {
		errs = append(errs, r.Validate(obj)...)
	}
	if r.Warnings == nil {
		return errs, nil
	}
	return errs, r.Warnings(obj, nil)
}

func update(r *api.Resource, s *api.UpdateStrategy, obj, old runtime.Object) field.ErrorList {
	if s.PrepareForUpdate != nil {
		s.PrepareForUpdate(obj, old)
	}
	switch {
	case s.ValidateUpdate != nil:
		return s.ValidateUpdate(obj, old)
	case s == &r.UpdateStrategy && r.Validate != nil:
		return r.Validate(obj)
	}
	return nil
}

// Find returns the row of a resource.
func Find(t *testing.T, rows []*api.Resource, resource string) *api.Resource {
	t.Helper()
	for _, r := range rows {
		if r.Resource == resource {
			return r
		}
	}
	t.Fatalf("there is no row of %s", resource)
	return nil
}

// Object decodes text and fills in the defaults.
func Object(t *testing.T, r *api.Resource, text string) runtime.Object {
	t.Helper()
	obj := r.New()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if r.Default != nil {
		r.Default(obj)
	}
	return obj
}

// Merge returns old with a merge patch.
func Merge(t *testing.T, r *api.Resource, old runtime.Object, patch string) runtime.Object {
	t.Helper()
	data, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	merged, err := jsonpatch.MergePatch(data, []byte(jsonOf(t, patch)))
	if err != nil {
		t.Fatalf("%s: %v", patch, err)
	}
	return Object(t, r, string(merged))
}

func jsonOf(t *testing.T, text string) string {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return string(data)
}

// Expect compares errors with the messages wanted, in any order.
func Expect(t *testing.T, errs field.ErrorList, want ...string) {
	t.Helper()
	var got []string
	for _, e := range errs {
		got = append(got, e.Error())
	}
	equal(t, "errors", got, want)
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s are\n\t%s\nwant\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}
