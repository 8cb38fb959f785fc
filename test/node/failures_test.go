package node_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/podtest"
)

// failures checks the statuses and events of pods that cannot start, or end badly: their
// image does not exist, or its registry is down or does not answer, their command is not
// there, they crash over and over, or fill their memory or their volume.
func (e *env) failures(t *testing.T) {
	stop := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(stop) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := l.Addr().String()
	l.Close()
	host := strings.TrimPrefix(slow.URL, "http://")

	container := func(p *v1.Pod) *v1.ContainerStatus {
		if len(p.Status.ContainerStatuses) == 0 {
			return &v1.ContainerStatus{}
		}
		return &p.Status.ContainerStatuses[0]
	}
	waiting := func(reason, message string) func(*v1.Pod) bool {
		return func(p *v1.Pod) bool {
			w := container(p).State.Waiting
			return w != nil && w.Reason == reason && strings.Contains(w.Message, message)
		}
	}
	// ended is of a container that is not started again.
	ended := func(reason string, code int32, message string) func(*v1.Pod) bool {
		return func(p *v1.Pod) bool {
			s := container(p).State.Terminated
			return p.Status.Phase == v1.PodFailed && s != nil && s.Reason == reason && s.ExitCode == code && strings.Contains(s.Message, message)
		}
	}
	memory := func(limit string) v1.ResourceRequirements {
		return v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse(limit)}}
	}
	for name, c := range map[string]struct {
		change func(*v1.Pod, *v1.Container)
		ok     func(*v1.Pod) bool
		events []string // "Type Reason beginning of the message"
	}{
		"absent-image": {func(_ *v1.Pod, c *v1.Container) { c.Image = "keelson.local/absent:1" }, waiting("ImagePullBackOff", `Back-off pulling image "keelson.local/absent:1"`),
			[]string{`Normal Pulling Pulling image "keelson.local/absent:1"`, `Warning Failed Failed to pull image "keelson.local/absent:1": `, "Warning Failed Error: ErrImagePull",
				`Normal BackOff Back-off pulling image "keelson.local/absent:1"`, "Warning Failed Error: ImagePullBackOff"}},
		"registry-down": {func(_ *v1.Pod, c *v1.Container) { c.Image = down + "/x:1" }, waiting("ImagePullBackOff", "connection refused"),
			[]string{"Warning Failed Failed to pull image ", "Warning Failed Error: ErrImagePull"}},
		"registry-slow": {func(_ *v1.Pod, c *v1.Container) { c.Image = host + "/x:1" }, waiting("ContainerCreating", ""),
			[]string{"Normal Pulling Pulling image "}},
		"no-command": {func(p *v1.Pod, c *v1.Container) {
			p.Spec.RestartPolicy, c.Command = v1.RestartPolicyNever, []string{"/none"}
		},
			ended("StartError", 128, "no such file or directory"), []string{"Warning Failed Error: failed to create containerd task"}},
		"crashes": {func(_ *v1.Pod, c *v1.Container) { c.Args = []string{"fail"} }, func(p *v1.Pod) bool {
			last := container(p).LastTerminationState.Terminated
			return waiting("CrashLoopBackOff", "back-off 10s restarting failed container=c pod=crashes_default(")(p) && last != nil && last.ExitCode == 1 && last.Reason == "Error"
		}, []string{"Warning BackOff Back-off restarting failed container c in pod crashes_default("}},
		"out-of-memory": {func(p *v1.Pod, c *v1.Container) {
			p.Spec.RestartPolicy, c.Args, c.Resources = v1.RestartPolicyNever, []string{"cat", "/dev/zero"}, memory("24Mi")
		}, ended("OOMKilled", 137, ""), nil},
		"full-volume": {func(p *v1.Pod, c *v1.Container) {
			p.Spec.RestartPolicy, c.Args = v1.RestartPolicyNever, []string{"write", "/v/f", strings.Repeat("x", 100<<10)}
			c.TerminationMessagePolicy = v1.TerminationMessageFallbackToLogsOnError
			p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("16Ki"))}}}}
			c.VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v"}}
		}, ended("Error", 1, "no space left on device"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &env{t, e.client, e.cfg, e.runtime, e.logs, e.manifests}
			p := sleeper(name)
			p.Spec.Containers[0].ImagePullPolicy = v1.PullIfNotPresent
			c.change(p, &p.Spec.Containers[0])
			e.create(p)
			e.pod(name, c.ok)
			if podtest.Ready(p) {
				t.Error("the pod is Ready")
			}
			harness.Succeeds(t, "the events", func() error {
				got, err := e.events(name)
				if err != nil {
					return err
				}
				for _, want := range c.events {
					found := false
					for _, g := range got {
						found = found || strings.HasPrefix(g, want)
					}
					if !found {
						return fmt.Errorf("there is no %q in\n%s", want, strings.Join(got, "\n"))
					}
				}
				return nil
			})
			e.remove(name) // also while its image is being pulled
		})
	}
}

// events returns the events of a pod: type, reason and message.
func (e *env) events(pod string) ([]string, error) {
	list, err := e.client.CoreV1().Events("default").List(e.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("involvedObject.name", pod).String()})
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range list.Items {
		out = append(out, fmt.Sprintf("%s %s %s", list.Items[i].Type, list.Items[i].Reason, list.Items[i].Message))
	}
	return out, nil
}
