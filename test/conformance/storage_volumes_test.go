package conformance

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// downward is a volume of the pod's own fields, by itself or projected.
type downward struct {
	title  string
	source func(mode *int32, items ...v1.DownwardAPIVolumeFile) v1.VolumeSource
}

var downwards = []downward{
	{"Downward API volume", func(mode *int32, items ...v1.DownwardAPIVolumeFile) v1.VolumeSource {
		return v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: items, DefaultMode: mode}}
	}},
	{"Projected downwardAPI", func(mode *int32, items ...v1.DownwardAPIVolumeFile) v1.VolumeSource {
		return projection(mode, v1.VolumeProjection{DownwardAPI: &v1.DownwardAPIProjection{Items: items}})
	}},
}

func fieldFile(path, field string) v1.DownwardAPIVolumeFile {
	return v1.DownwardAPIVolumeFile{Path: path, FieldRef: &v1.ObjectFieldSelector{FieldPath: field}}
}

func resourceFile(path, name, divisor string) v1.DownwardAPIVolumeFile {
	return v1.DownwardAPIVolumeFile{Path: path, ResourceFieldRef: &v1.ResourceFieldSelector{ContainerName: "main", Resource: name, Divisor: resource.MustParse(divisor)}}
}

// limited sets requests and limits of the first container.
var limited = first(func(c *v1.Container) {
	c.Resources = v1.ResourceRequirements{
		Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("250m"), v1.ResourceMemory: resource.MustParse("32Mi")},
		Limits:   v1.ResourceList{v1.ResourceCPU: resource.MustParse("1250m"), v1.ResourceMemory: resource.MustParse("64Mi")},
	}
})

var _ = func() bool {
	for _, d := range downwards {
		title := "[sig-storage] " + d.title + " "
		for rest, c := range map[string]struct {
			file v1.DownwardAPIVolumeFile
			want string
		}{
			"should provide podname only":               {fieldFile("f", "metadata.name"), "p"},
			"should provide container's cpu limit":      {resourceFile("f", "limits.cpu", "1"), "2"},
			"should provide container's memory limit":   {resourceFile("f", "limits.memory", "1Mi"), "64"},
			"should provide container's cpu request":    {resourceFile("f", "requests.cpu", "1m"), "250"},
			"should provide container's memory request": {resourceFile("f", "requests.memory", "1Mi"), "32"},
		} {
			InContainers(title+rest, func(t *T) {
				if out := t.output(t.script("p", "cat /v/f", limited, mounted("v", d.source(nil, c.file)))); out != c.want {
					t.Errorf("the pod says %q, want %q", out, c.want)
				}
			})
		}
		for _, r := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			InContainers(fmt.Sprintf("%sshould provide node allocatable (%s) as default %[2]s limit if the limit is not set", title, r), func(t *T) {
				out := t.output(t.script("p", "cat /v/f", mounted("v", d.source(nil, resourceFile("f", "limits."+string(r), "1")))))
				p := got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Get(t.Context(), "p", get))
				n := got[*v1.Node](t)(t.Client.CoreV1().Nodes().Get(t.Context(), p.Spec.NodeName, get))
				q := n.Status.Allocatable[r]
				if want := fmt.Sprint(q.Value()); out != want {
					t.Errorf("the pod says %q, the node has %s", out, want)
				}
			})
		}
		InContainers(title+"should set DefaultMode on files", func(t *T) {
			t.prints(t.script("p", "stat -L -c %a /v/f", mounted("v", d.source(ptr.To[int32](0o400), fieldFile("f", "metadata.name")))), "400\n")
		})
		InContainers(title+"should set mode on item file", func(t *T) {
			f := fieldFile("f", "metadata.name")
			f.Mode = ptr.To[int32](0o400)
			t.prints(t.script("p", "stat -L -c %a /v/f", mounted("v", d.source(nil, f))), "400\n")
		})
		for _, what := range []string{"labels", "annotations"} {
			InContainers(title+"should update "+what+" on modification", func(t *T) {
				p := t.script("p", watching("v/f"), mounted("v", d.source(nil, fieldFile("f", "metadata."+what))))
				p.Labels, p.Annotations = map[string]string{"key": "value1"}, map[string]string{"key": "value1"}
				t.makePod(p)
				t.hears("p", "main", `key="value1"`)
				got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), "p", types.MergePatchType, patchOf(dict{"metadata": dict{what: dict{"key": "value2"}}}), metav1.PatchOptions{}))
				t.hears("p", "main", `key="value2"`)
			})
		}
	}
	return true
}()

// emptyOf returns an emptyDir of a medium as the codenames call it.
func emptyOf(medium string) v1.VolumeSource {
	e := &v1.EmptyDirVolumeSource{}
	if medium == "tmpfs" {
		e.Medium = v1.StorageMediumMemory
	}
	return v1.VolumeSource{EmptyDir: e}
}

