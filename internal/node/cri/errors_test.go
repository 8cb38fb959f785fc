package cri

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestPlainErrors(t *testing.T) {
	err := plainErrors(t.Context(), "m", nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		return status.Error(codes.NotFound, "shim: rpc error: code = Unknown desc = no such image")
	})
	if got := fmt.Errorf("pulling: %w", err).Error(); got != "pulling: shim: no such image" {
		t.Errorf("text: %q", got)
	}
	if status.Code(err) != codes.NotFound {
		t.Errorf("code: %v", status.Code(err))
	}
	if err := plainErrors(t.Context(), "m", nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }); err != nil {
		t.Error(err)
	}
}
