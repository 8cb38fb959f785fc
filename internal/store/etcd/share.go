package etcd

import (
	"context"
	"crypto/rand"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson.dev/keelson/internal/store"
)

// Two keys beside the store's carry what servers tell one another. Both are written over
// and over, and read by nobody but those who follow etcd: what they had before goes with
// etcd's compaction.
//
// The note of a write is put in its transaction, so that every server has it with the
// change; messages of Post are put by themselves.
const (
	notesKey = "keelson-notes"
	postsKey = "keelson-posts"
)

func (s *Store) notes() string { return notesKey + s.opts.Prefix }
func (s *Store) posts() string { return postsKey + s.opts.Prefix }

// MostPosted bounds a message of Post, in bytes.
const MostPosted = 64 << 10

// newInstance returns what the notes and messages of a store begin with, by which it knows
// its own.
func newInstance() string { return rand.Text()[:16] }

// Post tells the other servers something, of at most MostPosted bytes: Options.Posted gets
// it.
func (s *Store) Post(ctx context.Context, message []byte) error {
	_, err := s.client.Put(ctx, s.posts(), s.instance+string(message[:min(len(message), MostPosted)]))
	return s.explain(err)
}

// shared takes what servers tell one another out of events, and returns the notes, by their
// revisions.
func (s *Store) shared(events []*clientv3.Event) map[int64]string {
	var notes map[int64]string
	for _, ev := range events {
		switch key := string(ev.Kv.Key); {
		case ev.Type != clientv3.EventTypePut:
		case key == s.notes():
			if notes == nil {
				notes = map[int64]string{}
			}
			notes[ev.Kv.ModRevision] = string(ev.Kv.Value)
		case key == s.posts() && ev.Kv.ModRevision > s.since && s.opts.Posted != nil:
			if message, own := s.own(string(ev.Kv.Value)); !own {
				s.opts.Posted([]byte(message))
			}
		}
	}
	return notes
}

// own cuts off who has put a value, and reports whether this server has.
func (s *Store) own(value string) (rest string, own bool) {
	if rest, own = strings.CutPrefix(value, s.instance); own {
		return rest, true
	}
	return value[min(len(value), len(s.instance)):], false
}

// note gives a change its note, and tells of one that another server has made.
func (s *Store) note(change *store.Event, notes map[int64]string) {
	value, ok := notes[change.Revision]
	if !ok {
		return
	}
	note, own := s.own(value)
	change.Note = note
	if !own && change.Revision > s.since && s.opts.Observed != nil {
		s.opts.Observed(change)
	}
}
