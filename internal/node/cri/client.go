package cri

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/trace"
)

const (
	maxMessage     = 16 << 20
	connectTimeout = 10 * time.Second
	initPoll       = 5 * time.Millisecond
	// maxRedial is the most between attempts to reach a runtime that is being
	// restarted.
	maxRedial = time.Second
)

// Client is a connection to a CRI v1 runtime; its two services are promoted,
// so that each call of the protocol is a method of the client.
type Client struct {
	runtimeapi.RuntimeServiceClient
	runtimeapi.ImageServiceClient

	// RuntimeName and RuntimeVersion are what the runtime said of itself.
	RuntimeName, RuntimeVersion string

	// Relisted, if set, is called after all pods were read to find changes, with the time
	// that took.
	Relisted func(took time.Duration)

	conn *grpc.ClientConn
}

// Connect opens the runtime at endpoint (a socket's path, with or without the
// unix:// scheme) and checks that it speaks CRI v1.
func Connect(ctx context.Context, endpoint string, opts ...grpc.DialOption) (*Client, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("container runtime socket %s: %w; is containerd or CRI-O running?", path, err)
	}
	conn, err := grpc.NewClient("unix://"+path, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout,
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxRedial}}),
		grpc.WithChainUnaryInterceptor(plainErrors, traced),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("container runtime %s: %w", endpoint, err)
	}
	c := &Client{
		RuntimeServiceClient: runtimeapi.NewRuntimeServiceClient(conn),
		ImageServiceClient:   runtimeapi.NewImageServiceClient(conn),
		conn:                 conn,
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	v, err := c.Version(ctx, &runtimeapi.VersionRequest{}, grpc.WaitForReady(true))
	for err != nil && strings.Contains(err.Error(), "not initialized yet") {
		// containerd listens before its plug-ins are ready, and does not
		// announce when they are.
		select {
		case <-time.After(initPoll):
			v, err = c.Version(ctx, &runtimeapi.VersionRequest{}, grpc.WaitForReady(true))
		case <-ctx.Done():
			conn.Close()
			return nil, fmt.Errorf("container runtime %s: %w", endpoint, err)
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("container runtime %s does not answer CRI v1's Version: %w", endpoint, err)
	}
	if v.RuntimeApiVersion != "v1" {
		conn.Close()
		return nil, fmt.Errorf("container runtime %s speaks CRI %q, wanted v1", endpoint, v.RuntimeApiVersion)
	}
	c.RuntimeName, c.RuntimeVersion = v.RuntimeName, v.RuntimeVersion
	return c, nil
}

// traced tells the runtime of the distributed trace that a call is part of, by the W3C's
// traceparent, which containerd and CRI-O read.
func traced(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if c, ok := trace.ContextOf(ctx); ok {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", trace.Traceparent(c))
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Conn returns the connection, for services of a runtime beside CRI's.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }
