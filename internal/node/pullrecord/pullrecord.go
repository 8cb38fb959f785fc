// Package pullrecord records by which credentials the images of a node were pulled, so
// that a pod without any of them does not run an image only because another pod's
// credentials have pulled it (KEP-2535). It may import statefile.
package pullrecord

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/node/statefile"
)

// The policies, a kubelet's imagePullCredentialsVerificationPolicy.
const (
	// NeverVerify verifies no image.
	NeverVerify = "NeverVerify"
	// NeverVerifyPreloadedImages verifies the images that this node has pulled; it is the
	// default.
	NeverVerifyPreloadedImages = "NeverVerifyPreloadedImages"
	// NeverVerifyAllowlistedImages verifies all images except those of a list.
	NeverVerifyAllowlistedImages = "NeverVerifyAllowlistedImages"
	// AlwaysVerify verifies all images.
	AlwaysVerify = "AlwaysVerify"
)

// Policies are all policies.
var Policies = []string{NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages, AlwaysVerify}

// Credential is what an image can be pulled by.
type Credential struct {
	Username, Password string
	// Namespace, Name and UID are those of the Secret that has it, empty for one of the
	// node's own.
	Namespace, Name string
	UID             types.UID
}

// Records are those of a node's images.
type Records struct {
	policy string
	// allowed are the images that NeverVerifyAllowlistedImages does not verify: names of
	// repositories, or the beginnings of such that end in /*.
	allowed []string
	file    string

	mu    sync.Mutex
	state state
	// stale are pulls that an agent before this one has begun, and of which it is not
	// known how they ended.
	stale map[string]bool
}

// state is what is kept.
type state struct {
	// Images holds by image ID who may use an image, by repository.
	Images map[string]map[string]*access
	// Pulling holds the names of images whose pull has begun, and whose record has not
	// been written.
	Pulling map[string]bool
	// Lost reports whether earlier records were lost: an image without one may have been
	// pulled by any credentials.
	Lost bool `json:",omitempty"`
}

// access is who may use an image.
type access struct {
	// All reports whether every pod may.
	All bool `json:",omitempty"`
	// Secrets are those whose pods may.
	Secrets []secret `json:",omitempty"`
}

// secret is one by which an image was pulled.
type secret struct {
	Namespace, Name string
	UID             types.UID
	// Hash is that of the credential in it.
	Hash string
}

// New reads the records in the file.
func New(policy string, allowed []string, file string) (*Records, error) {
	if policy == "" {
		policy = NeverVerifyPreloadedImages
	}
	if !slices.Contains(Policies, policy) {
		return nil, fmt.Errorf("imagePullCredentialsVerificationPolicy %q: there are %s", policy, strings.Join(Policies, ", "))
	}
	r := &Records{policy: policy, allowed: allowed, file: file}
	s, damaged, err := statefile.Recover[state](file)
	if err != nil {
		return nil, fmt.Errorf("the records of pulled images: %w", err)
	}
	if s != nil {
		r.state = *s
	}
	if damaged {
		// Nobody knows who may use the images that are there.
		r.state.Lost = true
		if err := r.save(); err != nil {
			return nil, fmt.Errorf("the records of pulled images: %w", err)
		}
	}
	if r.state.Images == nil {
		r.state.Images = map[string]map[string]*access{}
	}
	if r.state.Pulling == nil {
		r.state.Pulling = map[string]bool{}
	}
	r.stale = maps.Clone(r.state.Pulling)
	return r, nil
}

// Begin records that an image is about to be pulled: whatever becomes of the node's
// process, the image does not count as one that nobody has pulled.
func (r *Records) Begin(image string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Pulling[image] {
		return nil
	}
	r.state.Pulling[image] = true
	return r.save()
}

// Pulled records that the image of a repository was pulled by a credential, nil for none
// or one that every pod of the node has.
func (r *Records) Pulled(image, id, repository string, by *Credential) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.state.Pulling, image)
	delete(r.stale, image)
	a := r.access(id, repository)
	if by == nil {
		*a = access{All: true}
	} else if s := by.secret(); !a.All && !slices.Contains(a.Secrets, s) {
		a.Secrets = append(slices.DeleteFunc(a.Secrets, func(o secret) bool { return o.UID == s.UID && o.Namespace == s.Namespace && o.Name == s.Name }), s)
	}
	return r.save()
}

// Failed records that the pull of an image has failed. An image whose pull an earlier
// agent has begun is verified as before: it may be there by that pull.
func (r *Records) Failed(image string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stale[image] {
		return nil
	}
	delete(r.state.Pulling, image)
	return r.save()
}

func (r *Records) access(id, repository string) *access {
	if r.state.Images[id] == nil {
		r.state.Images[id] = map[string]*access{}
	}
	a := r.state.Images[id][repository]
	if a == nil {
		a = &access{}
		r.state.Images[id][repository] = a
	}
	return a
}

func (c *Credential) secret() secret {
	b, _ := json.Marshal([]string{c.Username, c.Password}) // strings always encode
	h := sha256.Sum256(b)
	return secret{c.Namespace, c.Name, c.UID, hex.EncodeToString(h[:])}
}

// Verifies reports whether the use of an image of the node has to be allowed by
// credentials.
func (r *Records) Verifies(image, id, repository string) bool {
	if r.policy == NeverVerify {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.state.Images[id][repository]; a != nil {
		return !a.All
	}
	preloaded := r.state.Images[id] == nil && !r.state.Pulling[image] && !r.state.Lost
	switch r.policy {
	case NeverVerifyPreloadedImages:
		return !preloaded
	case NeverVerifyAllowlistedImages:
		return !preloaded || !slices.ContainsFunc(r.allowed, func(a string) bool {
			prefix, wild := strings.CutSuffix(a, "/*")
			return a == repository || wild && strings.HasPrefix(repository, prefix+"/")
		})
	}
	return true
}

// Allowed reports whether one of the credentials, or the Secret of one, has pulled the
// image. A Secret that has a credential which has pulled it is recorded as well; the
// content of one that has another by now is not.
func (r *Records) Allowed(image, id, repository string, by []Credential) bool {
	r.mu.Lock()
	var known []secret
	if a := r.state.Images[id][repository]; a != nil {
		known = slices.Clone(a.Secrets)
	}
	r.mu.Unlock()
	for i := range by {
		s := by[i].secret()
		switch {
		case slices.ContainsFunc(known, func(o secret) bool {
			return s.UID != "" && o.UID == s.UID && o.Namespace == s.Namespace && o.Name == s.Name
		}):
			return true
		case slices.ContainsFunc(known, func(o secret) bool { return o.Hash == s.Hash }):
			return s.UID == "" || r.Pulled(image, id, repository, &by[i]) == nil
		}
	}
	return false
}

// Keep forgets the images that the node has no more, by ID.
func (r *Records) Keep(has func(id string) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.state.Images)
	for id := range r.state.Images {
		if !has(id) {
			delete(r.state.Images, id)
		}
	}
	if len(r.state.Images) == n {
		return nil
	}
	return r.save()
}

func (r *Records) save() error { return statefile.Write(filepath.Clean(r.file), &r.state) }
