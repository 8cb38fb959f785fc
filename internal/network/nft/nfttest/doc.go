// Package nfttest has a model of a table of nftables, for tests of the packages that
// write tables: it refuses the changes that the kernel would refuse. It imports
// nothing of this module.
package nfttest
