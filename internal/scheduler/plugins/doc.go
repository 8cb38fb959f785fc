// Package plugins has the scheduler's filters and scores, with upstream's
// names, weights and messages. It may import package framework and
// component-helpers.
package plugins
