package pod

import (
	"context"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/trace"
)

// sandbox makes the sandboxes of a pod, and maps the pod's host ports to them.
type sandbox struct {
	*base
	retryAt  time.Time // when to try to make it again
	attempts uint32
	mapped   string // the one that the host ports lead to
	admitted string // the one that network policies are enforced for
}

// create makes a sandbox, after those that the pod has had.
func (sb *sandbox) create(ctx context.Context, pod *v1.Pod, obs *observed) (*observed, error) {
	for _, s := range obs.sandboxes {
		// A dead sandbox may still hold its network; the address must be free.
		if _, err := sb.CRI.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			return nil, err
		}
		sb.attempts = max(sb.attempts, s.GetMetadata().GetAttempt()+1)
	}
	if len(obs.sandboxes) > 0 {
		sb.Recorder.Event(pod, v1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
	handler, err := sb.Converter.RuntimeHandler(ctx, pod)
	if err != nil {
		return nil, err
	}
	users, err := sb.Converter.Users(ctx, pod, handler)
	if err != nil {
		return nil, err
	}
	cfg, err := sb.Converter.Sandbox(pod, sb.attempts)
	if err != nil {
		return nil, err
	}
	cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users
	if err := os.MkdirAll(cfg.LogDirectory, 0o755); err != nil {
		return nil, err
	}
	begin := time.Now()
	r, err := sb.CRI.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: handler})
	if err != nil {
		return nil, err
	}
	sb.attempts++
	ran := time.Since(begin)
	st, err := sb.CRI.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: r.PodSandboxId})
	if err != nil {
		return nil, err
	}
	sb.tell(pod, st.Status, begin, ran)
	fresh := *obs
	fresh.sandboxes = append([]*runtimeapi.PodSandboxStatus{st.Status}, obs.sandboxes...)
	return &fresh, nil
}

// tell records in the trace that a sandbox was made, which took ran. Runtimes set up the
// network before they create the sandbox itself, and say when that was.
func (sb *sandbox) tell(pod *v1.Pod, st *runtimeapi.PodSandboxStatus, begin time.Time, ran time.Duration) {
	var parts []trace.Part
	if network := time.Unix(0, st.CreatedAt).Sub(begin); network > 0 && network < ran && !pod.Spec.HostNetwork {
		parts = []trace.Part{{Name: "namespaces and network", Took: trace.Millis(network)}, {Name: "sandbox", After: trace.Millis(network), Took: trace.Millis(ran - network)}}
	}
	detail := "with the node's network"
	if n := st.GetNetwork(); n.GetIp() != "" {
		detail = n.GetIp()
		for _, ip := range n.GetAdditionalIps() {
			detail += ", " + ip.GetIp()
		}
	}
	sb.Trace.Phase("pods", pod, trace.PhaseSandbox, detail, begin, parts...)
}
