package csimigration

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestVolumes(t *testing.T) {
	ebs := v1.AWSElasticBlockStoreVolumeSource{VolumeID: "aws://us-east-1a/vol-1", FSType: "xfs", Partition: 2}
	v, err := Volume(&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{AWSElasticBlockStore: &ebs}}})
	if err != nil || v.Name != "pv" || v.Spec.AWSElasticBlockStore != nil || v.Spec.CSI == nil || v.Spec.CSI.Driver != "ebs.csi.aws.com" || v.Spec.CSI.VolumeHandle != "vol-1" ||
		v.Spec.CSI.FSType != "xfs" || v.Spec.CSI.VolumeAttributes["partition"] != "2" {
		t.Errorf("%+v, %v", v, err)
	}
	nfs := &v1.PersistentVolume{Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{}}}}
	if v, err := Volume(nfs); v != nfs || err != nil {
		t.Errorf("a volume that no driver took over: %v, %v", v, err)
	}
	v, err = Inline(&v1.Volume{Name: "x", VolumeSource: v1.VolumeSource{GCEPersistentDisk: &v1.GCEPersistentDiskVolumeSource{PDName: "disk"}}}, "ns")
	if err != nil || v.Spec.CSI == nil || v.Spec.CSI.Driver != "pd.csi.storage.gke.io" || v.Name == "" {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := Inline(&v1.Volume{Name: "x"}, "ns"); v != nil || err != nil {
		t.Errorf("a pod's volume that no driver took over: %v, %v", v, err)
	}
}

func TestPlugins(t *testing.T) {
	if got := Plugins(); got != "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,kubernetes.io/cinder,kubernetes.io/gce-pd,kubernetes.io/portworx-volume,kubernetes.io/vsphere-volume" {
		t.Errorf("plug-ins: %s", got)
	}
	c := &v1.PersistentVolumeClaim{}
	if !Mark(c, "kubernetes.io/cinder") || c.Annotations[AnnMigratedTo] != "cinder.csi.openstack.org" || Mark(c, "kubernetes.io/cinder") || Mark(c, "kubernetes.io/nfs") {
		t.Errorf("annotations: %v", c.Annotations)
	}
}
