// Package job runs Jobs: it makes their pods, replaces those that fail, counts
// those that end, and says when a Job is over.
//
// A pod of a Job carries the finalizer batch.kubernetes.io/job-tracking until it
// is counted, in three steps, each of which may be repeated: its UID is written
// to status.uncountedTerminatedPods, its finalizer is removed, and the UID is
// replaced by a count (KEP-2307). The pods of an Indexed Job that have succeeded
// are counted by their index alone.
package job
