// Package heap keeps the process small where it does little, and lets it use the
// machine's memory where it does much: it paces the garbage collector, and gives
// unused memory back. It imports nothing of this module.
package heap
