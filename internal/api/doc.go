// Package api is the resource catalogue: a table with one row (Resource) for
// each resource and version that the API server serves. A row has its names,
// scope, strategy functions (defaulting, validation, update rules), table
// columns and subresources; it knows nothing about HTTP or storage. The rows
// of an API group are in the subpackage of its name; package catalogue puts
// them together. A CustomResourceDefinition adds a row at run time.
package api
