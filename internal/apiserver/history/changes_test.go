package history

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/trace"
)

// TestChanges asks for the changes of a few objects, by different users.
func TestChanges(t *testing.T) {
	st, err := embedded.Open(embedded.Options{Codec: store.NewCodec(catalogue.Scheme)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	cat := catalogue.New(catalogue.Builtin())
	var denied string
	h := &Changes{Store: st, Catalogue: cat, Moment: func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) },
		Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if a.GetResource() == denied {
				return authorizer.DecisionNoOpinion, "", nil
			}
			return authorizer.DecisionAllow, "", nil
		})}
	put := func(by, group, resource, name string, o runtime.Object) int64 {
		t.Helper()
		row := cat.Lookup(group, "v1", resource)
		ns := "a"
		if !row.Namespaced {
			ns = ""
		}
		ctx := store.WithNote(t.Context(), trace.Note{User: by}.String())
		e, err := st.Get(ctx, row.Key(ns, name))
		switch {
		case err != nil:
		case o == nil:
			e, err = st.Delete(ctx, e.Key, e.ModRevision)
		case e == nil:
			e, err = st.Create(ctx, row.Key(ns, name), o, 0)
		default:
			e, err = st.Update(ctx, e.Key, e.ModRevision, o, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		return e.ModRevision
	}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "a", Name: name} }
	deployment := func(replicas int32) runtime.Object {
		return &appsv1.Deployment{ObjectMeta: meta("web"), Spec: appsv1.DeploymentSpec{Replicas: ptr.To(replicas)}}
	}
	secret := func(kv ...string) runtime.Object {
		s := &v1.Secret{ObjectMeta: meta("s"), Data: map[string][]byte{}}
		for i := 0; i < len(kv); i += 2 {
			s.Data[kv[i]] = []byte(kv[i+1])
		}
		return s
	}
	begin := st.Revision()
	made := put("jane", "apps", "deployments", "web", deployment(1))
	put("jane", "", "secrets", "s", secret("same", "word", "changed", "one", "gone", "x"))
	put("node", "coordination.k8s.io", "leases", "l", &v1.ConfigMap{})
	middle := put("joe", "apps", "deployments", "web", deployment(2))
	put("joe", "", "secrets", "s", secret("same", "word", "changed", "two", "new", "y"))
	put("joe", "", "nodes", "n", &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	put("joe", "", "nodes", "n", nil)
	last := put("joe", "apps", "deployments", "web", nil)

	replicas := func(o *Object) string {
		at := func(u map[string]any) string {
			if u == nil {
				return "-"
			}
			spec, _ := u["spec"].(map[string]any)
			data, _ := json.Marshal(u["data"])
			if u["data"] != nil {
				return string(data)
			}
			return fmt.Sprint(spec["replicas"])
		}
		var before, after map[string]any
		if o.Before != nil {
			before = o.Before.Object
		}
		if o.After != nil {
			after = o.After.Object
		}
		return at(before) + ">" + at(after)
	}
	for _, c := range []struct {
		name, query, denied, want string
	}{
		{"everything", fmt.Sprintf("from=%d", begin), "",
			`deployments web ->- jane created, joe updated, joe deleted; secrets s ->{"changed":"***","new":"***","same":"***"} jane created, joe updated; nodes n ->- joe created, joe deleted`},
		{"a part", fmt.Sprintf("from=%d&to=%d", made, middle), "", `secrets s ->{"changed":"***","gone":"***","same":"***"} jane created; deployments web 1>2 joe updated`},
		{"a deletion", fmt.Sprintf("from=%d", middle), "",
			`secrets s {"changed":"*** (before)","gone":"***","same":"***"}>{"changed":"*** (after)","new":"***","same":"***"} joe updated; nodes n ->- joe created, joe deleted; deployments web 2>- joe deleted`},
		{"a user who may read no secrets", fmt.Sprintf("from=%d", middle), "secrets", `nodes n ->- joe created, joe deleted; deployments web 2>- joe deleted`},
		{"a namespace", fmt.Sprintf("from=%d&namespace=a&resource=deployments", middle), "", `deployments web 2>- joe deleted`},
		{"another namespace", fmt.Sprintf("from=%d&namespace=b", begin), "", ""},
		{"a name", fmt.Sprintf("from=%d&name=n", begin), "", `nodes n ->- joe created, joe deleted`},
		{"nothing", fmt.Sprintf("from=%d", last), "", ""},
		{"the wrong way round", fmt.Sprintf("from=%d&to=%d", last, begin), "", "400"},
		{"no beginning", "", "", "400"},
		{"compacted", "from=0", "", "410"},
	} {
		denied = c.denied
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, ChangesPath+"?"+c.query, nil))
		if w.Code != http.StatusOK {
			if got := strconv.Itoa(w.Code); got != c.want {
				t.Errorf("%s: %s %s, want %s", c.name, got, w.Body, c.want)
			}
			continue
		}
		var got []string
		for dec := json.NewDecoder(w.Body); dec.More(); {
			var o Object
			if err := dec.Decode(&o); err != nil {
				t.Fatal(err)
			}
			var by []string
			for _, ch := range o.Changes {
				by = append(by, ch.User+" "+ch.Verb)
			}
			got = append(got, o.Resource+" "+o.Name+" "+replicas(&o)+" "+strings.Join(by, ", "))
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, s, c.want)
		}
	}
}

