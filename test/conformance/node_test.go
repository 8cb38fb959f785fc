package conformance

import (
	"errors"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

// script returns a pod that runs a script once, by busybox's shell.
func (t *T) script(name, script string, change ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{
		RestartPolicy: v1.RestartPolicyNever, TerminationGracePeriodSeconds: ptr.To[int64](1),
		Containers: []v1.Container{{Name: "main", Image: t.Busybox, Command: []string{"sh", "-c", script}}},
	}}
	for _, f := range change {
		f(p)
	}
	return p
}

// first changes the first container of a pod.
func first(f func(*v1.Container)) func(*v1.Pod) {
	return func(p *v1.Pod) { f(&p.Spec.Containers[0]) }
}

// pod waits until ok returns nil for the pod.
func (t *T) pod(name string, ok func(*v1.Pod) error) *v1.Pod {
	t.Helper()
	var p *v1.Pod
	harness.Succeeds(t, "pod "+name, func() (err error) {
		if p, err = t.Client.CoreV1().Pods(t.NS).Get(t.Context(), name, get); err != nil {
			return err
		}
		return ok(p)
	})
	return p
}

func (t *T) inPhase(name string, phase v1.PodPhase) *v1.Pod {
	t.Helper()
	return t.pod(name, func(p *v1.Pod) error {
		if p.Status.Phase != phase {
			return fmt.Errorf("%s: %+v", p.Status.Phase, p.Status)
		}
		return nil
	})
}

// waitsFor waits until a container of the pod waits for that reason, and returns
// its message.
func (t *T) waitsFor(name, reason string) string {
	t.Helper()
	message := ""
	t.pod(name, func(p *v1.Pod) error {
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if w := c.State.Waiting; w != nil && w.Reason == reason {
				message = w.Message
				return nil
			}
		}
		return fmt.Errorf("%+v", p.Status)
	})
	return message
}

func (t *T) log(pod, container string) (string, error) {
	b, err := t.Client.CoreV1().Pods(t.NS).GetLogs(pod, &v1.PodLogOptions{Container: container}).DoRaw(t.Context())
	return string(b), err
}

// output runs the pod to its success and returns what its first container printed.
func (t *T) output(p *v1.Pod) string {
	t.Helper()
	t.makePod(p)
	t.inPhase(p.Name, v1.PodSucceeded)
	return got[string](t)(t.log(p.Name, p.Spec.Containers[0].Name))
}

// prints runs the pod to its success, and checks that its first container has
// printed these texts.
func (t *T) prints(p *v1.Pod, texts ...string) {
	t.Helper()
	out := t.output(p)
	for _, s := range texts {
		if !strings.Contains(out, s) {
			t.Errorf("%q is not in the output of pod %s:\n%s", s, p.Name, out)
		}
	}
}

// inContainer runs a command in a container and returns what it prints.
func (t *T) inContainer(pod, container string, command ...string) string {
	t.Helper()
	return t.kubectlOK(append([]string{"exec", pod, "-c", container, "--"}, command...)...)
}

// hears waits until the log of a pod contains the text.
func (t *T) hears(pod, container, text string) {
	t.Helper()
	harness.Succeeds(t, fmt.Sprintf("%q in the log of %s", text, pod), func() error {
		out, err := t.log(pod, container)
		if err == nil && !strings.Contains(out, text) {
			err = errors.New(out)
		}
		return err
	})
}

// emptyDir adds an emptyDir to the pod, and a mount of it to its first
// container.
func emptyDir(name, path string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: name, VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
		c := &p.Spec.Containers[0]
		c.VolumeMounts = append(c.VolumeMounts, v1.VolumeMount{Name: name, MountPath: path})
	}
}
