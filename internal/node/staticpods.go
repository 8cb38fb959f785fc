package node

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/static"
)

// mirrorPeriod is how often mirrors are compared with their static pods where no
// event asks for it.
const mirrorPeriod = 10 * time.Second

// staticPods brings the node's static pods to run, and their mirrors in the API.
type staticPods struct {
	a    *Agent
	wake chan struct{}

	// known is closed when all manifests have been read: what else runs on the node is
	// nobody's then.
	known chan struct{}

	mu      sync.Mutex
	sources map[string][]*v1.Pod // the pods of each source that was read
	wanted  map[string]*v1.Pod   // by namespace/name
	mirrors map[string]*v1.Pod   // as the API has them
	ending  map[types.UID]bool   // pods that are wanted no more, and still run
}

func newStaticPods(a *Agent) *staticPods {
	return &staticPods{a: a, wake: make(chan struct{}, 1), known: make(chan struct{}), sources: map[string][]*v1.Pod{}, wanted: map[string]*v1.Pod{}, mirrors: map[string]*v1.Pod{}, ending: map[types.UID]bool{}}
}

func fullName(p *v1.Pod) string { return p.Namespace + "/" + p.Name }

// notify wakes the loop, which looks at the pods.
func (s *staticPods) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// want takes the pods of the manifests of a source. Of two pods of one name that of a file runs.
func (s *staticPods) want(source string, pods []*v1.Pod) {
	s.mu.Lock()
	s.sources[source] = pods
	s.wanted = map[string]*v1.Pod{}
	for _, source := range []string{static.URLSource, static.FileSource} {
		for _, p := range s.sources[source] {
			s.wanted[fullName(p)] = p
		}
	}
	if len(s.sources) == 2 && !s.isKnown() {
		close(s.known)
	}
	s.mu.Unlock()
	s.notify()
}

// isKnown reports whether all manifests have been read.
func (s *staticPods) isKnown() bool {
	select {
	case <-s.known:
		return true
	default:
		return false
	}
}

// run reads manifests until ctx ends; synced reports whether the API's pods are
// known.
func (s *staticPods) run(ctx context.Context, synced func() bool) {
	var wg sync.WaitGroup
	if s.a.StaticPods != "" {
		files := static.Source{Path: s.a.StaticPods, Node: s.a.NodeName, Clock: s.a.Clock}
		wg.Go(func() { files.Run(ctx, func(p []*v1.Pod) { s.want(static.FileSource, p) }) })
	} else {
		s.want(static.FileSource, nil)
	}
	if s.a.StaticPodURL != "" {
		url := static.URL{URL: s.a.StaticPodURL, Header: s.a.StaticPodHeader, Node: s.a.NodeName, Clock: s.a.Clock}
		wg.Go(func() { url.Run(ctx, func(p []*v1.Pod) { s.want(static.URLSource, p) }) })
	} else {
		s.want(static.URLSource, nil)
	}
	for ctx.Err() == nil {
		s.pods()
		if synced() {
			s.mirror(ctx)
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-s.a.Clock.After(mirrorPeriod):
		}
	}
	wg.Wait()
}

// pods starts the static pods that do not run yet, and ends those that are
// wanted no more. A changed manifest is another pod, which begins when the one
// before it has ended.
func (s *staticPods) pods() {
	s.mu.Lock()
	defer s.mu.Unlock()
	here, running := map[string]bool{}, map[types.UID]bool{}
	for _, p := range s.a.pods.Static() {
		here[fullName(p)], running[p.UID] = true, true
		if want := s.wanted[fullName(p)]; want == nil || want.UID != p.UID {
			s.ending[p.UID] = true
			s.a.pods.Removed(p.UID)
		}
	}
	for name, p := range s.wanted {
		if here[name] {
			continue
		}
		if m := s.mirrors[name]; m != nil && static.Shows(m, p) && !podspec.Terminal(m.Status.Phase) {
			p = p.DeepCopy()
			p.Status = *m.Status.DeepCopy() // what an agent before this one knew
		}
		if s.ending[p.UID] {
			s.a.metrics.StaticRestarted()
		}
		s.a.pods.AddStatic(p, s.mirrors[name])
	}
	for uid := range s.ending {
		if !running[uid] {
			delete(s.ending, uid)
		}
	}
}

// mirrorChanged takes note of the mirror of that name in the API as it is now, nil
// if it has gone.
func (s *staticPods) mirrorChanged(named, mirror *v1.Pod) {
	s.mu.Lock()
	if mirror == nil {
		delete(s.mirrors, fullName(named))
	} else {
		s.mirrors[fullName(named)] = mirror
	}
	s.a.pods.MirrorChanged(named.Namespace, named.Name, mirror)
	s.mu.Unlock()
	s.notify()
}

// mirror makes and removes mirrors so that each static pod has one of its
// version, and no other pod has.
func (s *staticPods) mirror(ctx context.Context) {
	log := klog.FromContext(ctx)
	s.mu.Lock()
	var stale, missing []*v1.Pod
	if s.isKnown() {
		for name, m := range s.mirrors {
			if want := s.wanted[name]; want == nil || !static.Shows(m, want) {
				stale = append(stale, m)
			}
		}
	}
	for name, p := range s.wanted {
		if s.mirrors[name] == nil {
			missing = append(missing, p)
		}
	}
	s.mu.Unlock()
	for _, m := range stale {
		zero := int64(0)
		err := s.a.Client.CoreV1().Pods(m.Namespace).Delete(ctx, m.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(m.UID))})
		if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			log.Error(err, "Deleting a mirror pod failed", "pod", klog.KObj(m))
		}
	}
	if len(missing) == 0 {
		return
	}
	node, err := s.a.Client.CoreV1().Nodes().Get(ctx, s.a.NodeName, metav1.GetOptions{})
	if err != nil {
		if ctx.Err() == nil && !apierrors.IsNotFound(err) {
			log.Error(err, "Mirror pods wait for their node")
		}
		return
	}
	for _, p := range missing {
		_, err := s.a.Client.CoreV1().Pods(p.Namespace).Create(ctx, static.Mirror(p, node.UID), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
			log.Error(err, "Making a mirror pod failed", "pod", klog.KObj(p))
		}
	}
}
