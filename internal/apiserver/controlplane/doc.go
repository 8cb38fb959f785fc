// Package controlplane starts an API server: it opens the store, makes the
// certificates and the first objects, puts authentication, authorization, admission
// and the rest of package apiserver together as its Options say, listens, and runs
// what belongs to each server (the controllers of custom resources and APIServices,
// the addresses of Services, the Service kubernetes). Upstream's package of the name
// does the same.
//
// It may import all packages below internal/apiserver.
package controlplane
