// Package embedded is the store's default engine: every live object decoded in
// memory, in an ordered tree; the recent changes in a history that serves
// watches and lists at a revision; and Pebble underneath for durability. One
// writer puts all commits that wait into a single synced batch, and nothing is
// visible or acknowledged before that batch is on disk. It may import package
// store, and nothing of the layers above.
package embedded
