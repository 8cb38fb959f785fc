package proxy

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
)

// late is after how long a change that is not written makes the proxy unhealthy,
// upstream's.
const late = time.Minute

// toBeDeleted is the taint of nodes that the cluster autoscaler is about to delete.
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// healthy reports whether changes of Services and their endpoints are written in time.
func (p *Proxy) healthy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since.IsZero() || p.Clock.Since(p.since) < late
}

// eligible reports whether load balancers may send new connections to this node: not
// when it is about to go.
func (p *Proxy) eligible() bool {
	n, err := p.nodes.Get(p.NodeName)
	return err != nil || n.DeletionTimestamp == nil && !slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == toBeDeleted })
}

// healthz answers as kube-proxy's server of that name does, which load balancers of
// clouds ask about a node: /healthz whether it may have new connections, /livez whether
// the proxy does its work.
func (p *Proxy) healthz() http.Handler {
	answer := func(total *metrics.CounterVec, node bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			p.mu.Lock()
			updated := p.updated
			p.mu.Unlock()
			now := p.Clock.Now()
			eligible, healthy := p.eligible(), p.healthy()
			code := http.StatusOK
			if healthy && (eligible || !node) {
				updated = now
			} else {
				code = http.StatusServiceUnavailable
			}
			total.WithLabelValues(strconv.Itoa(code)).Inc()
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"lastUpdated": %q,"currentTime": %q`, updated, now)
			if node {
				fmt.Fprintf(w, `, "nodeEligible": %v`, eligible)
			}
			fmt.Fprint(w, "}")
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/healthz", answer(healthzTotal, true))
	mux.Handle("/livez", answer(livezTotal, false))
	return mux
}
