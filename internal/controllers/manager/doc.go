// Package manager has the table of controllers and runs them.
//
// It may import the controllers' packages; internal/cluster and the command
// import it.
package manager
