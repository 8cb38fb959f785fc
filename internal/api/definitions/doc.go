// Package definitions has the OpenAPI definitions of the built-in types: what their Go
// types do not say of themselves at run time, as which fields are required, which
// values a field may have, and what the keys of a list are.
package definitions
