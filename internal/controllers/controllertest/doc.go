// Package controllertest is a small cluster for the tests of controllers: the
// fake clientset with the parts of an API server's behaviour that controllers
// rely on (UIDs, names, resource versions, generations, conflicts, finalizers),
// to be used inside a testing/synctest bubble.
//
// It may import internal/controllers and client-go; only tests import it.
package controllertest
