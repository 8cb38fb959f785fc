package node

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// pulls holds the state of the pulls of a pod's images, by their names.
type pulls struct {
	pauses map[string]*backoff
	failed map[string]pullFailure
}

// pullFailure is how a pull ended last: the waiting reason and its message.
type pullFailure struct {
	wait
	at time.Time
}

// whyPull turns the runtime's error into the reason and message of a failed
// pull; runtimes begin theirs with the reason where it is a special one
// (k8s.io/cri-api/pkg/errors).
func whyPull(image string, err error) wait {
	for _, special := range []struct {
		reason error
		cause  string
	}{{crierrors.ErrRegistryUnavailable, "the registry is unavailable"}, {crierrors.ErrSignatureValidationFailed, "the signature validation failed"}} {
		if rest, ok := strings.CutPrefix(err.Error(), special.reason.Error()); ok {
			return wait{special.reason.Error(), fmt.Sprintf("image pull failed for %s because %s%s", image, special.cause, rest)}
		}
	}
	return wait{"ErrImagePull", err.Error()}
}

// imagePuller pulls each image once at a time.
type imagePuller struct {
	a  *Agent
	mu sync.Mutex
	at map[string]*sync.Mutex
}

func newImagePuller(a *Agent) *imagePuller { return &imagePuller{a: a, at: map[string]*sync.Mutex{}} }

func (p *imagePuller) lock(image string) func() {
	p.mu.Lock()
	m := p.at[image]
	if m == nil {
		m = &sync.Mutex{}
		p.at[image] = m
	}
	p.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// find gives the ID of an image that the runtime has; empty if it has none.
func (p *imagePuller) find(ctx context.Context, image string) (string, uint64, error) {
	r, err := p.a.cri.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil {
		return "", 0, err
	}
	if r.Image == nil {
		return "", 0, nil
	}
	return r.Image.Id, r.Image.Size, nil
}

// ensureImage gives the ID of the container's image, pulled as its policy says.
func (w *worker) ensureImage(ctx context.Context, pod *v1.Pod, c *v1.Container, ref *v1.ObjectReference) (string, *startFailure) {
	if _, err := name.ParseReference(c.Image, name.WithDefaultRegistry("docker.io")); err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", c.Image, c.Image, err)
		w.a.Recorder.Event(ref, v1.EventTypeWarning, "InspectFailed", msg)
		w.a.Recorder.Event(ref, v1.EventTypeWarning, "Failed", "Error: InvalidImageName")
		return "", &startFailure{wait{"InvalidImageName", msg}, retryPeriod}
	}
	id, _, err := w.a.images.find(ctx, c.Image)
	if err != nil {
		msg := fmt.Sprintf("Failed to inspect image %q: %v", c.Image, err)
		w.a.Recorder.Event(ref, v1.EventTypeWarning, "InspectFailed", msg)
		return "", &startFailure{wait{"ImageInspectError", msg}, retryPeriod}
	}
	switch {
	case id != "" && c.ImagePullPolicy != v1.PullAlways:
		w.a.Recorder.Event(ref, v1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image))
		return id, nil
	case id == "" && c.ImagePullPolicy == v1.PullNever:
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
		w.a.Recorder.Event(ref, v1.EventTypeWarning, "ErrImageNeverPull", msg)
		w.a.Recorder.Event(ref, v1.EventTypeWarning, "Failed", "Error: ErrImageNeverPull")
		return "", &startFailure{wait{"ErrImageNeverPull", msg}, retryPeriod}
	}
	now := w.a.Clock.Now()
	w.mu.Lock()
	b, last := w.pulls.pauses[c.Image], w.pulls.failed[c.Image]
	if b == nil {
		b = &backoff{}
		w.pulls.pauses[c.Image] = b
	}
	left := time.Duration(0)
	if last.reason != "" {
		left = b.wait(last.at, now)
	}
	w.mu.Unlock()
	if left > 0 {
		msg := fmt.Sprintf("Back-off pulling image %q", c.Image)
		w.a.Recorder.Event(ref, v1.EventTypeNormal, "BackOff", msg)
		w.a.Recorder.Event(ref, v1.EventTypeWarning, "Failed", "Error: ImagePullBackOff")
		return "", &startFailure{wait{"ImagePullBackOff", fmt.Sprintf("%s: %s: %s", msg, last.reason, last.message)}, left}
	}
	w.a.Recorder.Event(ref, v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	queued := w.a.Clock.Now()
	unlock := w.a.images.lock(c.Image)
	begun := w.a.Clock.Now()
	id, err = w.pull(ctx, pod, c.Image)
	ended := w.a.Clock.Now()
	unlock()
	var why wait
	w.mu.Lock()
	if err != nil {
		why = whyPull(c.Image, err)
		b.next(ended)
		w.pulls.failed[c.Image] = pullFailure{why, ended}
	} else {
		delete(w.pulls.failed, c.Image)
		delete(w.pulls.pauses, c.Image)
	}
	w.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			w.a.Recorder.Event(ref, v1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", c.Image, why.message))
			w.a.Recorder.Event(ref, v1.EventTypeWarning, "Failed", "Error: "+why.reason)
		}
		return "", &startFailure{why, shortRetry}
	}
	_, size, _ := w.a.images.find(ctx, c.Image)
	w.a.Recorder.Event(ref, v1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		c.Image, ended.Sub(begun).Round(time.Millisecond), ended.Sub(queued).Round(time.Millisecond), size))
	return id, nil
}

