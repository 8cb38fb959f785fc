// Package catalogue puts the rows of all API groups together: the built-in
// ones (Builtin), the scheme of their Go types (Scheme), and a Catalogue that
// the API server looks rows up in and to which a CustomResourceDefinition adds
// rows at run time. It may import the groups' packages, package api and the
// published API libraries.
package catalogue
