// Package podspec reads pods: their containers of all three kinds, and what
// follows from several fields together. It imports the API's types only.
package podspec