var _ = func() bool {
	const title = "[sig-storage] EmptyDir volumes "
	for _, medium := range []string{"default", "tmpfs"} {
		onMedium := "default medium"
		if medium == "tmpfs" {
			onMedium = "tmpfs"
		}
		InContainers(title+"volume on "+onMedium+" should have the correct mode", func(t *T) {
			out := t.output(t.script("p", "stat -c %a /v; grep ' /v ' /proc/mounts", mounted("v", emptyOf(medium))))
			if !strings.HasPrefix(out, "777\n") || (medium == "tmpfs") != strings.Contains(out, "tmpfs /v tmpfs") {
				t.Errorf("the pod says %q", out)
			}
		})
		for _, user := range []string{"root", "non-root"} {
			for _, mode := range []string{"0644", "0666", "0777"} {
				InContainers(fmt.Sprintf("%sshould support (%s,%s,%s)", title, user, mode, medium), func(t *T) {
					change := func(*v1.Pod) {}
					uid := "0"
					if user == "non-root" {
						change, uid = nobodyUser, "1000"
					}
					script := fmt.Sprintf("echo mount-tester > /v/file && chmod %s /v/file && stat -c '%%a %%u' /v/file && cat /v/file && grep ' /v ' /proc/mounts", mode)
					out := t.output(t.script("p", script, mounted("v", emptyOf(medium)), change))
					if want := mode[1:] + " " + uid + "\nmount-tester\n"; !strings.HasPrefix(out, want) || (medium == "tmpfs") != strings.Contains(out, "tmpfs /v tmpfs") {
						t.Errorf("the pod says %q, want %q", out, want)
					}
				})
			}
		}
	}
	return InContainers(title+"pod should support shared volumes between containers", func(t *T) {
		p := t.script("p", "while ! cat /v/shareddata.txt; do sleep 0.1; done", mounted("v", emptyOf("default")))
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: "writer", Image: t.Busybox, Command: []string{"sh", "-c", "echo Hello from the other > /v/.new && mv /v/.new /v/shareddata.txt"},
			VolumeMounts: p.Spec.Containers[0].VolumeMounts})
		t.prints(p, "Hello from the other\n")
	})
}()

var _ = InContainers("[sig-storage] EmptyDir wrapper volumes should not conflict", func(t *T) {
	createSecret(t, t.NS, "object", map[string]string{"data-1": "value-1"})
	createConfigMap(t, t.NS, "object", map[string]string{"data-1": "value-2"})
	t.prints(t.script("p", "cat /s/data-1 /c/data-1", mounted("s", kindsOfFiles[2].source("object", nil, nil, false)), mounted("c", kindsOfFiles[0].source("object", nil, nil, false))), "value-1value-2")
})

var _ = InContainers("[sig-storage] EmptyDir wrapper volumes should not cause race condition when used for configmaps", func(t *T) {
	const maps, pods = 50, 5
	for i := range maps {
		createConfigMap(t, t.NS, fmt.Sprintf("racey-%d", i), map[string]string{"data-1": "value-1"})
	}
	for round := range 3 {
		for i := range pods {
			p := t.script(fmt.Sprintf("p-%d-%d", round, i), "cat /v*/data-1 | wc -c")
			for j := range maps {
				mounted(fmt.Sprintf("v%d", j), kindsOfFiles[0].source(fmt.Sprintf("racey-%d", j), nil, nil, false))(p)
			}
			t.makePod(p)
		}
		for i := range pods {
			name := fmt.Sprintf("p-%d-%d", round, i)
			t.inPhase(name, v1.PodSucceeded)
			if out := got[string](t)(t.log(name, "main")); out != fmt.Sprintf("%d\n", maps*len("value-1")) {
				t.Errorf("%s says %q", name, out)
			}
			t.must(t.Client.CoreV1().Pods(t.NS).Delete(t.Context(), name, remove))
		}
	}
})

var _ = InContainers("[sig-storage] Projected combined should project all components that make up the projection API [Projection]", func(t *T) {
	createSecret(t, t.NS, "object", map[string]string{"secret-data": "secret-value-1"})
	createConfigMap(t, t.NS, "object", map[string]string{"configmap-data": "configmap-value-1"})
	ref := v1.LocalObjectReference{Name: "object"}
	source := projection(nil,
		v1.VolumeProjection{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{fieldFile("podname", "metadata.name")}}},
		v1.VolumeProjection{Secret: &v1.SecretProjection{LocalObjectReference: ref}}, v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref}})
	t.prints(t.script("p", "cat /all/podname /all/secret-data /all/configmap-data", mounted("all", source)), "psecret-value-1configmap-value-1")
})

// subPath runs a pod whose first container mounts one path of a volume, rewrites
// the volume's files meanwhile where it can, and checks that the container sees the
// same file throughout.
func (t *T) subPath(source v1.VolumeSource, path, target, want string) {
	p := t.script("p", fmt.Sprintf("for i in 1 2 3 4 5; do cat %s; echo; sleep 0.2; done", target))
	p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: source}}
	p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: target, SubPath: path}}
	if out := t.output(p); out != strings.Repeat(want+"\n", 5) {
		t.Errorf("the pod says %q", out)
	}
}

var _ = func() bool {
	const title = "[sig-storage] Subpath Atomic writer volumes should support subpaths with "
	withMap := func(t *T, target string) {
		createConfigMap(t, t.NS, "object", map[string]string{"configmap-key": "configmap-value"})
		t.subPath(kindsOfFiles[0].source("object", nil, nil, false), "configmap-key", target, "configmap-value")
	}
	InContainers(title+"secret pod", func(t *T) {
		createSecret(t, t.NS, "object", map[string]string{"secret-key": "secret-value"})
		t.subPath(kindsOfFiles[2].source("object", nil, nil, false), "secret-key", "/probe-volume", "secret-value")
	})
	InContainers(title+"configmap pod", func(t *T) { withMap(t, "/probe-volume") })
	InContainers(title+"configmap pod with mountPath of existing file", func(t *T) { withMap(t, "/etc/passwd") })
	InContainers(title+"downward pod", func(t *T) {
		t.subPath(downwards[0].source(nil, fieldFile("downward/podname", "metadata.name")), "downward/podname", "/probe-volume", "p")
	})
	return InContainers(title+"projected pod", func(t *T) {
		createConfigMap(t, t.NS, "object", map[string]string{"projected-configmap-key": "projected-value"})
		t.subPath(kindsOfFiles[1].source("object", nil, nil, false), "projected-configmap-key", "/probe-volume", "projected-value")
	})
}()
