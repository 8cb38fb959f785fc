package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// SELinux finds the labels that volumes are mounted with, in place of a walk through
// their files (https://kep.k8s.io/1710).
type SELinux struct {
	// Root is before /sys and /etc; empty but in tests.
	Root string
}

// Label returns the label of a pod's volume, "" if the machine has no SELinux, or the
// pod does not say which label it has, or wants its files to be changed one by one.
func (x SELinux) Label(p *v1.Pod, volume string) (string, error) {
	if _, err := os.Stat(filepath.Join(x.Root, "/sys/fs/selinux/enforce")); err != nil {
		return "", nil //nolint:nilerr // there is none
	}
	var pod *v1.SELinuxOptions
	if c := p.Spec.SecurityContext; c != nil {
		pod = c.SELinuxOptions
		if ptr.Deref(c.SELinuxChangePolicy, v1.SELinuxChangePolicyMountOption) == v1.SELinuxChangePolicyRecursive {
			return "", nil
		}
	}
	label := ""
	first := true
	for _, containers := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if !slices.ContainsFunc(c.VolumeMounts, func(m v1.VolumeMount) bool { return m.Name == volume }) {
				continue
			}
			options := pod
			if s := c.SecurityContext; s != nil && s.SELinuxOptions != nil {
				options = s.SELinuxOptions
			}
			own := ""
			if options != nil && options.Level != "" {
				var err error
				if own, err = x.file(options); err != nil {
					return "", err
				}
			}
			if !first && own != label {
				return "", fmt.Errorf("volume %q is used by containers with different SELinux labels, %q and %q", volume, label, own)
			}
			label, first = own, false
		}
	}
	return label, nil
}

// file returns the label of files of a process with these options: the machine's
// default for containers' files, with their user and level.
func (x SELinux) file(o *v1.SELinuxOptions) (string, error) {
	policy, err := x.setting("/etc/selinux/config", "SELINUXTYPE")
	if err != nil {
		return "", err
	}
	label, err := x.setting("/etc/selinux/"+policy+"/contexts/lxc_contexts", "file")
	if err != nil {
		return "", err
	}
	parts := strings.SplitN(label, ":", 4)
	if len(parts) != 4 {
		return "", fmt.Errorf("the machine's SELinux label of containers' files is %q: wanted user:role:type:level", label)
	}
	if o.User != "" {
		parts[0] = o.User
	}
	parts[3] = o.Level
	return strings.Join(parts, ":"), nil
}

// setting returns a value of a file of key = value lines.
func (x SELinux) setting(path, key string) (string, error) {
	text, err := os.ReadFile(filepath.Join(x.Root, path))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(k) == key {
			return strings.Trim(strings.TrimSpace(v), `"`), nil
		}
	}
	return "", fmt.Errorf("%s has no %s", path, key)
}
