package node

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// podCgroup is the parent of the pod's containers' cgroups, by QoS class.
func (a *Agent) podCgroup(pod *v1.Pod) string {
	class := ""
	switch qosClass(pod) {
	case v1.PodQOSBurstable:
		class = "burstable"
	case v1.PodQOSBestEffort:
		class = "besteffort"
	}
	if a.CgroupDriver == "systemd" {
		name := "kubepods"
		if class != "" {
			name += "-" + class
		}
		return name + "-pod" + strings.ReplaceAll(string(pod.UID), "-", "_") + ".slice"
	}
	return filepath.Join("/", a.CgroupRoot, "kubepods", class, "pod"+string(pod.UID))
}

// removePodCgroup removes what the runtime left of the pod's cgroup in each
// hierarchy; systemd removes its own slices.
func (a *Agent) removePodCgroup(pod *v1.Pod) {
	if a.CgroupDriver == "systemd" {
		return
	}
	removeCgroups(a.podCgroup(pod))
}

// RemoveCgroups removes the cgroups of a node whose pods have all ended, with the
// root that was made for them.
func RemoveCgroups(driver, root string) {
	switch {
	case driver == "systemd":
	case root == "":
		removeCgroups("/kubepods")
	default:
		removeCgroups(filepath.Join("/", root))
	}
}

func removeCgroups(rel string) {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + rel)
	for _, root := range append(dirs, "/sys/fs/cgroup"+rel) {
		var found []string
		filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				found = append(found, p)
			}
			return nil
		})
		for i := len(found) - 1; i >= 0; i-- {
			os.Remove(found[i]) // one still in use stays, and its removal is tried at the next start
		}
	}
}

func qosClass(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	any, guaranteed := false, true
	for _, cs := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			for _, n := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
				req, lim := cs[i].Resources.Requests[n], cs[i].Resources.Limits[n]
				if !req.IsZero() || !lim.IsZero() {
					any = true
				}
				if lim.IsZero() || !req.IsZero() && req.Cmp(lim) != 0 {
					guaranteed = false
				}
			}
		}
	}
	switch {
	case !any:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}
	return v1.PodQOSBurstable
}
