package convert

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/exclusive"
	"keelson.dev/keelson/internal/node/hook"
	"keelson.dev/keelson/internal/node/layout"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/volume"
)

// Hash returns a hash of the fields that cannot change in a running container.
func Hash(c *v1.Container) string {
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

// Run is a container that is to be created.
type Run struct {
	Pod       *v1.Pod
	Container *v1.Container
	// Image is the ID that the runtime has for the container's image.
	Image string
	// IPs are the pod's addresses.
	IPs []string
	// Count is how often the container has been started before.
	Count int32
	// Volumes are the pod's volumes by name.
	Volumes map[string]volume.Mounted
	// Images are the IDs of the images that the runtime is to mount, by the names of
	// their volumes.
	Images map[string]string
	// CDI are the names of devices for the container.
	CDI []string
	// Given is what the container has for itself.
	Given *exclusive.Given
	// Target is the ID of the container whose processes this one is to see; ""
	// is none.
	Target string
}

// Container returns the container as CRI describes it, and makes the files that are
// mounted into it.
func (c *Converter) Container(ctx context.Context, r *Run) (*runtimeapi.ContainerConfig, error) {
	pod, spec := r.Pod, r.Container
	env, err := c.environment(ctx, r)
	if err != nil {
		return nil, err
	}
	sec, err := c.securityContext(ctx, r)
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
	mounts, err := c.mounts(ctx, r, values)
	if err != nil {
		return nil, err
	}
	devices, err := volumeDevices(r)
	if err != nil {
		return nil, err
	}
	if o := sec.NamespaceOptions; r.Target != "" && o.Pid == runtimeapi.NamespaceMode_CONTAINER { // a pod's shared namespace has the target's processes already
		o.Pid, o.TargetId = runtimeapi.NamespaceMode_TARGET, r.Target
	}
	cfg := &runtimeapi.ContainerConfig{
		Metadata:   &runtimeapi.ContainerMetadata{Name: spec.Name, Attempt: uint32(r.Count)},
		Image:      &runtimeapi.ImageSpec{Image: r.Image, UserSpecifiedImage: spec.Image},
		Command:    expandAll(spec.Command),
		Args:       expandAll(spec.Args),
		WorkingDir: spec.WorkingDir,
		Envs:       env,
		Mounts:     mounts,
		Devices:    devices,
		Labels:     map[string]string{cri.PodNameLabel: pod.Name, cri.PodNamespaceLabel: pod.Namespace, cri.PodUIDLabel: string(pod.UID), cri.ContainerNameLabel: spec.Name},
		Annotations: map[string]string{cri.HashAnnotation: Hash(spec), cri.RestartCountAnnotation: strconv.Itoa(int(r.Count)), cri.TerminationPathAnnotation: spec.TerminationMessagePath,
			cri.TerminationPolicyAnnotation: string(spec.TerminationMessagePolicy), cri.PodGraceAnnotation: strconv.FormatInt(podspec.GracePeriod(pod), 10)},
		LogPath:    layout.LogName(spec.Name, r.Count),
		Stdin:      spec.Stdin,
		StdinOnce:  spec.StdinOnce,
		Tty:        spec.TTY,
		Linux:      &runtimeapi.LinuxContainerConfig{Resources: c.Resources(pod, spec), SecurityContext: sec},
		StopSignal: stopSignal(spec),
	}
	if text := hook.Encode(spec); text != "" {
		cfg.Annotations[cri.PreStopAnnotation] = text
	}
	names := r.CDI
	if g := r.Given; g != nil {
		cfg.Linux.Resources.CpusetCpus, cfg.Linux.Resources.CpusetMems = g.CPUs, g.Nodes
		names = append(names, addDevices(cfg, g.Devices)...)
	}
	for _, name := range names {
		cfg.CDIDevices = append(cfg.CDIDevices, &runtimeapi.CDIDevice{Name: name})
	}
	if len(names) > 0 && !c.CRI.InjectsDevices() {
		return nil, fmt.Errorf("%s %s does not inject CDI devices (%s): containerd 2.0 or later does", c.CRI.RuntimeName, c.CRI.RuntimeVersion, strings.Join(names, ", "))
	}
	if len(cfg.Command) == 0 {
		cfg.Command = nil
	}
	return cfg, nil
}
