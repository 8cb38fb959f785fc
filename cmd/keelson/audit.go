package main

import (
	"github.com/spf13/cobra"

	"keelson.dev/keelson/internal/apiserver/auditing"
)

// addAudit adds upstream's flags of auditing.
func (f *serverFlags) addAudit(c *cobra.Command) {
	f.audit = auditing.Default()
	a, flags := &f.audit, c.Flags()
	flags.StringVar(&a.PolicyFile, "audit-policy-file", "", "file with a Policy of audit.k8s.io: what is logged of which requests; without one nothing is")
	flags.StringVar(&a.Log.Path, "audit-log-path", "", "file that the requests are logged to; - is the standard output")
	flags.StringVar(&a.Log.Format, "audit-log-format", a.Log.Format, "format of the log: json, or legacy for one line of text for each event")
	flags.IntVar(&a.Log.MaxAge, "audit-log-maxage", 0, "days that old logs are kept; 0 is for ever")
	flags.IntVar(&a.Log.MaxBackups, "audit-log-maxbackup", 0, "number of old logs that are kept; 0 is all")
	flags.IntVar(&a.Log.MaxSize, "audit-log-maxsize", 0, "megabytes at which a new log is begun; 0 is never")
	flags.BoolVar(&a.Log.Compress, "audit-log-compress", false, "compress old logs with gzip")
	flags.StringVar(&a.Webhook.ConfigFile, "audit-webhook-config-file", "", "kubeconfig of the webhook that events are sent to")
	flags.DurationVar(&a.Webhook.InitialBackoff, "audit-webhook-initial-backoff", a.Webhook.InitialBackoff, "how long to wait before a failed request to the webhook is sent again")
	for name, h := range map[string]*auditing.Handling{"log": &a.Log.Handling, "webhook": &a.Webhook.Handling} {
		flags.StringVar(&h.Mode, "audit-"+name+"-mode", h.Mode, "how events are taken: batch (from a buffer, later), blocking (the request waits) or blocking-strict (and fails where logging does)")
		flags.IntVar(&h.Batch.BufferSize, "audit-"+name+"-batch-buffer-size", h.Batch.BufferSize, "events that the buffer of the batch mode has room for; more are dropped")
		flags.IntVar(&h.Batch.MaxBatchSize, "audit-"+name+"-batch-max-size", h.Batch.MaxBatchSize, "greatest number of events in a batch")
		flags.DurationVar(&h.Batch.MaxBatchWait, "audit-"+name+"-batch-max-wait", h.Batch.MaxBatchWait, "how long a batch that is not full waits")
		flags.BoolVar(&h.Batch.ThrottleEnable, "audit-"+name+"-batch-throttle-enable", h.Batch.ThrottleEnable, "bound the rate of batches")
		flags.Float32Var(&h.Batch.ThrottleQPS, "audit-"+name+"-batch-throttle-qps", h.Batch.ThrottleQPS, "batches a second")
		flags.IntVar(&h.Batch.ThrottleBurst, "audit-"+name+"-batch-throttle-burst", h.Batch.ThrottleBurst, "batches that may come at once where there were none before")
		flags.BoolVar(&h.Truncate, "audit-"+name+"-truncate-enabled", false, "cut events and batches that are too big")
		flags.Int64Var(&h.Sizes.MaxEventSize, "audit-"+name+"-truncate-max-event-size", h.Sizes.MaxEventSize, "bytes of an event from which on its request and response are left out")
		flags.Int64Var(&h.Sizes.MaxBatchSize, "audit-"+name+"-truncate-max-batch-size", h.Sizes.MaxBatchSize, "bytes of a batch from which on it is sent in parts")
	}
}
