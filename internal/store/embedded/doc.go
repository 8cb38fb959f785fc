// Package embedded is the store's default engine: the state in memory, of
// package memory, and Pebble underneath for durability. One writer puts all
// commits that wait into a single synced batch, and nothing is visible or
// acknowledged before that batch is on disk. It may import packages store and
// memory, and nothing of the layers above.
package embedded
