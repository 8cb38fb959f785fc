// Package dash serves what the page of keelson dash draws: the nodes, workloads and pods
// of a cluster as one picture, and then each change, with what was written by whom. Package
// page has the page's files, package proxy brings both to a browser. It may import packages
// api, api/catalogue, api/core, statuserror, store and trace.
//
// A stream has no queue. It has a record of each object that it shows, and the set of those
// that changed since they were sent; a client that reads slowly gets the newest state of
// each. Without a client there is nothing: no watch, and no copy of anything.
package dash
