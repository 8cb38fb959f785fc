// Package userns gives pods with users of their own (hostUsers: false) the
// ranges of the machine's IDs that theirs are mapped to: 65,536 IDs a pod, no
// two pods with one in common (https://kep.k8s.io/127). What a pod has is in a
// file of its folder, in upstream's form, so that it outlives the agent. It may import statefile.
package userns
