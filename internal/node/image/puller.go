package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/backoff"
	"keelson.dev/keelson/internal/node/credentials"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/pullrecord"
	"keelson.dev/keelson/internal/trace"
)

// retry is the pause after a failure whose end no event announces; again is that
// after a failed pull, whose backoff is looked at then.
const (
	retry = 10 * time.Second
	again = time.Second
)

// Secrets gives the secrets with the credentials for registries.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
}

// Puller has images pulled by the runtime, each by one pod at a time.
type Puller struct {
	Runtime *cri.Client
	Secrets Secrets
	// Providers are the node's plug-ins for credentials, nil for none.
	Providers *credentials.Providers
	Recorder  record.EventRecorder
	Trace     *trace.Reporter // may be nil
	Clock     clock.PassiveClock
	// Records says whose credentials have pulled the images; nil verifies none.
	Records *pullrecord.Records
	// Slots bounds how many images are pulled at one time, by its capacity; nil does not.
	Slots chan struct{}
	// Pulled, if set, is called after each pull, with the image's size in bytes and the time
	// that it took.
	Pulled func(size uint64, took time.Duration)

	mu sync.Mutex
	at map[string]*sync.Mutex // by image
}

// Failure is why a container's image is not there: the reason and message of the
// container's waiting state, and when to try again.
type Failure struct {
	Reason, Message string
	After           time.Duration
}

// Pulls holds the state of the pulls of a pod's images, by their names.
type Pulls struct {
	p *Puller

	mu     sync.Mutex
	pauses map[string]*backoff.Backoff
	failed map[string]failedPull
	took   time.Duration
}

// Took returns how long all pulls of the pod's images took that have succeeded.
func (s *Pulls) Took() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.took
}

// failedPull is how a pull ended last.
type failedPull struct {
	Failure
	at time.Time
}

// Pod returns what pulls the images of one pod.
func (p *Puller) Pod() *Pulls {
	return &Pulls{p: p, pauses: map[string]*backoff.Backoff{}, failed: map[string]failedPull{}}
}

func (p *Puller) lock(image string) func() {
	p.mu.Lock()
	m := p.at[image]
	if m == nil {
		if p.at == nil {
			p.at = map[string]*sync.Mutex{}
		}
		m = &sync.Mutex{}
		p.at[image] = m
	}
	p.mu.Unlock()
	m.Lock()
	if p.Slots == nil {
		return m.Unlock
	}
	p.Slots <- struct{}{}
	return func() {
		<-p.Slots
		m.Unlock()
	}
}

// find returns the ID and size in bytes of an image that the runtime has; an empty
// ID if it has none.
func (p *Puller) find(ctx context.Context, image string) (string, uint64, error) {
	r, err := p.Runtime.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil {
		return "", 0, err
	}
	if r.Image == nil {
		return "", 0, nil
	}
	return r.Image.Id, r.Image.Size, nil
}

// whyPull turns the runtime's error into the reason and message of a failed
// pull; runtimes begin theirs with the reason where it is a special one
// (k8s.io/cri-api/pkg/errors).
func whyPull(image string, err error) Failure {
	for _, special := range []struct {
		reason error
		cause  string
	}{{crierrors.ErrRegistryUnavailable, "the registry is unavailable"}, {crierrors.ErrSignatureValidationFailed, "the signature validation failed"}} {
		if rest, ok := strings.CutPrefix(err.Error(), special.reason.Error()); ok {
			return Failure{Reason: special.reason.Error(), Message: fmt.Sprintf("image pull failed for %s because %s%s", image, special.cause, rest)}
		}
	}
	return Failure{Reason: "ErrImagePull", Message: err.Error()}
}

