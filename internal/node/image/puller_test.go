package image

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"context"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/cri/critest"
	"keelson.dev/keelson/internal/node/pullrecord"
)

// secrets has the credentials of two registries' users.
type secrets struct{}

func (secrets) Secret(_ context.Context, namespace, name string) (*v1.Secret, error) {
	if name != "one" && name != "two" {
		return nil, errors.New("not found")
	}
	return &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + name)},
		Data: map[string][]byte{v1.DockerConfigJsonKey: []byte(`{"auths":{"r.example.com":{"username":"` + name + `","password":"p"}}}`)}}, nil
}

// TestCredentials checks that an image which a pod's credentials have pulled is not every
// pod's to use, whatever the pull policy.
func TestCredentials(t *testing.T) {
	const image = "r.example.com/private:1"
	runtime, events := critest.New(), record.NewFakeRecorder(100)
	records, err := pullrecord.New("", nil, filepath.Join(t.TempDir(), "records"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Puller{Runtime: runtime.Client(), Secrets: secrets{}, Recorder: events, Clock: clock.RealClock{}, Records: records}
	ensure := func(policy v1.PullPolicy, names ...string) string {
		t.Helper()
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n"}}
		for _, n := range names {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, v1.LocalObjectReference{Name: n})
		}
		_, failed := p.Pod().Ensure(t.Context(), pod, image, policy, &v1.ObjectReference{})
		for len(events.Events) > 0 {
			<-events.Events
		}
		if failed == nil {
			return ""
		}
		return failed.Reason
	}
	if got := ensure(v1.PullIfNotPresent); got != "" {
		t.Errorf("an image that the node has had: %s", got)
	}
	if got := ensure(v1.PullAlways, "one"); got != "" {
		t.Errorf("a pull: %s", got)
	}
	// From now on the registry refuses everybody.
	runtime.RefusePulls(image, errors.New("401 Unauthorized"))
	for _, c := range []struct {
		policy v1.PullPolicy
		names  []string
		want   string
	}{
		{v1.PullIfNotPresent, []string{"one"}, ""},
		{v1.PullNever, []string{"one"}, ""},
		{v1.PullIfNotPresent, nil, "ErrImagePull"},
		{v1.PullIfNotPresent, []string{"two"}, "ErrImagePull"},
		{v1.PullNever, []string{"two"}, "ErrImageNeverPull"},
		{v1.PullIfNotPresent, []string{"two", "one"}, ""},
	} {
		if got := ensure(c.policy, c.names...); got != c.want {
			t.Errorf("%s by %s: %q, want %q", c.policy, strings.Join(c.names, ","), got, c.want)
		}
	}
}