// busy is a store in which objects are changed whenever its changes have been read.
type busy struct {
	*embedded.Store
	write func()
}

func (b busy) Changes(ctx context.Context, prefix string, from, to int64, f func(*store.Change) bool) error {
	defer b.write()
	return b.Store.Changes(ctx, prefix, from, to, f)
}

// TestChangesMeanwhile asks for changes while objects are changed, deleted and made again:
// the answer has them as they were at the moment that was asked for.
func TestChangesMeanwhile(t *testing.T) {
	st, err := embedded.Open(embedded.Options{Codec: store.NewCodec(catalogue.Scheme)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	cat := catalogue.New(catalogue.Builtin())
	row := cat.Must("", "v1", "configmaps")
	config := func(name, value string) runtime.Object {
		return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Data: map[string]string{"k": value}}
	}
	entries := map[string]*store.Entry{}
	write := func(name, value string) {
		t.Helper()
		key := row.Key("a", name)
		was := entries[name]
		switch {
		case value == "":
			entries[name], err = nil, nil
			_, err = st.Delete(t.Context(), key, was.ModRevision)
		case was == nil:
			entries[name], err = st.Create(t.Context(), key, config(name, value), 0)
		default:
			entries[name], err = st.Update(t.Context(), key, was.ModRevision, config(name, value), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	begin := st.Revision()
	for _, name := range []string{"changed", "deleted", "again", "kept", "gone", "made"} {
		write(name, "1")
	}
	write("gone", "")
	meanwhile := func() {
		write("changed", "2")
		write("deleted", "")
		write("again", "")
		write("again", "2")
		write("gone", "2")
		write("new", "2")
		write("made", "")
		write("made", "2")
		write("made", "")
	}
	h := &Changes{Store: busy{st, meanwhile}, Catalogue: cat, Moment: func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s?from=%d", ChangesPath, begin), nil))
	var got []string
	for dec := json.NewDecoder(w.Body); dec.More(); {
		var o Object
		if err := dec.Decode(&o); err != nil {
			t.Fatal(err)
		}
		value := "-"
		if o.After != nil {
			value = fmt.Sprint(o.After.Object["data"].(map[string]any)["k"])
		}
		got = append(got, o.Name+"="+value)
	}
	if s, want := strings.Join(got, " "), "changed=1 deleted=1 again=1 kept=1 gone=- made=1"; s != want {
		t.Errorf("%s, want %s", s, want)
	}
}
