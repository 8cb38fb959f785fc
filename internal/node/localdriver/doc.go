// Package localdriver is a CSI driver whose volumes are folders, and files for block volumes,
// of one node (https://github.com/container-storage-interface/spec/blob/master/spec.md). The
// default StorageClass uses it.
//
// A volume is a folder below volumes, a snapshot one below snapshots:
//
//	volumes/<id>/volume.json   the description; written last, so that a volume with it is complete
//	volumes/<id>/data          the files
//	volumes/<id>/disk          the device, a sparse file
//
// A folder without its JSON was left by a crash during its creation, and is created again or
// removed. Sizes are limits where the file system has quotas of projects (XFS, and ext4,
// mounted with prjquota); elsewhere a volume may use all free space. Copies share their blocks
// with the original where the file system supports that.
//
// The package does not depend on Kubernetes. It imports internal/node/statefile and
// nothing else of this module.
package localdriver
