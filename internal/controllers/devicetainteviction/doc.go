// Package devicetainteviction evicts pods that use devices with NoExecute taints
// which their claims do not tolerate, or no longer do, and keeps the status of
// DeviceTaintRules (KEP-5055).
package devicetainteviction