// Ensure returns the ID of an image, pulled as the policy says. ref is the object
// of the events.
func (s *Pulls) Ensure(ctx context.Context, pod *v1.Pod, image string, policy v1.PullPolicy, ref *v1.ObjectReference) (string, *Failure) {
	p := s.p
	if _, err := name.ParseReference(image, name.WithDefaultRegistry("docker.io")); err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", image, image, err)
		p.Recorder.Event(ref, v1.EventTypeWarning, "InspectFailed", msg)
		p.Recorder.Event(ref, v1.EventTypeWarning, "Failed", "Error: InvalidImageName")
		return "", &Failure{"InvalidImageName", msg, retry}
	}
	looked := time.Now()
	id, size, err := p.find(ctx, image)
	if err != nil {
		msg := fmt.Sprintf("Failed to inspect image %q: %v", image, err)
		p.Recorder.Event(ref, v1.EventTypeWarning, "InspectFailed", msg)
		return "", &Failure{"ImageInspectError", msg, retry}
	}
	switch {
	case id != "" && policy != v1.PullAlways && p.mayUse(ctx, pod, image, id):
		p.Recorder.Event(ref, v1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", image))
		p.Trace.Phase("pods", pod, trace.PhasePull, fmt.Sprintf("%s is here, %d bytes", image, size), looked)
		return id, nil
	case id != "" && policy == v1.PullNever:
		msg := fmt.Sprintf("Container image %q is present with pull policy of Never but does not have the proper credentials", image)
		p.Recorder.Event(ref, v1.EventTypeWarning, "ErrImageNeverPull", msg)
		p.Recorder.Event(ref, v1.EventTypeWarning, "Failed", "Error: ErrImageNeverPull")
		return "", &Failure{"ErrImageNeverPull", msg, retry}
	case id == "" && policy == v1.PullNever:
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", image)
		p.Recorder.Event(ref, v1.EventTypeWarning, "ErrImageNeverPull", msg)
		p.Recorder.Event(ref, v1.EventTypeWarning, "Failed", "Error: ErrImageNeverPull")
		return "", &Failure{"ErrImageNeverPull", msg, retry}
	}
	now := p.Clock.Now()
	s.mu.Lock()
	b, last := s.pauses[image], s.failed[image]
	if b == nil {
		b = &backoff.Backoff{}
		s.pauses[image] = b
	}
	left := time.Duration(0)
	if last.Reason != "" {
		left = b.Wait(last.at, now)
	}
	s.mu.Unlock()
	if left > 0 {
		msg := fmt.Sprintf("Back-off pulling image %q", image)
		p.Recorder.Event(ref, v1.EventTypeNormal, "BackOff", msg)
		p.Recorder.Event(ref, v1.EventTypeWarning, "Failed", "Error: ImagePullBackOff")
		return "", &Failure{"ImagePullBackOff", fmt.Sprintf("%s: %s: %s", msg, last.Reason, last.Message), left}
	}
	p.Recorder.Event(ref, v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", image))
	waited := time.Now()
	queued := p.Clock.Now()
	unlock := p.lock(image)
	begun := p.Clock.Now()
	id, err = p.pull(ctx, pod, image)
	ended := p.Clock.Now()
	unlock()
	var why Failure
	s.mu.Lock()
	if err != nil {
		why = whyPull(image, err)
		b.Next(ended)
		s.failed[image] = failedPull{why, ended}
	} else {
		delete(s.failed, image)
		delete(s.pauses, image)
	}
	s.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			p.Recorder.Event(ref, v1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", image, why.Message))
			p.Recorder.Event(ref, v1.EventTypeWarning, "Failed", "Error: "+why.Reason)
		}
		why.After = again
		return "", &why
	}
	_, size, _ = p.find(ctx, image)
	p.Trace.Phase("pods", pod, trace.PhasePull, fmt.Sprintf("%s, %d bytes", image, size), waited,
		trace.Part{Name: "waiting for other pulls", Took: trace.Millis(begun.Sub(queued))}, trace.Part{Name: "pulling", After: trace.Millis(begun.Sub(queued)), Took: trace.Millis(ended.Sub(begun))})
	if p.Pulled != nil {
		p.Pulled(size, ended.Sub(begun))
	}
	s.mu.Lock()
	s.took += ended.Sub(queued)
	s.mu.Unlock()
	p.Recorder.Event(ref, v1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		image, ended.Sub(begun).Round(time.Millisecond), ended.Sub(queued).Round(time.Millisecond), size))
	return id, nil
}

