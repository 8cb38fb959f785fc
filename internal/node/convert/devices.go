package convert

import (
	"maps"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// addDevices adds to a container what device plug-ins say of its devices, and returns the
// names of those that the runtime is to inject. What the pod itself says of a variable or
// a path counts.
func addDevices(cfg *runtimeapi.ContainerConfig, d *pluginapi.ContainerAllocateResponse) (cdi []string) {
	for _, name := range slices.Sorted(maps.Keys(d.GetEnvs())) {
		if !slices.ContainsFunc(cfg.Envs, func(e *runtimeapi.KeyValue) bool { return e.Key == name }) {
			cfg.Envs = append(cfg.Envs, &runtimeapi.KeyValue{Key: name, Value: []byte(d.Envs[name])})
		}
	}
	for _, m := range d.GetMounts() {
		if !slices.ContainsFunc(cfg.Mounts, func(o *runtimeapi.Mount) bool { return o.ContainerPath == m.ContainerPath }) {
			cfg.Mounts = append(cfg.Mounts, &runtimeapi.Mount{ContainerPath: m.ContainerPath, HostPath: m.HostPath, Readonly: m.ReadOnly, SelinuxRelabel: false})
		}
	}
	for _, s := range d.GetDevices() {
		cfg.Devices = append(cfg.Devices, &runtimeapi.Device{ContainerPath: s.ContainerPath, HostPath: s.HostPath, Permissions: s.Permissions})
	}
	for k, v := range d.GetAnnotations() {
		if _, ok := cfg.Annotations[k]; !ok {
			cfg.Annotations[k] = v
		}
	}
	for _, c := range d.GetCdiDevices() {
		cdi = append(cdi, c.Name)
	}
	return cdi
}
