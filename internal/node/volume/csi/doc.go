// Package csi makes the volumes of CSI drivers ready
// (https://github.com/container-storage-interface/spec/blob/master/spec.md): it keeps the drivers that have registered,
// publishes them in the node's CSINode and labels, waits until volumes are attached, stages them once for the node and
// publishes them once for each pod.
//
// The state is kept on disk, so that a later agent can undo it:
//
//	pods/<uid>/volumes/kubernetes.io~csi/<volume>/vol_data.json   what is, or may be, published; written first, removed last
//	pods/<uid>/volumes/kubernetes.io~csi/<volume>/mount           the target of a file system
//	plugins/kubernetes.io/csi/<driver>/<hash>/globalmount         where a volume is staged
//	plugins/kubernetes.io/csi/<driver>/<hash>/vol_data.json       what is, or may be, staged there
//	plugins/kubernetes.io/csi/volumeDevices/<volume>/data/vol_data.json  the same of devices
//	plugins/kubernetes.io/csi/volumeDevices/publish/<volume>/<uid>, …/staging/<volume>  the same of devices
//
// A volume is unstaged when no pod's vol_data.json names it. A record that is damaged is
// made anew from its PersistentVolume.
package csi
