package strike

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Calls says what calls are about. Messages are encoded.
type Calls interface {
	// Subject returns what a call of the method is about, "" for nothing that is held,
	// and the name of the call.
	Subject(method string, request []byte) (subject, call string)
	// Answered is called with each answer.
	Answered(method string, request, answer []byte)
}

// Serve passes the calls that are made at the socket on to the server at the socket to,
// until the end of the test.
func (p *Points) Serve(t testing.TB, socket, to string, calls Calls) {
	t.Helper()
	peer, err := grpc.NewClient("unix://"+to, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	x := &proxy{p, peer, calls}
	s := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.MaxRecvMsgSize(maxMessage), grpc.UnknownServiceHandler(x.handle))
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		peer.Close()
	})
}

const maxMessage = 16 << 20

// proxy passes calls on to a server.
type proxy struct {
	*Points
	peer  *grpc.ClientConn
	calls Calls
}

// handle passes on one call: a request, and one answer or, of a stream, several.
func (x *proxy) handle(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	ctx := in.Context()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md.Copy())
	}
	var request message
	if err := in.RecvMsg(&request); err != nil {
		return err
	}
	short := method[strings.LastIndexByte(method, '/')+1:]
	subject, call := x.calls.Subject(short, request)
	at := Point{Subject: subject, Call: call}
	if err := x.Pass(ctx, at); err != nil {
		return err
	}
	out, err := x.peer.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := errors.Join(out.SendMsg(&request), out.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for {
		var answer message
		if err := out.RecvMsg(&answer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		x.calls.Answered(short, request, answer)
		at.After = true
		if err := x.Pass(ctx, at); err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		if err := in.SendMsg(&answer); err != nil {
			return err
		}
	}
}

// Interceptor returns an interceptor for a server in this process; subject names what a
// request is about.
func (p *Points) Interceptor(subject func(request any) string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		at := Point{Subject: subject(r), Call: info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]}
		if err := p.Pass(ctx, at); err != nil {
			return nil, err
		}
		answer, err := next(ctx, r)
		if err != nil {
			return nil, err
		}
		at.After = true
		if err := p.Pass(ctx, at); err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		return answer, nil
	}
}

// message is an encoded message.
type message []byte

// raw is the codec of messages.
type raw struct{}

var _ encoding.CodecV2 = raw{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*message))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*message) = data.Materialize()
	return nil
}

func (raw) Name() string { return "proto" }
