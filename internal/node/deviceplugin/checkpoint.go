package deviceplugin

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"keelson.dev/keelson/internal/node/statefile"
)

// checkpoint is the file's form, a kubelet's, which others read to find the devices of
// pods.
type checkpoint struct {
	Data struct {
		PodDeviceEntries  []entry
		RegisteredDevices map[string][]string
	}
}

// entry is what a container has of a resource.
type entry struct {
	PodUID        types.UID
	ContainerName string
	ResourceName  string
	// DeviceIDs are by NUMA node.
	DeviceIDs map[int64][]string
	// AllocResp is the plug-in's answer in protobuf.
	AllocResp []byte
}

// load reads the file. Resources of plug-ins that it names have no devices until these
// have registered again.
func (m *Manager) load() error {
	path := filepath.Join(m.Dir, state)
	c, _, err := statefile.Recover[checkpoint](path)
	if err == nil && c == nil {
		return nil // pods that run are given theirs anew
	}
	if err != nil {
		return fmt.Errorf("the devices of pods: %w", err)
	}
	for _, e := range c.Data.PodDeviceEntries {
		a := &allocation{Devices: e.DeviceIDs, Response: &pluginapi.ContainerAllocateResponse{}}
		err = errors.Join(err, proto.Unmarshal(e.AllocResp, a.Response))
		m.set(e.PodUID, e.ContainerName, e.ResourceName, a)
	}
	if err != nil {
		return fmt.Errorf("the devices of pods in %s: %w; remove the file once no pod has devices", path, err)
	}
	for name := range c.Data.RegisteredDevices {
		m.plugins[name] = &plugin{stopped: m.Clock.Now()}
	}
	return nil
}

// set notes what a container has of a resource; m.mu is held.
func (m *Manager) set(pod types.UID, container, resource string, a *allocation) {
	if m.given[pod] == nil {
		m.given[pod] = map[string]map[string]*allocation{}
	}
	if m.given[pod][container] == nil {
		m.given[pod][container] = map[string]*allocation{}
	}
	m.given[pod][container][resource] = a
}

// save writes the file; m.mu is held.
func (m *Manager) save() error {
	var c checkpoint
	c.Data.RegisteredDevices = map[string][]string{}
	for name, p := range m.plugins {
		c.Data.RegisteredDevices[name] = sets.List(p.healthy())
	}
	for _, uid := range slices.Sorted(maps.Keys(m.given)) {
		for _, container := range slices.Sorted(maps.Keys(m.given[uid])) {
			for _, resource := range slices.Sorted(maps.Keys(m.given[uid][container])) {
				a := m.given[uid][container][resource]
				b, err := proto.Marshal(a.Response)
				if err != nil {
					return err
				}
				c.Data.PodDeviceEntries = append(c.Data.PodDeviceEntries, entry{uid, container, resource, a.Devices, b})
			}
		}
	}
	return errors.Join(os.MkdirAll(m.Dir, 0o750), statefile.Write(filepath.Join(m.Dir, state), &c))
}
