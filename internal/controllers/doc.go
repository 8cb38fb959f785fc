// Package controllers holds what every controller shares: the context it is
// started with, the work loop, creation and deletion expectations, adoption by
// owner reference, and a few facts about pods. Each controller is a package
// below this one; package start runs them all.
//
// It may import client-go, apimachinery and internal/trace, nothing else of
// this module.
package controllers
