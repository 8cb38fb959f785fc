// Package podgc deletes pods that no node agent will end: pods of nodes that
// are gone, pods that are being deleted before they were bound, and the oldest
// of too many that have ended.
package podgc
