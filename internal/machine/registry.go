package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"keelson.dev/keelson/internal/node/registry"
)

// headerTimeout bounds the reading of a request's headers; its body may take as long
// as a layer needs.
const headerTimeout = 32 * time.Second

// Registry returns the host name of the registry in pods' images, "" without one.
func (m *Machine) Registry() string {
	_, port, err := net.SplitHostPort(m.o.Registry)
	if err != nil {
		return ""
	}
	return net.JoinHostPort("localhost", port)
}

// named refuses requests over loopback that call the machine by another name than host or
// localhost, or by an address: they are those of a page in a browser of this machine, whose name
// leads to loopback (DNS rebinding).
func named(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Host
		if h, _, err := net.SplitHostPort(name); err == nil {
			name = h
		}
		name = strings.Trim(name, "[]")
		at, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		if at != nil && at.IP.IsLoopback() && net.ParseIP(name) == nil && !strings.EqualFold(name, "localhost") && !strings.EqualFold(name, host) {
			http.Error(w, fmt.Sprintf("the registry is not called %s on its own machine: use localhost", name), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serveRegistry serves the registry until ctx ends, and configures the runtime to use
// it without TLS at the name or address that it listens on; runtimes use localhost
// without TLS by default.
func (m *Machine) serveRegistry(ctx context.Context) error {
	host, port, err := net.SplitHostPort(m.o.Registry)
	if err != nil {
		return fmt.Errorf("--registry %s: %w: give an address as :5000 or 192.0.2.1:5000", m.o.Registry, err)
	}
	r, err := registry.New(filepath.Join(m.dir, "registry"))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", m.o.Registry)
	if err != nil {
		return fmt.Errorf("%w: stop the program that listens there, or choose another address with --registry", err)
	}
	if host != "" {
		name := net.JoinHostPort(host, port)
		folder := filepath.Join(m.containerd.Hosts, name)
		err := errors.Join(os.MkdirAll(folder, 0o755),
			renameio.WriteFile(filepath.Join(folder, "hosts.toml"), fmt.Appendf(nil, "server = %q\n\n[host.%[1]q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+name), 0o644))
		if err != nil {
			return errors.Join(err, l.Close())
		}
	}
	s := &http.Server{Handler: named(host, r), ReadHeaderTimeout: headerTimeout}
	context.AfterFunc(ctx, func() { s.Close() })
	go s.Serve(l) //nolint:errcheck // ends with Close
	return nil
}
