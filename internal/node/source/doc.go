// Package source gives the objects that pods' environments and volumes are made
// of: config maps, secrets, and service account tokens, which it keeps and
// renews. It tells which pods' files are to be made anew. It may import
// client-go.
package source