// pull tries the pod's pull secrets one by one, or none.
func (p *Puller) pull(ctx context.Context, pod *v1.Pod, image string) (string, error) {
	if p.Records != nil {
		if err := p.Records.Begin(image); err != nil {
			return "", err
		}
	}
	id, by, err := p.pullBy(ctx, image, p.credentials(ctx, pod, image))
	if p.Records == nil {
		return id, err
	}
	if err != nil {
		return "", errors.Join(err, p.Records.Failed(image))
	}
	return id, p.Records.Pulled(image, id, repository(image), by)
}

// pullBy tries the credentials one by one, or none. It returns the one that was of a
// Secret.
func (p *Puller) pullBy(ctx context.Context, image string, all []pullrecord.Credential) (string, *pullrecord.Credential, error) {
	if len(all) == 0 {
		id, err := p.request(ctx, image, nil)
		return id, nil, err
	}
	var err error
	for i := range all {
		var id string
		if id, err = p.request(ctx, image, &runtimeapi.AuthConfig{Username: all[i].Username, Password: all[i].Password}); err == nil {
			if all[i].UID == "" {
				return id, nil, nil
			}
			return id, &all[i], nil
		}
	}
	return "", nil, err
}

func (p *Puller) request(ctx context.Context, image string, auth *runtimeapi.AuthConfig) (string, error) {
	r, err := p.Runtime.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}, Auth: auth})
	if err != nil {
		return "", err
	}
	if id, _, err := p.find(ctx, image); err == nil && id != "" {
		return id, nil
	}
	return r.ImageRef, nil
}

// mayUse reports whether the pod may use an image that the node has.
func (p *Puller) mayUse(ctx context.Context, pod *v1.Pod, image, id string) bool {
	repo := repository(image)
	return p.Records == nil || !p.Records.Verifies(image, id, repo) || p.Records.Allowed(image, id, repo, p.credentials(ctx, pod, image))
}

// repository returns the name of an image without its tag or digest.
func repository(image string) string {
	ref, err := name.ParseReference(image, name.WithDefaultRegistry("docker.io"))
	if err != nil {
		return image
	}
	return ref.Context().Name()
}

type dockerAuth struct {
	Username, Password, Auth string
}

// credentials returns the credentials for the image: those of the pod's pull secrets, then those
// of the node's credential providers.
func (p *Puller) credentials(ctx context.Context, pod *v1.Pod, image string) []pullrecord.Credential {
	ref, err := name.ParseReference(image, name.WithDefaultRegistry("docker.io"))
	if err != nil {
		return nil
	}
	repository := ref.Context().Name()
	var out []pullrecord.Credential
	for _, s := range pod.Spec.ImagePullSecrets {
		secret, err := p.Secrets.Secret(ctx, pod.Namespace, s.Name)
		if err != nil {
			p.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
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
		patterns := slices.Collect(maps.Keys(entries))
		credentials.Order(patterns)
		for _, pattern := range patterns {
			if !credentials.Match(pattern, repository) {
				continue
			}
			a := entries[pattern]
			if a.Username == "" && a.Auth != "" {
				if b, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
					a.Username, a.Password, _ = strings.Cut(string(b), ":")
				}
			}
			out = append(out, pullrecord.Credential{Username: a.Username, Password: a.Password, Namespace: secret.Namespace, Name: secret.Name, UID: secret.UID})
		}
	}
	provided, err := p.Providers.Auths(ctx, pod, repository)
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Getting credentials for an image failed", "image", image)
	}
	for _, a := range provided {
		out = append(out, pullrecord.Credential{Username: a.Username, Password: a.Password})
	}
	return out
}
