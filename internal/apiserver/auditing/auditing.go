package auditing

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	auditlog "k8s.io/apiserver/plugin/pkg/audit/log"
	"k8s.io/apiserver/plugin/pkg/audit/truncate"
	auditwebhook "k8s.io/apiserver/plugin/pkg/audit/webhook"
)

// How a back end takes events.
const (
	ModeBatch          = "batch"
	ModeBlocking       = "blocking"
	ModeBlockingStrict = "blocking-strict"
)

var modes = []string{ModeBatch, ModeBlocking, ModeBlockingStrict}

// Handling is how a back end takes events.
type Handling struct {
	// Mode is one of batch, blocking and blocking-strict. In batch mode an event
	// waits in a buffer; in the others the request waits for the back end; in the
	// last it fails with it.
	Mode  string
	Batch buffered.BatchConfig
	// Truncate cuts events and batches down to these sizes.
	Truncate bool
	Sizes    truncate.Config
}

// Log is the back end that writes lines.
type Log struct {
	// Path of the file; "-" is the standard output, empty is no log.
	Path string
	// MaxAge in days, MaxBackups in files and MaxSize in megabytes bound the old
	// logs; 0 is without bound.
	MaxAge, MaxBackups, MaxSize int
	// Format is json or legacy.
	Format   string
	Compress bool
	Handling
}

// Webhook is the back end that sends events.
type Webhook struct {
	// ConfigFile is a kubeconfig that says where to; empty is no webhook.
	ConfigFile string
	// InitialBackoff is how long to wait before a failed request is sent again.
	InitialBackoff time.Duration
	Handling
}

// Selection configures what is logged, and where, as upstream's flags do.
type Selection struct {
	// PolicyFile is a Policy of audit.k8s.io; empty logs nothing.
	PolicyFile string
	Log        Log
	Webhook    Webhook
}

// Default has upstream's defaults.
func Default() Selection {
	handling := func(mode string, batch buffered.BatchConfig) Handling {
		return Handling{Mode: mode, Batch: batch, Sizes: truncate.Config{MaxEventSize: 100 << 10, MaxBatchSize: 10 << 20}}
	}
	return Selection{
		Log: Log{Format: auditlog.FormatJson, Handling: handling(ModeBlocking, buffered.BatchConfig{BufferSize: 10_000, MaxBatchSize: 1})},
		Webhook: Webhook{InitialBackoff: 10 * time.Second, Handling: handling(ModeBatch, buffered.BatchConfig{
			BufferSize: 10_000, MaxBatchSize: 400, MaxBatchWait: 30 * time.Second, ThrottleEnable: true, ThrottleQPS: 10, ThrottleBurst: 15, AsyncDelegate: true})},
	}
}

func (h *Handling) validate(name string) error {
	switch {
	case !slices.Contains(modes, h.Mode):
		return fmt.Errorf("invalid audit %s mode %s, allowed modes are %v", name, h.Mode, modes)
	case h.Mode == ModeBatch && h.Batch.BufferSize <= 0:
		return fmt.Errorf("invalid audit batch %s buffer size %v, must be a positive number", name, h.Batch.BufferSize)
	case h.Mode == ModeBatch && h.Batch.MaxBatchSize <= 0:
		return fmt.Errorf("invalid audit batch %s max batch size %v, must be a positive number", name, h.Batch.MaxBatchSize)
	case h.Sizes.MaxEventSize <= 0:
		return fmt.Errorf("invalid audit truncate %s max event size %v, must be a positive number", name, h.Sizes.MaxEventSize)
	case h.Sizes.MaxBatchSize < h.Sizes.MaxEventSize:
		return fmt.Errorf("invalid audit truncate %s max batch size %v, must be greater than max event size (%v)", name, h.Sizes.MaxBatchSize, h.Sizes.MaxEventSize)
	}
	return nil
}

func (h *Handling) wrap(b audit.Backend) audit.Backend {
	switch h.Mode {
	case ModeBatch:
		b = buffered.NewBackend(b, h.Batch)
	case ModeBlocking:
		b = lenient{b}
	}
	if h.Truncate {
		b = truncate.NewBackend(b, h.Sizes, auditv1.SchemeGroupVersion)
	}
	return b
}

// lenient lets requests go on where the back end fails.
type lenient struct{ audit.Backend }

// ProcessEvents implements audit.Sink.
func (l lenient) ProcessEvents(events ...*auditinternal.Event) bool {
	l.Backend.ProcessEvents(events...)
	return true
}

// Auditor logs requests.
type Auditor struct {
	audit.Backend
	Policy audit.PolicyRuleEvaluator
}

// New makes what is selected; nil where there is no policy, or nowhere to log
// to. It works between Run and Shutdown.
func New(s Selection) (*Auditor, error) {
	var errs []error
	if s.Log.Path != "" {
		errs = append(errs, s.Log.validate(auditlog.PluginName))
		if !slices.Contains(auditlog.AllowedFormats, s.Log.Format) {
			errs = append(errs, fmt.Errorf("invalid audit log format %s, allowed formats are %q", s.Log.Format, auditlog.AllowedFormats))
		}
		for flag, n := range map[string]int{"maxage": s.Log.MaxAge, "maxbackup": s.Log.MaxBackups, "maxsize": s.Log.MaxSize} {
			if n < 0 {
				errs = append(errs, fmt.Errorf("--audit-log-%s %v can't be a negative number", flag, n))
			}
		}
	}
	if s.Webhook.ConfigFile != "" {
		errs = append(errs, s.Webhook.validate(auditwebhook.PluginName))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if s.PolicyFile == "" || s.Log.Path == "" && s.Webhook.ConfigFile == "" {
		return nil, nil
	}
	p, err := policy.LoadPolicyFromFile(s.PolicyFile)
	if err != nil {
		return nil, fmt.Errorf("--audit-policy-file: %w", err)
	}
	var all []audit.Backend
	if s.Log.Path != "" {
		w, err := s.Log.writer()
		if err != nil {
			return nil, fmt.Errorf("--audit-log-path: %w", err)
		}
		all = append(all, s.Log.wrap(auditlog.NewBackend(w, s.Log.Format, auditv1.SchemeGroupVersion)))
	}
	if s.Webhook.ConfigFile != "" {
		b, err := auditwebhook.NewBackend(s.Webhook.ConfigFile, auditv1.SchemeGroupVersion, webhook.DefaultRetryBackoffWithInitialDelay(s.Webhook.InitialBackoff), nil)
		if err != nil {
			return nil, fmt.Errorf("--audit-webhook-config-file: %w", err)
		}
		all = append(all, s.Webhook.wrap(b))
	}
	return &Auditor{Backend: audit.Union(all...), Policy: policy.NewPolicyRuleEvaluator(p)}, nil
}

func (l *Log) writer() (io.Writer, error) {
	if l.Path == "-" {
		return os.Stdout, nil
	}
	if err := os.MkdirAll(filepath.Dir(l.Path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(l.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil || l.MaxSize == 0 {
		return f, err
	}
	return &lumberjack.Logger{Filename: l.Path, MaxAge: l.MaxAge, MaxBackups: l.MaxBackups, MaxSize: l.MaxSize, Compress: l.Compress}, f.Close()
}
