package provision

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/reconcile"
)

const (
	// capacityPeriod is how often the free space is looked at, as by external-provisioner.
	capacityPeriod = time.Minute
	// retryPeriod is the pause after an error.
	retryPeriod = time.Second
	// driverLabel has the driver's name on the objects of its capacity.
	driverLabel = "csi.storage.k8s.io/drivername"
	// steps is how finely the free space is told, so that it is written seldom.
	steps = 64
)

// capacities tells the scheduler how much space the node has for the volumes of each
// class of the driver (https://kubernetes.io/docs/concepts/storage/storage-capacity/).
type capacities struct {
	*Provisioner
	wake chan struct{}
	// known are the objects of the node, by class, if they are listed.
	known  map[string]*storage.CSIStorageCapacity
	listed bool
}

func newCapacities(p *Provisioner, classes cache.SharedIndexInformer) *capacities {
	c := &capacities{Provisioner: p, wake: make(chan struct{}, 1)}
	reconcile.Handle(classes, func(*storage.StorageClass) {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}, nil, nil)
	return c
}

// run publishes the capacity until ctx is done.
func (c *capacities) run(ctx context.Context, synced cache.InformerSynced) {
	if !cache.WaitForCacheSync(ctx.Done(), synced) {
		return
	}
	for {
		next := capacityPeriod
		if err := c.publish(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Publishing the capacity for local volumes failed; trying again")
			next = retryPeriod // no pod is scheduled to the node before; it may not be registered yet
		}
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-c.Clock.After(next):
		}
	}
}

// publish brings the objects of the node's capacity up to date.
func (c *capacities) publish(ctx context.Context) error {
	objects := c.Client.StorageV1().CSIStorageCapacities(metav1.NamespaceSystem)
	if !c.listed {
		all, err := objects.List(ctx, metav1.ListOptions{LabelSelector: labels.Set{driverLabel: c.Driver}.String()})
		if err != nil {
			return err
		}
		c.known = map[string]*storage.CSIStorageCapacity{}
		for i := range all.Items {
			if o := &all.Items[i]; o.Name == c.name(o.StorageClassName) {
				c.known[o.StorageClassName] = o
			}
		}
		c.listed = true
	}
	classes, err := c.classes.List(labels.Everything())
	if err != nil {
		return err
	}
	space, err := c.Controller.GetCapacity(ctx, &csi.GetCapacityRequest{AccessibleTopology: &csi.Topology{Segments: map[string]string{c.Topology: c.Node}}})
	if err != nil {
		return err
	}
	node, err := c.Client.CoreV1().Nodes().Get(ctx, c.Node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	var errs []error
	wanted := map[string]bool{}
	for _, class := range classes {
		if class.Provisioner == c.Driver {
			wanted[class.Name] = true
			errs = append(errs, c.publishClass(ctx, class.Name, space, node))
		}
	}
	for class, o := range c.known {
		if wanted[class] {
			continue
		}
		err := objects.Delete(ctx, o.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
			continue
		}
		delete(c.known, class)
	}
	return errors.Join(errs...)
}

// name returns the name of the object of a class.
func (c *capacities) name(class string) string {
	return fmt.Sprintf("csisc-%x", sha256.Sum256([]byte(c.Node+"/"+class)))[:26]
}

func (c *capacities) publishClass(ctx context.Context, class string, space *csi.GetCapacityResponse, node *v1.Node) (err error) {
	step := max(space.MaximumVolumeSize.GetValue()/steps, 1)
	next := &storage.CSIStorageCapacity{
		ObjectMeta: metav1.ObjectMeta{Name: c.name(class), Namespace: metav1.NamespaceSystem, Labels: map[string]string{driverLabel: c.Driver},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}},
		StorageClassName: class, NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{c.Topology: c.Node}},
		Capacity:          resource.NewQuantity(space.AvailableCapacity/step*step, resource.BinarySI),
		MaximumVolumeSize: resource.NewQuantity(space.MaximumVolumeSize.GetValue(), resource.BinarySI),
	}
	objects := c.Client.StorageV1().CSIStorageCapacities(next.Namespace)
	old := c.known[class]
	if old != nil {
		next.ResourceVersion = old.ResourceVersion
		if equality.Semantic.DeepEqual(old.Capacity, next.Capacity) && equality.Semantic.DeepEqual(old.MaximumVolumeSize, next.MaximumVolumeSize) &&
			equality.Semantic.DeepEqual(old.OwnerReferences, next.OwnerReferences) {
			return nil
		}
		next, err = objects.Update(ctx, next, metav1.UpdateOptions{})
	} else {
		next, err = objects.Create(ctx, next, metav1.CreateOptions{})
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) {
		c.listed = false // another has changed it
	}
	if err != nil {
		return err
	}
	c.known[class] = next
	return nil
}
