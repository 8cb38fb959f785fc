package auditing

import "github.com/spf13/pflag"

// AddFlags adds upstream's flags of auditing, with their defaults.
func (s *Selection) AddFlags(fs *pflag.FlagSet) {
	*s = Default()
	fs.StringVar(&s.PolicyFile, "audit-policy-file", "", "file with a Policy of audit.k8s.io, which selects the requests to log and the level of detail; without one nothing is logged")
	fs.StringVar(&s.Log.Path, "audit-log-path", "", "file that the requests are logged to; - is the standard output")
	fs.StringVar(&s.Log.Format, "audit-log-format", s.Log.Format, "format of the log: json, or legacy for one line of text for each event")
	fs.IntVar(&s.Log.MaxAge, "audit-log-maxage", 0, "days that old logs are kept; 0 is for ever")
	fs.IntVar(&s.Log.MaxBackups, "audit-log-maxbackup", 0, "number of old logs that are kept; 0 is all")
	fs.IntVar(&s.Log.MaxSize, "audit-log-maxsize", 0, "megabytes at which a new log is begun; 0 is never")
	fs.BoolVar(&s.Log.Compress, "audit-log-compress", false, "compress old logs with gzip")
	fs.StringVar(&s.Webhook.ConfigFile, "audit-webhook-config-file", "", "kubeconfig of the webhook that events are sent to")
	fs.DurationVar(&s.Webhook.InitialBackoff, "audit-webhook-initial-backoff", s.Webhook.InitialBackoff, "how long to wait before a failed request to the webhook is sent again")
	for name, h := range map[string]*Handling{"log": &s.Log.Handling, "webhook": &s.Webhook.Handling} {
		fs.StringVar(&h.Mode, "audit-"+name+"-mode", h.Mode, "how events are taken: batch (from a buffer, later), blocking (the request waits) or blocking-strict (and fails where logging does)")
		fs.IntVar(&h.Batch.BufferSize, "audit-"+name+"-batch-buffer-size", h.Batch.BufferSize, "events that the buffer of the batch mode has room for; more are dropped")
		fs.IntVar(&h.Batch.MaxBatchSize, "audit-"+name+"-batch-max-size", h.Batch.MaxBatchSize, "greatest number of events in a batch")
		fs.DurationVar(&h.Batch.MaxBatchWait, "audit-"+name+"-batch-max-wait", h.Batch.MaxBatchWait, "how long a batch that is not full waits")
		fs.BoolVar(&h.Batch.ThrottleEnable, "audit-"+name+"-batch-throttle-enable", h.Batch.ThrottleEnable, "bound the rate of batches")
		fs.Float32Var(&h.Batch.ThrottleQPS, "audit-"+name+"-batch-throttle-qps", h.Batch.ThrottleQPS, "batches a second")
		fs.IntVar(&h.Batch.ThrottleBurst, "audit-"+name+"-batch-throttle-burst", h.Batch.ThrottleBurst, "batches that may come at once where there were none before")
		fs.BoolVar(&h.Truncate, "audit-"+name+"-truncate-enabled", false, "cut events and batches that are too big")
		fs.Int64Var(&h.Sizes.MaxEventSize, "audit-"+name+"-truncate-max-event-size", h.Sizes.MaxEventSize, "bytes of an event from which on its request and response are left out")
		fs.Int64Var(&h.Sizes.MaxBatchSize, "audit-"+name+"-truncate-max-batch-size", h.Sizes.MaxBatchSize, "bytes of a batch from which on it is sent in parts")
	}
}
