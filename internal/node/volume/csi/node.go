package csi

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"keelson.dev/keelson/internal/csimigration"
)

// nodeIDs is the node's annotation with the IDs that the drivers know it by.
const nodeIDs = "csi.volume.kubernetes.io/nodeid"

// publishNode adds a driver to the node's labels, its annotation and its
// CSINode.
func (p *Plugin) publishNode(ctx context.Context, name string, info *csi.NodeGetInfoResponse) error {
	topology := info.AccessibleTopology.GetSegments()
	node, err := p.changeNode(ctx, func(n *v1.Node, ids map[string]string) {
		ids[name] = info.NodeId
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		maps.Copy(n.Labels, topology)
	})
	if err != nil {
		return err
	}
	next := storage.CSINodeDriver{Name: name, NodeID: info.NodeId, TopologyKeys: slices.Sorted(maps.Keys(topology)), Allocatable: allocatable(info)}
	return p.changeCSINode(ctx, node, func(all []storage.CSINodeDriver) []storage.CSINodeDriver {
		return append(slices.DeleteFunc(all, func(d storage.CSINodeDriver) bool { return d.Name == name }), next)
	})
}

// withdrawNode takes a driver from them. The labels stay, for the volumes that
// are there.
func (p *Plugin) withdrawNode(ctx context.Context, name string) error {
	err := p.changeCSINode(ctx, nil, func(all []storage.CSINodeDriver) []storage.CSINodeDriver {
		return slices.DeleteFunc(all, func(d storage.CSINodeDriver) bool { return d.Name == name })
	})
	if err != nil {
		return err
	}
	_, err = p.changeNode(ctx, func(_ *v1.Node, ids map[string]string) { delete(ids, name) })
	return err
}

func (p *Plugin) changeNode(ctx context.Context, change func(n *v1.Node, ids map[string]string)) (node *v1.Node, err error) {
	nodes := p.Client.CoreV1().Nodes()
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		old, err := nodes.Get(ctx, p.Node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		ids := map[string]string{}
		if text := old.Annotations[nodeIDs]; text != "" {
			_ = json.Unmarshal([]byte(text), &ids) // what is damaged is made anew
		}
		node = old.DeepCopy()
		change(node, ids)
		text, err := json.Marshal(ids)
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			metav1.SetMetaDataAnnotation(&node.ObjectMeta, nodeIDs, string(text))
		} else {
			delete(node.Annotations, nodeIDs)
		}
		if maps.Equal(old.Labels, node.Labels) && maps.Equal(old.Annotations, node.Annotations) {
			return nil
		}
		updated, err := nodes.Update(ctx, node, metav1.UpdateOptions{})
		if err == nil {
			node = updated
		}
		return err
	})
	return node, err
}

// changeCSINode changes the drivers of the node's CSINode, which it makes where
// owner, the node, is given.
func (p *Plugin) changeCSINode(ctx context.Context, owner *v1.Node, change func([]storage.CSINodeDriver) []storage.CSINodeDriver) error {
	all := p.Client.StorageV1().CSINodes()
	return retry.OnError(retry.DefaultRetry, func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }, func() error {
		old, err := all.Get(ctx, p.Node, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) && owner == nil:
			return nil
		case apierrors.IsNotFound(err):
			_, err = all.Create(ctx, &storage.CSINode{
				ObjectMeta: metav1.ObjectMeta{Name: p.Node, Annotations: map[string]string{csimigration.AnnPlugins: csimigration.Plugins()}, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: owner.Name, UID: owner.UID}}},
				Spec:       storage.CSINodeSpec{Drivers: change([]storage.CSINodeDriver{})},
			}, metav1.CreateOptions{})
			return err
		case err != nil:
			return err
		}
		next := old.DeepCopy()
		next.Spec.Drivers = change(next.Spec.Drivers)
		if equality.Semantic.DeepEqual(old.Spec, next.Spec) {
			return nil
		}
		_, err = all.Update(ctx, next, metav1.UpdateOptions{})
		return err
	})
}

// setInUse changes the volumes that the node's status reports as in use. The
// attach and detach controller detaches none of these.
func (p *Plugin) setInUse(ctx context.Context, change func(map[v1.UniqueVolumeName]bool)) error {
	p.inUse.Lock()
	defer p.inUse.Unlock()
	node, err := p.Client.CoreV1().Nodes().Get(ctx, p.Node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	set := map[v1.UniqueVolumeName]bool{}
	for _, v := range node.Status.VolumesInUse {
		set[v] = true
	}
	change(set)
	next := slices.Sorted(maps.Keys(set))
	if slices.Equal(next, slices.Sorted(slices.Values(node.Status.VolumesInUse))) {
		return nil
	}
	if next == nil {
		next = []v1.UniqueVolumeName{}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"volumesInUse": next}})
	if err != nil {
		return err
	}
	_, err = p.Client.CoreV1().Nodes().Patch(ctx, p.Node, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
