// Package pod runs pods through a CRI runtime. Each pod has one worker, woken by
// the API's events, the runtime's events, probe results and timers. Its loop is the
// only one that decides; its parts each hold one idea: history (what the runtime
// has of the pod), kills, probes, starts, resizing, sandboxes, and the status that
// is reported. All that a worker needs to know it can read back from the runtime,
// the API and the pod's folder, so that an agent may stop and the next one start
// without a container noticing.
package pod
