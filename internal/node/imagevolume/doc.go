// Package imagevolume mounts images as volumes (https://kep.k8s.io/4639) where the
// runtime does not do it by itself: containerd before 2.1. The image is one that the
// runtime has pulled and unpacked; its layers are mounted by a view that containerd's
// snapshotter gives of them, so that they are on the disk once.
package imagevolume
