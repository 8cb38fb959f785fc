// Package csimigration knows the volumes of drivers that were once part of Kubernetes:
// each stands for a volume of the CSI driver that took over
// (https://kubernetes.io/docs/concepts/storage/volumes/#csi-migration). It may import
// upstream's translation and the API types.
package csimigration

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	translation "k8s.io/csi-translation-lib"
	"k8s.io/klog/v2"
)

const (
	// AnnMigratedTo names, on claims and volumes, the CSI driver that has them.
	AnnMigratedTo = "pv.kubernetes.io/migrated-to"
	// AnnPlugins names, on a CSINode, the plug-ins that the node leaves to drivers.
	AnnPlugins = "storage.alpha.kubernetes.io/migrated-plugins"
)

var translator = translation.New()

// inTree are the plug-ins that drivers took over, in order.
var inTree = func() (out []string) {
	for _, name := range []string{"aws-ebs", "azure-disk", "azure-file", "cinder", "gce-pd", "portworx-volume", "vsphere-volume"} {
		if name = "kubernetes.io/" + name; translator.IsMigratableIntreePluginByName(name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}()

// Plugins is the value of AnnPlugins.
func Plugins() string { return strings.Join(inTree, ",") }

// Driver returns the CSI driver that took over a plug-in, and whether there is one.
func Driver(plugin string) (string, bool) {
	name, err := translator.GetCSINameFromInTreeName(plugin)
	return name, err == nil
}

// Volume returns the volume of a CSI driver that v stands for; v itself where it is of
// no driver that was taken over.
func Volume(v *v1.PersistentVolume) (*v1.PersistentVolume, error) {
	if v.Spec.CSI != nil || !translator.IsPVMigratable(v) {
		return v, nil
	}
	return translator.TranslateInTreePVToCSI(klog.Background(), v)
}

// Inline returns the volume of a CSI driver that a pod's own volume stands for, nil if
// it is of no driver that was taken over.
func Inline(v *v1.Volume, namespace string) (*v1.PersistentVolume, error) {
	if !translator.IsInlineMigratable(v) {
		return nil, nil
	}
	return translator.TranslateInTreeInlineVolumeToCSI(klog.Background(), v, namespace)
}

// InTree reports whether a pod's own volume is of a driver that was taken over.
func InTree(v *v1.Volume) bool { return translator.IsInlineMigratable(v) }

// Mark says on a claim or a volume which driver has it, if its provisioner was taken
// over. It reports whether o has changed.
func Mark(o metav1.Object, provisioner string) bool {
	driver, ok := Driver(provisioner)
	all := o.GetAnnotations()
	if !ok || all[AnnMigratedTo] == driver {
		return false
	}
	if all == nil {
		all = map[string]string{}
	}
	all[AnnMigratedTo] = driver
	o.SetAnnotations(all)
	return true
}
