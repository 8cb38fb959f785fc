package csi

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"keelson.dev/keelson/internal/node/volume"
)

// NewCalls makes the metric of the calls of drivers, which r shows.
func NewCalls(r prometheus.Registerer) prometheus.ObserverVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "csi", Name: "operations_seconds",
		Help: "Container Storage Interface operation duration with gRPC error code status total", Buckets: volume.Buckets},
		[]string{"driver_name", "method_name", "grpc_status_code", "migrated"})
	r.MustRegister(h)
	return h
}

// migratedKey is the key of whether a call is for a volume of a kind that was built into
// Kubernetes.
type migratedKey struct{}

// observe returns what observes the calls of a driver.
func (p *Plugin) observe(driver string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		begun := time.Now()
		err := invoke(ctx, method, req, reply, cc, opts...)
		if p.Calls != nil {
			migrated, _ := ctx.Value(migratedKey{}).(bool)
			p.Calls.WithLabelValues(driver, method, status.Code(err).String(), strconv.FormatBool(migrated)).Observe(time.Since(begun).Seconds())
		}
		return err
	}
}
