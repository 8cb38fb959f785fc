package node

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"strconv"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// termMessageMax is how much of a termination message is read, in bytes.
const termMessageMax = 4096

// containerHash changes with what a running container cannot take on.
func containerHash(c *v1.Container) string {
	b, err := json.Marshal(struct {
		Name, Image string
	}{c.Name, c.Image})
	if err != nil {
		return ""
	}
	h := fnv.New32a()
	h.Write(b)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// containerConfig is the container as CRI describes it.
func (w *worker) containerConfig(ctx context.Context, pod *v1.Pod, c *v1.Container, image string, ips []string, count int32) (*runtimeapi.ContainerConfig, error) {
	env, err := w.environment(ctx, pod, c, ips)
	if err != nil {
		return nil, err
	}
	sec, err := w.securityContext(ctx, pod, c, image)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, e := range env {
		values[e.Key] = string(e.Value)
	}
	expandAll := func(in []string) []string {
		out := make([]string, len(in))
		for i := range in {
			out[i] = expand(in[i], values)
		}
		return out
	}
	mounts, err := w.mounts(ctx, pod, c, ips, count, values)
	if err != nil {
		return nil, err
	}
	if target := targetOf(pod, c.Name); target != "" {
		if sec.NamespaceOptions, err = w.targetNamespaces(ctx, sec.NamespaceOptions, target); err != nil {
			return nil, err
		}
	}
	cfg := &runtimeapi.ContainerConfig{
		Metadata:   &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(count)},
		Image:      &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: c.Image},
		Command:    expandAll(c.Command),
		Args:       expandAll(c.Args),
		WorkingDir: c.WorkingDir,
		Envs:       env,
		Mounts:     mounts,
		Labels:     map[string]string{labelPodName: pod.Name, labelPodNamespace: pod.Namespace, labelPodUID: string(pod.UID), labelContainerName: c.Name},
		Annotations: map[string]string{annHash: containerHash(c), annRestartCount: strconv.Itoa(int(count)), annTermPath: c.TerminationMessagePath,
			annTermPolicy: string(c.TerminationMessagePolicy), annPodGrace: strconv.FormatInt(gracePeriod(pod), 10)},
		LogPath:    logPath(c.Name, count),
		Stdin:      c.Stdin,
		StdinOnce:  c.StdinOnce,
		Tty:        c.TTY,
		Linux:      &runtimeapi.LinuxContainerConfig{Resources: w.linuxResources(pod, c), SecurityContext: sec},
		StopSignal: stopSignal(c),
	}
	if len(cfg.Command) == 0 {
		cfg.Command = nil
	}
	return cfg, nil
}

func (a *Agent) getRuntimeClass(ctx context.Context, name string) (*nodev1.RuntimeClass, error) {
	return a.Client.NodeV1().RuntimeClasses().Get(ctx, name, metav1.GetOptions{})
}
