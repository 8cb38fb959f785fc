package proxy

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/types"
)

// healthServers answer load balancers that ask whether this node has endpoints
// of a Service: each Service has a port of its own, at the addresses of node ports.
type healthServers struct {
	// healthy reports whether the proxy does its work.
	healthy func() bool
	// failed, if set, is told of a port that is another's. It is tried again.
	failed func(n types.NamespacedName, port int32, err error)

	mu     sync.Mutex
	at     []netip.Addr
	checks map[types.NamespacedName]*healthCheck
}

// healthCheck is that of a Service.
type healthCheck struct {
	port      int32
	local     atomic.Int32
	listeners map[netip.Addr]*listener
}

func newHealthServers(healthy func() bool, failed func(types.NamespacedName, int32, error)) *healthServers {
	return &healthServers{healthy: healthy, failed: failed, checks: map[types.NamespacedName]*healthCheck{}}
}

// set brings the health checks of these Services up to date.
func (h *healthServers) set(checks map[types.NamespacedName]health, at []netip.Addr) {
	h.mu.Lock()
	h.at = slices.Clone(at)
	for n, c := range checks {
		if s := h.checks[n]; s != nil && s.port != c.port {
			s.close()
			delete(h.checks, n)
		}
		if c.port == 0 {
			continue
		}
		if h.checks[n] == nil {
			h.checks[n] = &healthCheck{port: c.port, listeners: map[netip.Addr]*listener{}}
		}
		h.checks[n].local.Store(int32(c.local))
	}
	h.mu.Unlock()
	h.open()
}

// open serves the health checks at the addresses that there are now, and tries those
// again whose port was taken.
func (h *healthServers) open() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n, c := range h.checks {
		for a, l := range c.listeners {
			if !slices.Contains(h.at, a) {
				l.close()
				delete(c.listeners, a)
			}
		}
		for _, a := range h.at {
			l := c.listeners[a]
			if l == nil {
				l = &listener{at: net.JoinHostPort(a.String(), strconv.Itoa(int(c.port))), handler: h.handler(n, c)}
				c.listeners[a] = l
			}
			if err := l.open(); err != nil && h.failed != nil {
				h.failed(n, c.port, err)
			}
		}
	}
}

func (c *healthCheck) close() {
	for _, l := range c.listeners {
		l.close()
	}
}

func (h *healthServers) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n, c := range h.checks {
		c.close()
		delete(h.checks, n)
	}
}

// handler answers as upstream's does, so that load balancers read it.
func (h *healthServers) handler(n types.NamespacedName, c *healthCheck) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		local, healthy := int(c.local.Load()), h.healthy()
		body, err := json.Marshal(struct {
			Service struct {
				Namespace string `json:"namespace"`
				Name      string `json:"name"`
			} `json:"service"`
			LocalEndpoints      int  `json:"localEndpoints"`
			ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
		}{Service: struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		}{n.Namespace, n.Name}, LocalEndpoints: local, ServiceProxyHealthy: healthy})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(local))
		if local == 0 || !healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "%s\n", body)
	})
}
