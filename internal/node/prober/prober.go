package prober

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// UserAgent is the user agent of HTTP and gRPC probes.
const UserAgent = "kube-probe/1.37"

// maxBody is how much of a probe's answer is kept for the event.
const maxBody = 10 * 1024

// Result is the outcome of a probe.
type Result int

// The outcomes: Unknown means that the probe itself could not be run.
const (
	Unknown Result = iota
	Success
	Failure
)

// String returns the result by the name that metrics have for it.
func (r Result) String() string {
	switch r {
	case Success:
		return "successful"
	case Failure:
		return "failed"
	}
	return "unknown"
}

// Target is the container that is probed.
type Target struct {
	// PodIP is the host to connect to where the probe names none.
	PodIP string
	// Container gives the named ports.
	Container *v1.Container
	// Exec runs a command in the container; it returns its combined output
	// and its exit code.
	Exec func(ctx context.Context, command []string, timeout time.Duration) (output string, exitCode int32, err error)
}

// Once runs the handler a single time.
func Once(ctx context.Context, h v1.ProbeHandler, t Target, timeout time.Duration) (Result, string, error) {
	switch {
	case h.Exec != nil:
		out, code, err := t.Exec(ctx, h.Exec.Command, timeout)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
				return Failure, fmt.Sprintf("command timed out: %q timed out after %v", strings.Join(h.Exec.Command, " "), timeout), nil
			}
			return Unknown, "", err
		}
		if code != 0 {
			return Failure, out, nil
		}
		return Success, out, nil
	case h.HTTPGet != nil:
		return httpGet(ctx, h.HTTPGet, t, timeout)
	case h.TCPSocket != nil:
		return tcpConnect(ctx, h.TCPSocket, t, timeout)
	case h.GRPC != nil:
		return grpcCheck(ctx, h.GRPC, t, timeout)
	}
	return Unknown, "", fmt.Errorf("missing probe handler")
}

// Port resolves a port by number or by the container's name for it.
func Port(p intstr.IntOrString, c *v1.Container) (int, error) {
	if p.Type == intstr.Int {
		if p.IntVal > 0 && p.IntVal < 65536 {
			return int(p.IntVal), nil
		}
		return -1, fmt.Errorf("invalid port number: %v", p.IntVal)
	}
	for _, cp := range c.Ports {
		if cp.Name == p.StrVal {
			return int(cp.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil && n > 0 && n < 65536 {
		return n, nil
	}
	return -1, fmt.Errorf("couldn't find port: %s in container %s", p.StrVal, c.Name)
}

// Request makes the HTTP request of a probe or a lifecycle hook.
func Request(ctx context.Context, h *v1.HTTPGetAction, t Target, userAgent string) (*http.Request, error) {
	port, err := Port(h.Port, t.Container)
	if err != nil {
		return nil, err
	}
	host, scheme := h.Host, strings.ToLower(string(h.Scheme))
	if host == "" {
		host = t.PodIP
	}
	if scheme == "" {
		scheme = "http"
	}
	u, err := url.Parse(h.Path)
	if err != nil {
		u = &url.URL{Path: h.Path}
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(host, strconv.Itoa(port))
	if u.Path != "" && !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, kv := range h.HTTPHeaders {
		req.Header.Add(kv.Name, kv.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", userAgent)
	}
	if _, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	} else if req.Header.Get("Accept") == "" {
		req.Header.Del("Accept")
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	return req, nil
}

// transport does not keep connections: each probe proves a new one.
var transport = &http.Transport{
	TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // a probe proves that the container answers, not who it is
	DisableKeepAlives:  true,
	DisableCompression: true,
}

// Client makes an HTTP client for probes and hooks: it follows redirects to
// the same host only, the answer of a redirect elsewhere counts as it is.
func Client(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:   timeout,
		Transport: transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= 10 {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
}

func httpGet(ctx context.Context, h *v1.HTTPGetAction, t Target, timeout time.Duration) (Result, string, error) {
	req, err := Request(ctx, h, t, UserAgent)
	if err != nil {
		return Unknown, "", err
	}
	res, err := Client(timeout).Do(req)
	if err != nil {
		return Failure, err.Error(), nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return Failure, err.Error(), nil
	}
	if res.StatusCode >= http.StatusOK && res.StatusCode < http.StatusBadRequest {
		return Success, string(b), nil
	}
	return Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode), nil
}

func tcpConnect(ctx context.Context, s *v1.TCPSocketAction, t Target, timeout time.Duration) (Result, string, error) {
	port, err := Port(s.Port, t.Container)
	if err != nil {
		return Unknown, "", err
	}
	host := s.Host
	if host == "" {
		host = t.PodIP
	}
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return Failure, err.Error(), nil //nolint:nilerr // it is the probe's answer
	}
	c.Close()
	return Success, "", nil
}

func grpcCheck(ctx context.Context, g *v1.GRPCAction, t Target, timeout time.Duration) (Result, string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addr := net.JoinHostPort(t.PodIP, strconv.Itoa(int(g.Port)))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithUserAgent(UserAgent), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return Failure, fmt.Sprintf("error: health rpc probe failed: %v", err), nil
	}
	defer conn.Close()
	service := ""
	if g.Service != nil {
		service = *g.Service
	}
	ctx = metadata.NewOutgoingContext(ctx, metadata.MD{})
	res, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		switch status.Code(err) {
		case codes.Unimplemented:
			return Failure, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message()), nil
		case codes.DeadlineExceeded, codes.Unavailable:
			return Failure, fmt.Sprintf("timeout: failed to connect service %q within %v: %v", addr, timeout, err), nil
		}
		return Failure, fmt.Sprintf("error: health rpc probe failed: %v", err), nil
	}
	if res.Status != healthpb.HealthCheckResponse_SERVING {
		return Failure, fmt.Sprintf("service unhealthy (responded with %q)", res.Status.String()), nil
	}
	return Success, "service healthy", nil
}
