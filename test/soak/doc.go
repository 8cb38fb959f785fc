// Package soak keeps a server busy for long, with many watches and many writers,
// and checks at the end that its memory was steady, that no watch missed an event
// and that every request was answered.
//
// go test ./test/soak -args -for 10m -watches 2000 -writers 500 takes longer than
// the usual test; with -keelson PATH the server is that binary.
package soak
