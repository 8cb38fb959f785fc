package node

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/static"
)

// mirrorPeriod is how often mirrors are compared with their static pods where no
// event asks for it.
const mirrorPeriod = 10 * time.Second

// staticPods brings the node's static pods to run, and their mirrors in the API.
// Its fields are guarded by the agent's mu.
type staticPods struct {
	a       *Agent
	wake    chan struct{}
	known   bool               // the manifests have been read
	wanted  map[string]*v1.Pod // by namespace/name
	mirrors map[string]*v1.Pod // as the API has them
	synced  func() bool        // the API's pods are known
}

func newStaticPods(a *Agent) *staticPods {
	return &staticPods{a: a, wake: make(chan struct{}, 1), wanted: map[string]*v1.Pod{}, mirrors: map[string]*v1.Pod{}, synced: func() bool { return false }}
}

func fullName(p *v1.Pod) string { return p.Namespace + "/" + p.Name }

// notify has the pods looked at.
func (s *staticPods) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run reads manifests until ctx ends.
func (s *staticPods) run(ctx context.Context) {
	if s.a.StaticPods != "" {
		source := static.Source{Path: s.a.StaticPods, Node: s.a.NodeName, Clock: s.a.Clock}
		s.a.wg.Go(func() {
			source.Run(ctx, func(pods []*v1.Pod) {
				s.a.mu.Lock()
				s.known, s.wanted = true, map[string]*v1.Pod{}
				for _, p := range pods {
					s.wanted[fullName(p)] = p
				}
				s.a.mu.Unlock()
				s.notify()
			})
		})
	} else {
		s.a.mu.Lock()
		s.known = true
		s.a.mu.Unlock()
	}
	for ctx.Err() == nil {
		s.workers()
		s.mirror(ctx)
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-s.a.Clock.After(mirrorPeriod):
		}
	}
}

// workers starts the static pods that do not run yet, and ends those that are
// wanted no more. A changed manifest is another pod, which begins when the one
// before it has ended.
func (s *staticPods) workers() {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	if !s.known {
		return
	}
	here := map[string]bool{}
	for _, w := range s.a.workers {
		p := w.latest()
		if !static.IsStatic(p) {
			continue
		}
		here[fullName(p)] = true
		if want := s.wanted[fullName(p)]; want == nil || want.UID != p.UID {
			w.podGone()
		}
	}
	for name, p := range s.wanted {
		if here[name] {
			continue
		}
		if m := s.mirrors[name]; m != nil && static.Shows(m, p) && !terminal(m.Status.Phase) {
			p = p.DeepCopy()
			p.Status = *m.Status.DeepCopy() // what an agent before this one knew
		}
		w := newWorker(s.a, p)
		w.mirror, w.isStatic = s.mirrors[name], true
		s.a.workers[p.UID] = w
		s.a.wg.Go(func() { w.run(s.a.ctx) })
	}
}

// mirrorChanged takes note of a mirror in the API, nil for one that has gone.
func (s *staticPods) mirrorChanged(name string, mirror *v1.Pod) {
	s.a.mu.Lock()
	if mirror == nil {
		delete(s.mirrors, name)
	} else {
		s.mirrors[name] = mirror
	}
	for _, w := range s.a.workers {
		if w.isStatic && fullName(w.latest()) == name {
			w.mirrorChanged(mirror)
		}
	}
	s.a.mu.Unlock()
	s.notify()
}

// mirrorChanged has the worker of a static pod write its status to this mirror.
func (w *worker) mirrorChanged(mirror *v1.Pod) {
	w.mu.Lock()
	if mirror != nil && (w.mirror == nil || w.mirror.UID != mirror.UID) {
		w.report.posted = nil
	}
	w.mirror = mirror
	w.mu.Unlock()
	w.notify()
}

// mirror makes and removes mirrors so that each static pod has one of its
// version, and no other pod has.
func (s *staticPods) mirror(ctx context.Context) {
	log := klog.FromContext(ctx)
	s.a.mu.Lock()
	var stale, missing []*v1.Pod
	if s.known && s.synced() {
		for name, m := range s.mirrors {
			if want := s.wanted[name]; want == nil || !static.Shows(m, want) {
				stale = append(stale, m)
			}
		}
		for name, p := range s.wanted {
			if s.mirrors[name] == nil {
				missing = append(missing, p)
			}
		}
	}
	s.a.mu.Unlock()
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

// apiPod is the pod as the API has it: a static pod's mirror, nil where it has
// none. w.mu is held.
func (w *worker) apiPod() *v1.Pod {
	if w.isStatic {
		return w.mirror
	}
	return w.pod
}

// mirrorUID reports whether a UID is that of the worker's mirror.
func (w *worker) mirrorUID(uid types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mirror != nil && w.mirror.UID == uid
}
