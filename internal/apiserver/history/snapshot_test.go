package history

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
)

// TestSnapshot gets snapshots as users who may read everything, and not.
func TestSnapshot(t *testing.T) {
	codec := store.NewCodec(catalogue.Scheme)
	st, err := embedded.Open(embedded.Options{Codec: codec})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Create(t.Context(), "/registry/secrets/a/s", &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s"}}, 0); err != nil {
		t.Fatal(err)
	}
	h := &Snapshot{Store: st, Codec: codec, Moment: func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }, Clock: clock.RealClock{},
		Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			// A user of profiles may get everything below /debug.
			if a.GetUser().GetName() == "admin" || !a.IsResourceRequest() {
				return authorizer.DecisionAllow, "", nil
			}
			return authorizer.DecisionNoOpinion, "", nil
		})}
	for _, c := range []struct {
		user, query string
		code        int
		says        string
	}{
		{"admin", "", http.StatusOK, ""},
		{"admin", "form=plain", http.StatusOK, ""},
		{"admin", "form=other", http.StatusBadRequest, "there is only plain"},
		{"admin", "at=0", http.StatusOK, ""},
		{"profiles", "", http.StatusForbidden, "cannot list all resources"},
		{"profiles", "form=plain", http.StatusForbidden, "cannot list all resources"},
	} {
		w := httptest.NewRecorder()
		ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: c.user})
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, SnapshotPath+"?"+c.query, nil))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s ?%s: %d %.200s, want %d %s", c.user, c.query, w.Code, w.Body, c.code, c.says)
		}
		if w.Code != http.StatusOK {
			continue
		}
		got, _, err := embedded.ReadContent(w.Body, codec)
		if err != nil || len(got.Entries) != 1 {
			t.Errorf("%s ?%s: %v, %v", c.user, c.query, got, err)
		}
	}
}
