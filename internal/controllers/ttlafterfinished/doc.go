// Package ttlafterfinished deletes Jobs some time after they have finished, as
// spec.ttlSecondsAfterFinished says (KEP-592).
package ttlafterfinished
