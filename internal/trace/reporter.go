package trace

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Path is where an API server shows its trace.
const Path = "/debug/keelson/trace"

// Reporter takes the phases of a component, in the server's process or in another. The
// methods of one that is nil do nothing.
type Reporter struct {
	// Actor is the component, and Node its machine, empty for one that belongs to none.
	Actor, Node string
	// Add takes a step. It does not block: a step for which there is no room is lost.
	Add func(Step)
	// Of returns the place in a distributed trace of the last write of an object, as far as it
	// is known here.
	Of func(types.UID) (Context, bool)
}

// Reporter returns one that records what a component of this process reports.
func (r *Recorder) Reporter(actor, node string) *Reporter {
	return &Reporter{Actor: actor, Node: node, Add: r.Add, Of: r.Of}
}

// Phase reports that a phase for an object of a resource (plural and group: pods) took as
// long as since begin, and has ended now.
func (r *Reporter) Phase(resource string, obj metav1.Object, phase, detail string, begin time.Time, parts ...Part) {
	if r == nil {
		return
	}
	now := time.Now()
	r.Add(Step{Time: now, Actor: r.Actor, Node: r.Node, Resource: resource, Namespace: obj.GetNamespace(), Name: obj.GetName(), UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(),
		Phase: phase, Detail: detail, Took: Millis(max(0, now.Sub(begin))), Parts: parts})
}

// Within returns a context whose requests are part of the trace of an object, as far as
// that is known here.
func (r *Reporter) Within(ctx context.Context, uid types.UID) context.Context {
	if r == nil || r.Of == nil {
		return ctx
	}
	if c, ok := r.Of(uid); ok {
		return WithContext(ctx, c)
	}
	return ctx
}
