// Package credentials says for which images credentials are, and gets them from exec
// plug-ins: a kubelet's image credential providers
// (https://kubernetes.io/docs/tasks/administer-cluster/kubelet-credential-provider/).
package credentials

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	kubelet "k8s.io/kubelet/config/v1"
	provider "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// runTime is the most that a plug-in may take, upstream's.
const runTime = time.Minute

// Tokens gives tokens of pods.
type Tokens interface {
	Token(ctx context.Context, p *v1.Pod, use string, t *v1.ServiceAccountTokenProjection) (string, error)
}

// Providers are the plug-ins of a node.
type Providers struct {
	all    []*plugin
	client kubernetes.Interface
	tokens Tokens
	clock  clock.PassiveClock
}

type plugin struct {
	kubelet.CredentialProvider
	program string

	mu    sync.Mutex // one run at a time, whose answer others wait for
	cache map[string]cached
}

// cached is an answer of a plug-in.
type cached struct {
	auth  map[string]provider.AuthConfig
	until time.Time
}

// Load reads a CredentialProviderConfig; bin is the folder of the plug-ins.
func Load(file, bin string, client kubernetes.Interface, tokens Tokens, c clock.PassiveClock) (*Providers, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var config kubelet.CredentialProviderConfig
	if err := yaml.UnmarshalStrict(b, &config); err != nil {
		return nil, fmt.Errorf("the credential providers in %s: %w", file, err)
	}
	if want := kubelet.SchemeGroupVersion.String(); config.APIVersion != want || config.Kind != "CredentialProviderConfig" {
		return nil, fmt.Errorf("%s is a %s of %s, wanted a CredentialProviderConfig of %s", file, config.Kind, config.APIVersion, want)
	}
	p := &Providers{client: client, tokens: tokens, clock: c}
	var errs []error
	if len(config.Providers) == 0 {
		errs = append(errs, errors.New("at least one provider is required"))
	}
	for _, one := range config.Providers {
		if err := p.add(one, bin); err != nil {
			errs = append(errs, fmt.Errorf("provider %q: %w", one.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("the credential providers in %s: %w", file, err)
	}
	return p, nil
}

func (p *Providers) add(one kubelet.CredentialProvider, bin string) error {
	want := provider.SchemeGroupVersion.String()
	switch {
	case one.Name == "" || one.Name != filepath.Base(one.Name) || one.Name == "." || one.Name == "..":
		return errors.New("its name has to be that of a program in the plug-ins' folder")
	case slices.ContainsFunc(p.all, func(o *plugin) bool { return o.Name == one.Name }):
		return errors.New("its name is given twice")
	case one.APIVersion != want:
		return fmt.Errorf("apiVersion is %q, wanted %s", one.APIVersion, want)
	case len(one.MatchImages) == 0:
		return errors.New("matchImages needs at least one entry")
	case one.DefaultCacheDuration == nil || one.DefaultCacheDuration.Duration < 0:
		return errors.New("defaultCacheDuration has to be given, and not negative")
	}
	if t := one.TokenAttributes; t != nil && (t.ServiceAccountTokenAudience == "" || t.RequireServiceAccount == nil ||
		t.CacheType != kubelet.ServiceAccountServiceAccountTokenCacheType && t.CacheType != kubelet.TokenServiceAccountTokenCacheType) {
		return errors.New("tokenAttributes needs serviceAccountTokenAudience, requireServiceAccount, and a cacheType of ServiceAccount or Token")
	}
	program := filepath.Join(bin, one.Name)
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("its program: %w", err)
	}
	p.all = append(p.all, &plugin{CredentialProvider: one, program: program, cache: map[string]cached{}})
	return nil
}

// Auths returns the credentials that the plug-ins have for an image, named without tag and
// digest, that is pulled for the pod. What a plug-in fails with is an error beside the
// others' credentials.
func (p *Providers) Auths(ctx context.Context, pod *v1.Pod, image string) ([]provider.AuthConfig, error) {
	if p == nil {
		return nil, nil
	}
	var out []provider.AuthConfig
	var errs []error
	for _, one := range p.all {
		if !slices.ContainsFunc(one.MatchImages, func(m string) bool { return Match(m, image) }) {
			continue
		}
		auth, err := p.ask(ctx, one, pod, image)
		if err != nil {
			errs = append(errs, fmt.Errorf("credential provider %s: %w", one.Name, err))
		}
		patterns := slices.Collect(maps.Keys(auth))
		Order(patterns)
		for _, m := range patterns {
			if Match(m, image) {
				out = append(out, auth[m])
			}
		}
	}
	return out, errors.Join(errs...)
}

// ask returns a plug-in's answer for the image, a cached one if there is one.
func (p *Providers) ask(ctx context.Context, one *plugin, pod *v1.Pod, image string) (map[string]provider.AuthConfig, error) {
	r := &provider.CredentialProviderRequest{TypeMeta: metav1.TypeMeta{APIVersion: one.APIVersion, Kind: "CredentialProviderRequest"}, Image: image}
	whose, ok, err := p.identify(ctx, one, pod, r)
	if err != nil || !ok {
		return nil, err
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	now := p.clock.Now()
	maps.DeleteFunc(one.cache, func(_ string, c cached) bool { return !now.Before(c.until) })
	registry, _, _ := strings.Cut(image, "/")
	keys := map[provider.PluginCacheKeyType]string{provider.ImagePluginCacheKeyType: "image/" + image, provider.RegistryPluginCacheKeyType: "registry/" + registry, provider.GlobalPluginCacheKeyType: "global"}
	for _, k := range keys {
		if c, ok := one.cache[whose+k]; ok {
			return c.auth, nil
		}
	}
	answer, err := one.run(ctx, r)
	if err != nil {
		return nil, err
	}
	key, ok := keys[answer.CacheKeyType]
	if !ok {
		return nil, fmt.Errorf("its answer has the cacheKeyType %q, which is none", answer.CacheKeyType)
	}
	if keep := ptr.Deref(answer.CacheDuration, *one.DefaultCacheDuration).Duration; keep > 0 {
		one.cache[whose+key] = cached{answer.Auth, now.Add(keep)}
	}
	return answer.Auth, nil
}

// identify gives a plug-in what it wants to know of the pod's service account, and the
// beginning of the keys of what is cached for that; false where it is not to be asked.
func (p *Providers) identify(ctx context.Context, one *plugin, pod *v1.Pod, r *provider.CredentialProviderRequest) (string, bool, error) {
	t := one.TokenAttributes
	if t == nil {
		return "", true, nil
	}
	if pod.Spec.ServiceAccountName == "" {
		return "", !*t.RequireServiceAccount, nil
	}
	account, err := p.client.CoreV1().ServiceAccounts(pod.Namespace).Get(ctx, pod.Spec.ServiceAccountName, metav1.GetOptions{})
	if err != nil {
		return "", false, err
	}
	r.ServiceAccountAnnotations = map[string]string{}
	for _, k := range t.RequiredServiceAccountAnnotationKeys {
		v, ok := account.Annotations[k]
		if !ok {
			return "", false, fmt.Errorf("service account %s/%s has no annotation %s", account.Namespace, account.Name, k)
		}
		r.ServiceAccountAnnotations[k] = v
	}
	for _, k := range t.OptionalServiceAccountAnnotationKeys {
		if v, ok := account.Annotations[k]; ok {
			r.ServiceAccountAnnotations[k] = v
		}
	}
	if r.ServiceAccountToken, err = p.tokens.Token(ctx, pod, "image-credentials/"+one.Name, &v1.ServiceAccountTokenProjection{Audience: t.ServiceAccountTokenAudience}); err != nil {
		return "", false, err
	}
	whose := fmt.Sprintf("%s/%s/%s/%v/", account.Namespace, account.Name, account.UID, r.ServiceAccountAnnotations)
	if t.CacheType == kubelet.TokenServiceAccountTokenCacheType {
		whose += fmt.Sprintf("%x/", sha256.Sum256([]byte(r.ServiceAccountToken)))
	}
	return whose, true, nil
}

// run runs the plug-in's program.
func (o *plugin) run(ctx context.Context, r *provider.CredentialProviderRequest) (*provider.CredentialProviderResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	in, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, o.program, o.Args...)
	cmd.Env = os.Environ()
	for _, e := range o.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errOut
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(errOut.String()))
	}
	answer := &provider.CredentialProviderResponse{}
	if err := json.Unmarshal(out.Bytes(), answer); err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	if answer.APIVersion != o.APIVersion || answer.Kind != "CredentialProviderResponse" {
		return nil, fmt.Errorf("its answer is a %s of %s, wanted a CredentialProviderResponse of %s", answer.Kind, answer.APIVersion, o.APIVersion)
	}
	return answer, nil
}
