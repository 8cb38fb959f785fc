// Package shape tells which changes of objects are alike to server-side apply: two
// changes of one shape give and take the same fields of the same managers (KEP-555), but
// for the names of items of lists, which a shape has as names to be filled in. So what
// structured-merge-diff has found for one change is known for all of its shape.
//
// It may import apimachinery and structured-merge-diff, nothing else of this module.
package shape
