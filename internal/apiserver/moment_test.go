package apiserver

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keelson.dev/keelson/internal/store"
)

// remembered is a history of the revisions 100 to 200, one each second from 1,000 on.
type remembered struct{}

func (remembered) Oldest() (int64, time.Time, error) { return 100, time.Unix(1000, 0), nil }

func (remembered) RevisionAt(t time.Time) (int64, error) {
	switch seconds := t.Unix(); {
	case seconds < 1000:
		return 0, &store.CompactedError{Oldest: 100}
	case seconds > 1100:
		return 200, nil
	default:
		return seconds - 900, nil
	}
}

func (remembered) Changes(context.Context, string, int64, int64, func(*store.Change) bool) error {
	return nil
}

// FuzzMoment checks that an arbitrary path has a moment or none, and that a moment is
// refused or is a revision.
func FuzzMoment(f *testing.F) {
	for _, s := range []string{"10s", "150", "oldest", "1970-01-01T00:17:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "-5", "2562047h", "", "%31%30m", "1e3s", "\xff", "../x", "9223372036854775808"} {
		f.Add(s, "api/v1/pods")
	}
	f.Add("", "/api")
	f.Fuzz(func(t *testing.T, moment, path string) {
		req := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: PastPrefix + moment + "/" + path}}
		switch got := atMoment(req); {
		case got == req:
			t.Errorf("%q is not of the past", req.URL.Path)
		case !strings.HasPrefix(got.URL.Path, "/") || PastPrefix+got.Context().Value(momentKey{}).(string)+got.URL.Path != req.URL.Path:
			t.Errorf("%q is %q at %q", req.URL.Path, got.URL.Path, got.Context().Value(momentKey{}))
		}
		rev, err := parseMoment(remembered{}, moment, time.Unix(1100, 0))
		if err == nil && rev <= 0 {
			t.Errorf("%q is revision %d", moment, rev)
		}
		if err != nil && !apierrors.IsBadRequest(err) && !apierrors.IsResourceExpired(err) {
			t.Errorf("%q: %v", moment, err)
		}
	})
}
