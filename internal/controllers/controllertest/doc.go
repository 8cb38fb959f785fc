// Package controllertest is a small cluster for the tests of controllers: the
// fake clientset with the parts of an API server's behaviour that controllers
// rely on (UIDs, names, resource versions, generations, conflicts, finalizers),
// to be used inside a testing/synctest bubble. Trial runs controllers through
// trouble on the way to it, and Misfit with objects that they can do nothing with.
//
// It may import internal/controllers and client-go; only tests import it.
package controllertest
