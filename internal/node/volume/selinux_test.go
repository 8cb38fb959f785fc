package volume

import (
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestSELinux(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{"sys/fs/selinux/enforce": "1", "etc/selinux/config": "# policy\nSELINUX=enforcing\nSELINUXTYPE=targeted\n",
		"etc/selinux/targeted/contexts/lxc_contexts": "process = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n"} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	level := func(l string) *v1.SELinuxOptions { return &v1.SELinuxOptions{Level: l, Type: "spc_t"} }
	for _, c := range []struct {
		name       string
		root       string
		pod        *v1.SELinuxOptions
		policy     *v1.PodSELinuxChangePolicy
		containers []*v1.SELinuxOptions
		want       string
		fails      bool
	}{
		{"no SELinux", t.TempDir(), level("s0:c1,c2"), nil, []*v1.SELinuxOptions{nil}, "", false},
		{"the pod's", root, level("s0:c1,c2"), nil, []*v1.SELinuxOptions{nil, nil}, "system_u:object_r:container_file_t:s0:c1,c2", false},
		{"a container's, with a user", root, nil, nil, []*v1.SELinuxOptions{{User: "own_u", Level: "s0:c3"}}, "own_u:object_r:container_file_t:s0:c3", false},
		{"the runtime's choice", root, nil, nil, []*v1.SELinuxOptions{nil}, "", false},
		{"no level", root, &v1.SELinuxOptions{Type: "t"}, nil, []*v1.SELinuxOptions{nil}, "", false},
		{"one by one", root, level("s0:c1,c2"), ptr.To(v1.SELinuxChangePolicyRecursive), []*v1.SELinuxOptions{nil}, "", false},
		{"two", root, level("s0:c1,c2"), nil, []*v1.SELinuxOptions{nil, level("s0:c4")}, "", true},
	} {
		p := &v1.Pod{Spec: v1.PodSpec{SecurityContext: &v1.PodSecurityContext{SELinuxOptions: c.pod, SELinuxChangePolicy: c.policy}}}
		for _, o := range c.containers {
			p.Spec.Containers = append(p.Spec.Containers, v1.Container{SecurityContext: &v1.SecurityContext{SELinuxOptions: o}, VolumeMounts: []v1.VolumeMount{{Name: "v"}}})
		}
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{SecurityContext: &v1.SecurityContext{SELinuxOptions: level("s0:c9")}})
		got, err := SELinux{c.root}.Label(p, "v")
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}
