package apiserver

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/store"
)

// PastPrefix begins the paths at which the API is read as it was at a moment:
// /at/10m/api/v1/pods. A moment is a revision, a time in RFC 3339, how long ago
// it was, or "oldest". A user reads there what he has been allowed to read since then.
const PastPrefix = "/at/"

// Oldest is the moment at which the history begins.
const Oldest = "oldest"

type momentKey struct{}

// atMoment returns req without the prefix of a past moment, which is in its context
// then. A request of the present is returned as it is.
func atMoment(req *http.Request) *http.Request {
	moment, req, ok := cutPrefix(req, PastPrefix)
	if !ok {
		return req
	}
	return req.WithContext(context.WithValue(req.Context(), momentKey{}, moment))
}

// cutPrefix returns the request below prefix and the next element of its path, and this
// element; the request itself where its path does not begin so.
func cutPrefix(req *http.Request, prefix string) (element string, out *http.Request, ok bool) {
	below, ok := strings.CutPrefix(req.URL.Path, prefix)
	if !ok {
		return "", req, false
	}
	element, path, ok := strings.Cut(below, "/")
	if !ok {
		return "", req, false
	}
	u := *req.URL
	u.Path, u.RawPath = "/"+path, ""
	if _, raw, ok := strings.Cut(strings.TrimPrefix(req.URL.RawPath, prefix), "/"); ok && req.URL.RawPath != "" {
		u.RawPath = "/" + raw
	}
	out = req.WithContext(req.Context())
	out.URL = &u
	return element, out, true
}

// parseMoment returns the revision of a moment at which p can be read.
func parseMoment(p store.Past, moment string, now time.Time) (int64, error) {
	if rev, err := strconv.ParseInt(moment, 10, 64); err == nil {
		if rev <= 0 {
			return 0, badRequest("%q is no revision: it must be above 0", moment)
		}
		return rev, nil
	}
	if moment == Oldest {
		rev, _, err := p.Oldest()
		return rev, err
	}
	t, err := time.Parse(time.RFC3339, moment)
	if err != nil {
		ago, err := time.ParseDuration(moment)
		if err != nil || ago < 0 {
			return 0, badRequest("%q is no moment: give how long ago it was (10m), a time (2006-01-02T15:04:05Z) or a resourceVersion", moment)
		}
		t = now.Add(-ago)
	}
	rev, err := p.RevisionAt(t)
	if errors.Is(err, store.ErrCompacted) {
		return 0, tooOld(p, moment)
	}
	return rev, err
}

// tooOld is the answer to a read at a moment that the history does not reach.
func tooOld(p store.Past, moment string) error {
	msg := "the history does not reach back to " + moment
	if rev, since, err := p.Oldest(); err == nil {
		msg += ": it begins at " + since.UTC().Format(time.RFC3339) + ", revision " + formatRevision(rev) + "; --history-age and --history-size bound it"
	}
	return apierrors.NewResourceExpired(msg)
}

// Moment returns the revision of a moment, as paths below PastPrefix have it.
func (s *Server) Moment(moment string) (int64, error) {
	p, ok := s.Store.(store.Past)
	if !ok {
		return 0, apierrors.NewBadRequest("the past cannot be read: etcd keeps the objects, and not the store of this server, which has a history")
	}
	return parseMoment(p, moment, s.Clock.Now())
}

// locate finds the revision at which a request reads, if it is for the past. Stored
// objects and the documents about them can be read there, and nothing changed.
func (r *call) locate() error {
	moment, ok := r.ctx().Value(momentKey{}).(string)
	if !ok {
		return nil
	}
	i := r.info
	if !i.IsResourceRequest {
		switch first, _, _ := strings.Cut(strings.Trim(i.Path, "/"), "/"); first {
		case "api", "apis", "openapi", "version":
			return nil
		}
		return r.notFoundPath()
	}
	row := r.s.Catalogue.Lookup(i.APIGroup, i.APIVersion, i.Resource)
	if row == nil || row.NotStored || i.Subresource != "" && i.Subresource != "status" && i.Subresource != "scale" {
		return badRequest("there is no past of %s: only of objects that this server stores", i.Path)
	}
	switch i.Verb {
	case "get", "list":
	case "watch":
		return badRequest("the past does not change: list it, or watch the present")
	default:
		return badRequest("the past cannot be changed: %s is for the present", i.Verb)
	}
	moment, err := url.PathUnescape(moment)
	if err != nil {
		return badRequest("%v", err)
	}
	if r.at, err = r.s.Moment(moment); err != nil {
		return err
	}
	r.auditMoment(moment)
	return r.authorizeAt(r.at)
}

// authorizeAt checks that the user has been allowed what the request asks for since the
// revision that it reads.
func (r *incoming) authorizeAt(revision int64) error {
	if r.s.Authorizer == nil {
		return nil
	}
	a := r.Attributes()
	decision, reason, err := r.s.Authorizer.Authorize(authz.Since(r.ctx(), revision), a)
	if decision != authorizer.DecisionAllow {
		reason = strings.TrimSuffix("this was not allowed yet at revision "+formatRevision(revision)+", which is of the past: "+reason, ": ")
	}
	return r.judged(a, decision, reason, err)
}

// entryAt returns the entry of a key at the revision that is read; nil where there is
// none.
func (r *incoming) entryAt(key string) (*store.Entry, error) {
	if r.at == 0 {
		return r.s.Store.Get(r.ctx(), key)
	}
	res, err := r.s.Store.List(r.ctx(), key, store.ListOptions{Revision: r.at, Past: true, Limit: 1, Match: func(e *store.Entry) bool { return e.Key == key }})
	if err != nil {
		return nil, err
	}
	if len(res.Entries) == 0 {
		return nil, nil
	}
	return res.Entries[0], nil
}
