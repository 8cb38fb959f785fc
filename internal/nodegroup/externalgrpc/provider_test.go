package externalgrpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/protoadapt"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/nodegroup"
)

// method returns a method of a server that f answers.
func method[In any](name string, f func(*In) (any, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(In)
		if err := decode(in); err != nil {
			return nil, err
		}
		return f(in)
	}}
}

// serve serves methods over mutual TLS, and returns the file that a client is configured by.
func serve(t *testing.T, methods ...grpc.MethodDesc) string {
	t.Helper()
	bundle, err := certs.Ensure("", certs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := bundle.ServingCert("provider", []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle.CAPEM)
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12})))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil), Methods: methods}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	own, err := bundle.ClientCert("cluster-autoscaler", nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("config", fmt.Appendf(nil, "address: %s\nkey: %s\ncert: %s\ncacert: %s\ngrpc_timeout: 20s\n", l.Addr(), write("key", own.Key), write("cert", own.Cert), write("ca", bundle.CAPEM)))
}

func TestProvider(t *testing.T) {
	ctx := t.Context()
	var asked []string
	template := &v1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"pool": "big"}}, Status: v1.NodeStatus{Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("8")}}}
	bytes, err := template.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	file := serve(t,
		method("Refresh", func(*Empty) (any, error) { asked = append(asked, "refresh"); return &Empty{}, nil }),
		method("NodeGroups", func(*Empty) (any, error) {
			return &NodeGroupsResponse{NodeGroups: []*NodeGroup{{ID: "big", MinSize: 0, MaxSize: 7}}}, nil
		}),
		method("NodeGroupForNode", func(in *NodeGroupForNodeRequest) (any, error) {
			asked = append(asked, "group of "+in.Node.Name+" "+in.Node.Labels["pool"]+" "+in.Node.ProviderID)
			return &NodeGroupForNodeResponse{NodeGroup: &NodeGroup{ID: in.Node.Labels["pool"]}}, nil
		}),
		method("NodeGroupTargetSize", func(in *GroupRequest) (any, error) { return &TargetSizeResponse{TargetSize: int32(len(in.ID))}, nil }),
		method("NodeGroupIncreaseSize", func(in *DeltaRequest) (any, error) {
			asked = append(asked, fmt.Sprint("increase ", in.ID, in.Delta))
			return &Empty{}, nil
		}),
		method("NodeGroupDecreaseTargetSize", func(in *DeltaRequest) (any, error) {
			asked = append(asked, fmt.Sprint("decrease ", in.ID, in.Delta))
			return &Empty{}, nil
		}),
		method("NodeGroupDeleteNodes", func(in *DeleteNodesRequest) (any, error) {
			asked = append(asked, fmt.Sprint("delete ", in.ID, len(in.Nodes), in.Nodes[0].Name))
			return &Empty{}, nil
		}),
		method("NodeGroupTemplateNodeInfo", func(*GroupRequest) (any, error) { return &TemplateResponse{NodeBytes: bytes}, nil }),
		method("NodeGroupNodes", func(*GroupRequest) (any, error) {
			return &NodesResponse{Instances: []*Instance{{ID: "cloud://1", Status: &InstanceStatus{State: 1, Error: &InstanceErrorInfo{}}}, {ID: "cloud://2"},
				{ID: "cloud://3", Status: &InstanceStatus{State: 2, Error: &InstanceErrorInfo{Code: "QUOTA", Message: "no more", Class: 1}}}}}, nil
		}),
		method("NodeGroupGetOptions", func(in *OptionsRequest) (any, error) {
			return &OptionsResponse{Options: &AutoscalingOptions{ScaleDownUtilizationThreshold: 2 * in.Defaults.ScaleDownUtilizationThreshold, ScaleDownUnneededDuration: &Duration{Seconds: 90, Nanos: 5}}}, nil
		}),
	)
	p, err := New(file)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	groups, err := p.Groups(ctx)
	if err != nil || len(groups) != 1 {
		t.Fatal(groups, err)
	}
	g := groups[0]
	if g.ID() != "big" || g.Least() != 0 || g.Most() != 7 {
		t.Errorf("group %v", g)
	}
	if n, err := g.Target(ctx); n != 3 || err != nil {
		t.Errorf("target %d, %v", n, err)
	}
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"pool": "big"}}, Spec: v1.NodeSpec{ProviderID: "cloud://1"}}
	for range 2 { // the second time it is known
		if id, err := p.GroupOf(ctx, node); id != "big" || err != nil {
			t.Errorf("group of n1: %q, %v", id, err)
		}
	}
	if err := errors.Join(g.Increase(ctx, 2), g.Decrease(ctx, 1), g.Delete(ctx, []*v1.Node{node})); err != nil {
		t.Error(err)
	}
	if got, err := g.Template(ctx); err != nil || got.Labels["pool"] != "big" || got.Status.Allocatable.Cpu().String() != "8" {
		t.Errorf("template %v, %v", got, err)
	}
	instances, err := g.Instances(ctx)
	if want := []nodegroup.Instance{{ID: "cloud://1", State: nodegroup.Running}, {ID: "cloud://2"},
		{ID: "cloud://3", State: nodegroup.Creating, Failure: &nodegroup.Failure{Class: nodegroup.OutOfResources, Code: "QUOTA", Message: "no more"}}}; err != nil || !reflect.DeepEqual(instances, want) {
		t.Errorf("instances %v, %v, want %v", instances, err, want)
	}
	o, err := g.Options(ctx, nodegroup.GroupOptions{Utilization: 0.25, UnneededTime: time.Minute, ProvisionTime: time.Hour})
	if want := (nodegroup.GroupOptions{Utilization: 0.5, UnneededTime: 90*time.Second + 5, ProvisionTime: time.Hour}); err != nil || o != want {
		t.Errorf("options %+v, %v, want %+v", o, err, want)
	}
	if want := []string{"refresh", "group of n1 big cloud://1", "increase big2", "decrease big-1", "delete big1n1"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestNotImplemented(t *testing.T) {
	p, err := New(serve(t, method("NodeGroups", func(*Empty) (any, error) { return &NodeGroupsResponse{NodeGroups: []*NodeGroup{{ID: "g"}}}, nil })))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	groups, err := p.Groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := groups[0].Template(t.Context()); !errors.Is(err, nodegroup.ErrNotImplemented) {
		t.Errorf("error %v", err)
	}
}

// TestWire checks the messages against upstream's externalgrpc.proto: each field's name,
// number and type.
func TestWire(t *testing.T) {
	for want, m := range map[string]protoadapt.MessageV1{
		"id=1:string minSize=2:int32 maxSize=3:int32 debug=4:string":       &NodeGroup{},
		"providerID=1:string name=2:string labels=3:map annotations=4:map": &Node{},
		"":                                          &Empty{},
		"nodeGroups=1:repeated message":             &NodeGroupsResponse{},
		"node=1:message":                            &NodeGroupForNodeRequest{},
		"nodeGroup=1:message":                       &NodeGroupForNodeResponse{},
		"id=1:string":                               &GroupRequest{},
		"targetSize=1:int32":                        &TargetSizeResponse{},
		"delta=1:int32 id=2:string":                 &DeltaRequest{},
		"nodes=1:repeated message id=2:string":      &DeleteNodesRequest{},
		"instances=1:repeated message":              &NodesResponse{},
		"id=1:string status=2:message":              &Instance{},
		"instanceState=1:int32 errorInfo=2:message": &InstanceStatus{}, // an enum there, which is sent as an int32
		"errorCode=1:string errorMessage=2:string instanceErrorClass=3:int32": &InstanceErrorInfo{},
		"nodeBytes=2:bytes":             &TemplateResponse{},
		"seconds=1:int64 nanos=2:int32": &Duration{},
		"scaleDownUtilizationThreshold=1:double scaleDownUnneededDuration=8:message scaleDownUnreadyDuration=9:message MaxNodeProvisionDuration=10:message maxNodeStartupDuration=11:message": &AutoscalingOptions{},
		"id=1:string defaults=2:message":        &OptionsRequest{},
		"nodeGroupAutoscalingOptions=1:message": &OptionsResponse{},
	} {
		var got []string
		fields := protoadapt.MessageV2Of(m).ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			kind := f.Kind().String()
			switch {
			case f.IsMap():
				kind = "map"
			case f.IsList():
				kind = "repeated " + kind
			}
			got = append(got, fmt.Sprintf("%s=%d:%s", f.Name(), f.Number(), kind))
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%T is %q, want %q", m, text, want)
		}
	}
}

func TestConfiguration(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "address is missing",
		"address: a:1\nnonsense: 1":     "unknown field",
		"address: a:1\ngrpc_timeout: x": "give a duration like 5s",
		"address: a:1\nkey: /none":      "no such file",
	} {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
