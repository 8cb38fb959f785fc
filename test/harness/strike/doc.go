// Package strike holds the calls between a program and its peers at chosen points, so
// that a test can kill either of them there: many at once, each about another object.
// The peers are gRPC servers and an HTTP API, which the program reaches by proxies. It
// knows nothing of the calls' meaning; the test says what a call is about.
package strike
