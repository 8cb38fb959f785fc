// Package volume makes the volumes of a node's pods ready: the manager finds the
// plug-in of each one, tries again after a pause that doubles, and takes down
// what a pod has had, even if an agent before this one made it. A kind of volume
// is a package below this one with a Plugin. It may import the API types.
package volume
