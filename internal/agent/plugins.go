package agent

import (
	"path/filepath"

	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/node"
	"keelson.dev/keelson/internal/node/dra"
	"keelson.dev/keelson/internal/node/pluginregistry"
	"keelson.dev/keelson/internal/node/podresources"
	"keelson.dev/keelson/internal/node/volume/csi"
)

// registryDir is the folder of the sockets by which plug-ins are found.
func registryDir(m *machine.Machine) string { return filepath.Join(m.Root(), "plugins_registry") }

// fail ends the process where one of its parts has ended with an error.
func (h *host) fail(what string, err error) {
	if err != nil {
		klog.FromContext(h.Ctx).Error(err, "Ended: "+what)
		h.End()
	}
}

// startPlugins starts what plug-ins of all kinds register with.
func (h *host) startPlugins(m *machine.Machine, agent *node.Agent, drivers *csi.Plugin, claims *dra.Manager) {
	devices := agent.Given().Devices
	r := &pluginregistry.Registry{Dir: registryDir(m), Clock: h.clock, Handlers: map[string]pluginregistry.Handler{
		registration.CSIPlugin: drivers, registration.DRAPlugin: claims, registration.DevicePlugin: devices}}
	h.Go(func() { h.fail("the registry of plug-ins", r.Run(h.Ctx)) })
	h.Go(func() { drivers.Run(h.Ctx) })
	h.Go(func() {
		l, err := devices.Listen()
		if err == nil {
			err = devices.Run(h.Ctx, l)
		}
		h.fail("the registration of device plug-ins", err)
	})
	h.Go(func() {
		h.fail("the service of pods' resources", agent.PodResources().Serve(h.Ctx, filepath.Join(m.Root(), podresources.Socket)))
	})
}
