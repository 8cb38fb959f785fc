// Package netdisk gives pods the disks of a storage network: iSCSI
// (https://kubernetes.io/docs/concepts/storage/volumes/#iscsi) and Fibre Channel
// (https://kubernetes.io/docs/concepts/storage/volumes/#fc), by the machine's iscsiadm,
// multipath and mkfs.
//
// A disk is attached once for the node, and its file system mounted once; each pod has
// it bound to a folder of its own. What a later agent needs to undo this is on disk:
//
//	pods/<uid>/volumes/kubernetes.io~iscsi/<volume>/disk.json   what is, or may be, attached; written first, removed last
//	pods/<uid>/volumes/kubernetes.io~iscsi/<volume>/mount       the pod's folder
//	plugins/kubernetes.io/iscsi/<disk>                          where the file system is mounted
//
// A disk is detached when no pod's disk.json names it.
package netdisk
