package convert

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSignals(t *testing.T) {
	if got := stopSignal(&v1.Container{Lifecycle: &v1.Lifecycle{}}); got != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT || Signal(got) != nil {
		t.Errorf("without a signal: %v", got)
	}
	for _, want := range []v1.Signal{v1.SIGTERM, v1.SIGUSR1, v1.SIGRTMIN, v1.SIGRTMINPLUS15, v1.SIGRTMAXMINUS1, v1.SIGRTMAX} {
		s := stopSignal(&v1.Container{Lifecycle: &v1.Lifecycle{StopSignal: &want}})
		if got := Signal(s); got == nil || *got != want {
			t.Errorf("%s: the runtime's %s", want, s)
		}
	}
}
