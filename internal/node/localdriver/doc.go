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
// A folder without its JSON was left by a crash during its creation, and is made
// anew or removed. Sizes are limits where the file system has quotas of projects
// (XFS, and ext4, mounted with prjquota) or quota groups (btrfs, after btrfs quota
// enable), when the folder of the files is a subvolume; elsewhere a volume may take what
// is free. Copies share their blocks with the original where the file system can do
// that.
//
// The package does not depend on Kubernetes. It imports internal/node/statefile and
// internal/node/beneath, and nothing else of this module.
package localdriver
