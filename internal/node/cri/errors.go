package cri

import (
	"context"
	"regexp"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// callError is the error of a call to the runtime. Its text is the runtime's,
// without gRPC's "rpc error: code = …" around it, since it ends up in events and
// statuses; status.Code and status.FromError still return its code.
type callError struct{ s *status.Status }

func (e callError) Error() string              { return prefix.ReplaceAllString(e.s.Message(), "") }
func (e callError) GRPCStatus() *status.Status { return e.s }

// prefix matches the text that gRPC puts before an error; runtimes pass on
// errors of others.
var prefix = regexp.MustCompile(`rpc error: code = \w+ desc = `)

func plainErrors(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, o...)
	if s, ok := status.FromError(err); err != nil && ok {
		return callError{s}
	}
	return err
}
