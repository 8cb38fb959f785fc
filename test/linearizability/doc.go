// Package linearizability checks that concurrent clients of an API server see one
// order of their reads and writes, across crashes of the server: their history is
// recorded and judged by Porcupine, which knows the Wing and Gong algorithm. A
// request whose answer was lost may have happened at any later time, or never. It
// also checks that watchers see the writers' history: each event that their
// selectors match, once, in order, however often they resume or list again.
//
// go test ./test/linearizability -args -for 5m takes longer than the usual test.
package linearizability
