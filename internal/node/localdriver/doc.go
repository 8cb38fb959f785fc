// Package localdriver is a CSI driver whose volumes are folders, and files for
// block volumes, of one node
// (https://github.com/container-storage-interface/spec/blob/master/spec.md). It
// is what the default StorageClass provisions with.
//
// A volume is a folder below volumes, a snapshot one below snapshots:
//
//	volumes/<id>/volume.json   what it is; written last, so that it says that the rest is whole
//	volumes/<id>/data          the files
//	volumes/<id>/disk          the device, a sparse file
//
// A folder without its JSON was left by a crash during its creation, and is made
// anew or removed. Sizes are limits where the file system has quotas of projects
// (XFS, and ext4, mounted with prjquota); elsewhere a volume may take what is
// free. Copies share their blocks with the original where the file system can do
// that.
//
// The package does not depend on Kubernetes.
package localdriver
