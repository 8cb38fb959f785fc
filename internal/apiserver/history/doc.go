// Package history serves what the store of an API server remembers: what changed between
// two moments, by whom and because of what, shown to a user as far as he may read the
// objects; and snapshots of all objects, for administrators. It may import packages api,
// api/catalogue, apiserver/authz, statuserror, store, store/embedded, store/snapshot and trace.
package history

// The paths at which an API server has the handlers.
const (
	ChangesPath  = "/debug/keelson/changes"
	SnapshotPath = "/debug/keelson/snapshot"
)
