// Package hook runs the lifecycle hooks of containers: for the node agent, and for what
// stops containers when no agent runs.
package hook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/prober"
)

// maxBody bounds what is read of an answer, in bytes.
const maxBody = 1 << 20

// Runner runs hooks of the containers of a runtime.
type Runner struct {
	CRI   *cri.Client
	Clock clock.Clock
}

// Run runs a hook of the container c, which has this ID, to its end. address gives the
// pod's address.
func (r Runner) Run(ctx context.Context, h *v1.LifecycleHandler, c *v1.Container, id string, address func(context.Context) (string, error)) error {
	switch {
	case h.Exec != nil:
		out, err := r.CRI.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: h.Exec.Command})
		if err == nil && out.ExitCode != 0 {
			err = fmt.Errorf("command exited with %d: %s%s", out.ExitCode, out.Stdout, out.Stderr)
		}
		return err
	case h.HTTPGet != nil:
		ip, err := address(ctx)
		if err != nil {
			return err
		}
		req, err := prober.Request(ctx, h.HTTPGet, prober.Target{PodIP: ip, Container: c}, "kube-lifecycle/1.37")
		if err != nil {
			return err
		}
		res, err := prober.Client(0).Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxBody))
	case h.Sleep != nil:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.Clock.After(time.Duration(h.Sleep.Seconds) * time.Second):
		}
	}
	return nil
}

// Encode returns the container's preStop hook in the form that the runtime keeps it in,
// "" for none: with the number of a port that it names.
func Encode(c *v1.Container) string {
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
		return ""
	}
	h := c.Lifecycle.PreStop.DeepCopy()
	if h.HTTPGet != nil {
		if port, err := prober.Port(h.HTTPGet.Port, c); err == nil {
			h.HTTPGet.Port = intstr.FromInt32(int32(port))
		}
	}
	b, err := json.Marshal(h)
	if err != nil {
		return ""
	}
	return string(b)
}

// PreStop runs the preStop hook that the runtime keeps with a container, if it has one.
func (r Runner) PreStop(ctx context.Context, c *runtimeapi.Container, address func(context.Context) (string, error)) error {
	text := c.Annotations[cri.PreStopAnnotation]
	if text == "" {
		return nil
	}
	h := &v1.LifecycleHandler{}
	if err := json.Unmarshal([]byte(text), h); err != nil {
		return fmt.Errorf("the hook of container %s: %w", c.Id, err)
	}
	return r.Run(ctx, h, &v1.Container{Name: c.GetMetadata().GetName()}, c.Id, address)
}
