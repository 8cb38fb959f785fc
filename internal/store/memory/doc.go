// Package memory is the part that the engines of the store share: every live
// object decoded, in an ordered tree that readers copy on write; the recent
// changes in a history that serves watches and lists at a revision; indexes; and
// the watchers, each woken for what it watches only. An engine orders the
// changes, makes them durable in its own way, and then applies them here. It may
// import package store, and nothing of the layers above.
package memory
