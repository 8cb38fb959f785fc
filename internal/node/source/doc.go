// Package source reads the objects that pods' environments and volumes are made
// of: config maps, secrets, and service account tokens, which it keeps and
// renews. It reports the pods whose files have to be written again. It may
// import client-go.
package source
