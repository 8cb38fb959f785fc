// Package customresource has the API server serve what
// CustomResourceDefinitions define: it settles their names, puts their rows
// into the catalogue, and removes the objects of those that are deleted. It
// may import packages reconcile, api/catalogue and api/customresource.
package customresource
