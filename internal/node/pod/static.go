package pod

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/node/static"
)

// fromAPI returns a pod of the API as this node takes it. Only a manifest of the node makes a
// static pod, which is not evicted, whatever the annotations of the pod say.
func fromAPI(pod *v1.Pod) *v1.Pod {
	if !static.Is(pod) {
		return pod
	}
	pod = pod.DeepCopy()
	pod.Annotations[static.SourceAnnotation] = "api"
	return pod
}

// AddStatic runs a pod of a manifest. Its status is reported by its mirror in the
// API, nil if there is none yet.
func (m *Manager) AddStatic(pod, mirror *v1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := newWorker(m, pod)
	w.mirror, w.isStatic = mirror, true
	m.add(w)
}

// Static returns the static pods that are on the node.
func (m *Manager) Static() (out []*v1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
		if w.isStatic {
			out = append(out, w.latest())
		}
	}
	return out
}

// MirrorChanged makes the static pod of that name report its status to this mirror,
// nil if the API has none any more.
func (m *Manager) MirrorChanged(namespace, name string, mirror *v1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
		if p := w.latest(); w.isStatic && p.Namespace == namespace && p.Name == name {
			w.mirrorChanged(mirror)
		}
	}
}

// mirrorChanged makes the worker of a static pod write its status to this
// mirror.
func (w *worker) mirrorChanged(mirror *v1.Pod) {
	w.mu.Lock()
	other := mirror != nil && (w.mirror == nil || w.mirror.UID != mirror.UID)
	w.mirror = mirror
	w.mu.Unlock()
	if other {
		w.report.forget()
	}
	w.notify()
}

// inAPI returns the pod as the API has it: a static pod's mirror, nil where it has none.
func (w *worker) inAPI() *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isStatic {
		return w.mirror
	}
	return w.pod
}

// written takes the pod that the API gave for a status that was made from base, if
// the pod has not changed since, and reports whether it has.
func (w *worker) written(base, got *v1.Pod) bool {
	w.startup.reported(w, &got.Status)
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &w.pod
	if w.isStatic {
		p = &w.mirror
	} else {
		got = fromAPI(got)
	}
	if *p != nil && (*p).ResourceVersion == base.ResourceVersion {
		*p = got
	}
	return *p == nil || (*p).ResourceVersion != got.ResourceVersion || (*p).UID != got.UID
}

// mirrorUID reports whether a UID is that of the worker's mirror.
func (w *worker) mirrorUID(uid types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mirror != nil && w.mirror.UID == uid
}
