package source

import (
	"context"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	certificatesinformers "k8s.io/client-go/informers/certificates/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
)

type kind int

const (
	configMap kind = iota
	secret
	trustBundles // all of the cluster's
)

// reference names an object.
type reference struct {
	kind            kind
	namespace, name string
}

// object is one that is watched.
type object struct {
	informer cache.SharedIndexInformer
	stop     context.CancelFunc
	pods     int // how many name it
}

// name watches what the pod names, and nothing more for it once it has ended.
func (s *Source) name(p *v1.Pod, watch func(reference) *object) {
	var refs []reference
	if p.Status.Phase != v1.PodSucceeded && p.Status.Phase != v1.PodFailed {
		refs = references(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.named[p.UID]
	if slices.Equal(was, refs) {
		return
	}
	for _, r := range refs {
		if s.objects[r] == nil {
			s.objects[r] = watch(r)
		}
		s.objects[r].pods++
	}
	s.release(was)
	if s.named[p.UID] = refs; len(refs) == 0 {
		delete(s.named, p.UID)
	}
}

// release ends the watches of the objects that a pod was the last to name. s.mu
// is held.
func (s *Source) release(refs []reference) {
	for _, r := range refs {
		o := s.objects[r]
		if o.pods--; o.pods == 0 {
			o.stop()
			delete(s.objects, r)
		}
	}
}

// watch begins to watch an object until ctx is done, or it is stopped: an
// immutable object is when it is known.
func (s *Source) watch(ctx context.Context, running *sync.WaitGroup, r reference, on func(Change)) *object {
	one := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, r.name).String()
	}
	ctx, stop := context.WithCancel(ctx)
	o := &object{stop: stop}
	change := Change{Namespace: r.namespace}
	switch r.kind {
	case trustBundles:
		o.informer = certificatesinformers.NewClusterTrustBundleInformer(s.client, 0, nil)
		change.TrustBundles = true
	case secret:
		o.informer = coreinformers.NewFilteredSecretInformer(s.client, r.namespace, 0, nil, one)
		change.Secret = r.name
	default:
		o.informer = coreinformers.NewFilteredConfigMapInformer(s.client, r.namespace, 0, nil, one)
		change.ConfigMap = r.name
	}
	changed := func(now any) {
		switch now := now.(type) {
		case *v1.ConfigMap:
			if now.Immutable != nil && *now.Immutable {
				stop()
			}
		case *v1.Secret:
			if now.Immutable != nil && *now.Immutable {
				stop()
			}
		}
		on(change)
	}
	// A new informer takes every handler.
	_, _ = o.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, now any) { changed(now) }, DeleteFunc: func(any) { on(change) }})
	running.Go(func() { o.informer.RunWithContext(ctx) })
	return o
}

// watched returns an object as its watch has it, nil where there is none.
func (s *Source) watched(r reference) any {
	s.mu.Lock()
	o := s.objects[r]
	s.mu.Unlock()
	if o == nil {
		return nil
	}
	// A watch that has not begun has nothing. Its object is read as it is now.
	got, _, _ := o.informer.GetStore().GetByKey(r.namespace + "/" + r.name)
	return got
}

// references returns the objects that the pod names, each once.
func references(p *v1.Pod) []reference {
	var out []reference
	add := func(k kind, name string) {
		if r := (reference{k, p.Namespace, name}); name != "" && !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	environment := func(from []v1.EnvFromSource, vars []v1.EnvVar) {
		for _, f := range from {
			if f.ConfigMapRef != nil {
				add(configMap, f.ConfigMapRef.Name)
			}
			if f.SecretRef != nil {
				add(secret, f.SecretRef.Name)
			}
		}
		for _, e := range vars {
			if e.ValueFrom == nil {
				continue
			}
			if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
				add(configMap, r.Name)
			}
			if r := e.ValueFrom.SecretKeyRef; r != nil {
				add(secret, r.Name)
			}
		}
	}
	for _, s := range p.Spec.ImagePullSecrets {
		add(secret, s.Name)
	}
	for _, list := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			environment(list[i].EnvFrom, list[i].Env)
		}
	}
	for i := range p.Spec.EphemeralContainers {
		environment(p.Spec.EphemeralContainers[i].EnvFrom, p.Spec.EphemeralContainers[i].Env)
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		switch {
		case v.ConfigMap != nil:
			add(configMap, v.ConfigMap.Name)
		case v.Secret != nil:
			add(secret, v.Secret.SecretName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					add(configMap, s.ConfigMap.Name)
				}
				if s.Secret != nil {
					add(secret, s.Secret.Name)
				}
				if all := (reference{kind: trustBundles}); s.ClusterTrustBundle != nil && !slices.Contains(out, all) {
					out = append(out, all)
				}
			}
		}
	}
	return out
}
