package framework

import (
	"errors"
	"strings"
)

// Code is the outcome of a plugin.
type Code int

const (
	// Success means that the plugin agrees; a nil *Status is a Success.
	Success Code = iota
	// Error is an internal failure.
	Error
	// Unschedulable refuses the pod; removing pods from the node may help.
	Unschedulable
	// UnschedulableAndUnresolvable refuses the pod; preemption cannot help.
	UnschedulableAndUnresolvable
	// Skip means that the plugin has nothing to do for this pod.
	Skip
)

// Status is the answer of a plugin. A nil Status is a Success.
type Status struct {
	code    Code
	reasons []string
	err     error
	plugin  string
}

// NewStatus makes a status with the reasons to show to users.
func NewStatus(code Code, reasons ...string) *Status {
	return &Status{code: code, reasons: reasons}
}

// AsStatus makes an Error status of err, and Success of nil.
func AsStatus(err error) *Status {
	if err == nil {
		return nil
	}
	return &Status{code: Error, reasons: []string{err.Error()}, err: err}
}

// Code returns the outcome.
func (s *Status) Code() Code {
	if s == nil {
		return Success
	}
	return s.code
}

// Reasons returns the reasons to show to users.
func (s *Status) Reasons() []string {
	if s == nil {
		return nil
	}
	return s.reasons
}

// Message joins the reasons.
func (s *Status) Message() string { return strings.Join(s.Reasons(), ", ") }

// Plugin names the plugin that gave the status.
func (s *Status) Plugin() string {
	if s == nil {
		return ""
	}
	return s.plugin
}

// WithPlugin records which plugin gave the status. The status may be shared
// between nodes, so it is only written while it has no plugin.
func (s *Status) WithPlugin(name string) *Status {
	if s != nil && s.plugin == "" {
		s.plugin = name
	}
	return s
}

// IsSuccess reports whether the plugin agreed.
func (s *Status) IsSuccess() bool { return s.Code() == Success }

// IsSkip reports whether the plugin has nothing to do for this pod.
func (s *Status) IsSkip() bool { return s.Code() == Skip }

// IsRejected reports whether the pod was refused, as opposed to an error.
func (s *Status) IsRejected() bool {
	c := s.Code()
	return c == Unschedulable || c == UnschedulableAndUnresolvable
}

// AsError returns the status as an error, nil on success.
func (s *Status) AsError() error {
	if s.IsSuccess() {
		return nil
	}
	if s.err != nil {
		return s.err
	}
	return errors.New(s.Message())
}
