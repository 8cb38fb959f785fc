// Package objectjson reads and writes the JSON of objects that have no Go type:
// maps, slices, strings, int64, float64, bool and nil, as k8s.io/apimachinery's
// unstructured objects have them. It does what sigs.k8s.io/json and
// encoding/json do, for the ordinary input only, at a fraction of their cost:
// everything else is left to them. It imports the standard library only.
package objectjson
