// Package convert converts a pod to CRI: the configuration of its sandbox and of
// each run of a container, with environment, mounts, users, names and resources.
// It changes nothing but the files that are mounted into containers.
package convert