// pull tries the pod's pull secrets one by one, or none.
func (w *worker) pull(ctx context.Context, pod *v1.Pod, image string) (string, error) {
	auths := w.auths(ctx, pod, image)
	if len(auths) == 0 {
		auths = []*runtimeapi.AuthConfig{nil}
	}
	var err error
	for _, a := range auths {
		var r *runtimeapi.PullImageResponse
		if r, err = w.a.cri.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}, Auth: a}); err == nil {
			if id, _, ferr := w.a.images.find(ctx, image); ferr == nil && id != "" {
				return id, nil
			}
			return r.ImageRef, nil
		}
	}
	return "", err
}

type dockerAuth struct {
	Username, Password, Auth string
}

// auths are the credentials of the pod's pull secrets for the image's registry.
func (w *worker) auths(ctx context.Context, pod *v1.Pod, image string) []*runtimeapi.AuthConfig {
	ref, err := name.ParseReference(image, name.WithDefaultRegistry("docker.io"))
	if err != nil {
		return nil
	}
	registry := ref.Context().RegistryStr()
	var out []*runtimeapi.AuthConfig
	for _, s := range pod.Spec.ImagePullSecrets {
		secret, err := w.a.Sources.Secret(ctx, pod.Namespace, s.Name)
		if err != nil {
			w.a.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", s.Name)
			continue
		}
		entries := map[string]dockerAuth{}
		if data := secret.Data[v1.DockerConfigJsonKey]; data != nil {
			var cfg struct{ Auths map[string]dockerAuth }
			if json.Unmarshal(data, &cfg) == nil {
				entries = cfg.Auths
			}
		} else if data := secret.Data[v1.DockerConfigKey]; data != nil {
			_ = json.Unmarshal(data, &entries)
		}
		for host, a := range entries {
			h := strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://")
			h, _, _ = strings.Cut(h, "/")
			if h != registry && !(registry == "index.docker.io" && strings.HasSuffix(h, "docker.io")) {
				continue
			}
			if a.Username == "" && a.Auth != "" {
				if b, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
					a.Username, a.Password, _ = strings.Cut(string(b), ":")
				}
			}
			out = append(out, &runtimeapi.AuthConfig{Username: a.Username, Password: a.Password})
		}
	}
	return out
}
