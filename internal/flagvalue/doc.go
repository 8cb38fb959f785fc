// Package flagvalue has the flags whose options say the same in another way, so
// that the zero value of the options is the default: a bool that is kept
// negated or that a word sets, and times of which 0 means never.
package flagvalue
