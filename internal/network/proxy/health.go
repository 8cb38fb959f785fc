package proxy

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// healthServers answer the health checks of load balancers: whether this node
// has endpoints of a Service. Each Service has a port of its own.
type healthServers struct {
	address string
	mu      sync.Mutex
	servers map[types.NamespacedName]*healthServer
}

type healthServer struct {
	http *http.Server
	port int32

	mu    sync.Mutex
	local int
}

func newHealthServers(address string) *healthServers {
	return &healthServers{address: address, servers: map[types.NamespacedName]*healthServer{}}
}

// set brings the servers of these Services up to date. A server whose port is in
// use is retried at the Service's next change.
func (h *healthServers) set(checks map[types.NamespacedName]health) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n, c := range checks {
		if s := h.servers[n]; s != nil && s.port != c.port {
			s.http.Close()
			delete(h.servers, n)
		}
	}
	for n, c := range checks {
		if c.port == 0 {
			continue
		}
		s := h.servers[n]
		if s == nil {
			l, err := net.Listen("tcp", net.JoinHostPort(h.address, strconv.Itoa(int(c.port))))
			if err != nil {
				klog.Background().Error(err, "The health check node port of a Service is not served", "service", n)
				continue
			}
			s = &healthServer{port: c.port}
			s.http = &http.Server{Handler: s.handler(n), ReadHeaderTimeout: 5 * time.Second}
			h.servers[n] = s
			go func() { _ = s.http.Serve(l) }()
		}
		s.mu.Lock()
		s.local = c.local
		s.mu.Unlock()
	}
}

func (h *healthServers) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n, s := range h.servers {
		s.http.Close()
		delete(h.servers, n)
	}
}

// handler answers in upstream's form.
func (s *healthServer) handler(n types.NamespacedName) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		local := s.local
		s.mu.Unlock()
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
		}{n.Namespace, n.Name}, LocalEndpoints: local, ServiceProxyHealthy: true})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(local))
		if local == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "%s\n", body)
	})
}
