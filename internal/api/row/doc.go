// Package row builds catalogue rows from typed strategy functions: a group's
// package writes its functions over its own Go types, and row wraps them in
// the untyped form that api.Resource wants, with the bookkeeping that nearly
// all kinds share (generation, status kept apart from the rest, ages, the rules that
// the types' markers declare). It may import packages api and validation, and
// apimachinery.
package row
