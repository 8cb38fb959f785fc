package node

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/exclusive"
	"keelson.dev/keelson/internal/node/hardware"
	"keelson.dev/keelson/internal/node/podresources"
)

// newExclusive makes what gives containers resources for themselves.
func newExclusive(a *Agent) (*exclusive.Manager, error) {
	machine, err := hardware.Read("/sys", uint64(a.reporter.Memory()))
	if err != nil {
		return nil, err
	}
	reserved := v1.ResourceList{}
	cpu := a.KubeReserved.Cpu().DeepCopy()
	cpu.Add(*a.SystemReserved.Cpu())
	reserved[v1.ResourceCPU] = cpu
	return exclusive.New(exclusive.Config{
		Options: a.Exclusive, Root: a.RootDir, Machine: machine, Reserved: reserved, All: a.reporter.Reserved(), Clock: a.Clock, Pods: a.Pods,
		Update: func(ctx context.Context, id string, r *runtimeapi.LinuxContainerResources) error {
			_, err := a.cri.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: r})
			return err
		},
		Changed: func(pods []types.UID) {
			a.devicesChanged(pods)
			a.reporter.Changed()
		},
		Registered: a.metrics.PluginRegistered, Allocated: a.metrics.PluginAllocated, Registry: a.metrics.Registry,
	})
}

// devicesChanged makes the status of pods be computed anew: their devices are better or
// worse.
func (a *Agent) devicesChanged(pods []types.UID) {
	for _, uid := range pods {
		a.pods.RuntimeChanged(uid)
	}
}

// admittable returns what pods can have of the node, those that run included: with the
// devices that are theirs even if the plug-in has gone.
func (a *Agent) admittable() v1.ResourceList {
	out := maps.Clone(a.Allocatable())
	maps.Copy(out, a.exclusive.Devices.Admittable())
	return out
}

// Given returns what gives containers resources for themselves.
func (a *Agent) Given() *exclusive.Manager { return a.exclusive }

// PodResources returns what serves the resources of pods to agents that monitor them.
func (a *Agent) PodResources() *podresources.Server {
	return &podresources.Server{Pods: a.Pods, Given: a.exclusive, Claims: a.Devices, Called: a.metrics.PodResources}
}
