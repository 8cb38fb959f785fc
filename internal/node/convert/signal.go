package convert

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const signalPrefix = "SIGNAL_"

// Names of protobuf's enumeration cannot contain + and -, as SIGRTMIN+1 does.
var (
	spelled   = strings.NewReplacer("+", "PLUS", "-", "MINUS")
	unspelled = strings.NewReplacer("PLUS", "+", "MINUS", "-")
)

// stopSignal returns the signal that ends the container, the runtime's default where
// the container has none.
func stopSignal(c *v1.Container) runtimeapi.Signal {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT
	}
	return runtimeapi.Signal(runtimeapi.Signal_value[signalPrefix+spelled.Replace(string(*c.Lifecycle.StopSignal))])
}

// Signal returns the signal that the runtime reports in the API's form, nil if
// it reports none.
func Signal(s runtimeapi.Signal) *v1.Signal {
	if s == runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		return nil
	}
	name := v1.Signal(unspelled.Replace(strings.TrimPrefix(s.String(), signalPrefix)))
	return &name
}
