package main

import (
	"errors"
	"flag"
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// logLevel is the verbosity of the log.
type logLevel struct {
	v       int
	vmodule string
}

func (l *logLevel) add(fs *pflag.FlagSet) {
	fs.IntVarP(&l.v, "v", "v", 0, "log level")
	fs.StringVar(&l.vmodule, "vmodule", "", "log levels of files, pattern=N, comma separated")
}

// set sets klog's level.
func (l *logLevel) set() error {
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	if err := fs.Set("v", fmt.Sprint(l.v)); err != nil {
		return err
	}
	if err := fs.Set("vmodule", l.vmodule); err != nil {
		return fmt.Errorf("--vmodule: %w", err)
	}
	if l.v == 0 && l.vmodule == "" {
		// At the default level, libraries' words below a warning are left out.
		return errors.Join(fs.Set("legacy_stderr_threshold_behavior", "false"), fs.Set("stderrthreshold", "WARNING"))
	}
	return nil
}
