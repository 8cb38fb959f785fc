package podresources

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/dra"
	"keelson.dev/keelson/internal/node/exclusive"
	"keelson.dev/keelson/internal/node/hardware"
)

func list(cpu, memory string) v1.ResourceList {
	return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
}

// start serves the resources of two pods: one with a CPU and memory for itself, and one
// that has ended.
func start(t *testing.T, limit *rate.Limiter) podresources.PodResourcesListerClient {
	t.Helper()
	given, err := exclusive.New(exclusive.Config{Root: t.TempDir(), Clock: clock.RealClock{}, Reserved: list("1", "0"), All: list("1", "1Gi"),
		Options: exclusive.Options{CPUPolicy: "static", MemoryPolicy: "Static", ReservedMemory: map[int]v1.ResourceList{0: {v1.ResourceMemory: resource.MustParse("1Gi")}}},
		Machine: &hardware.Machine{CPUs: []hardware.CPU{{ID: 0}, {ID: 1, Core: 1}, {ID: 2, Core: 2}}, Nodes: []hardware.Node{{Memory: 4 << 30}}}})
	if err != nil {
		t.Fatal(err)
	}
	pods := []*v1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "1"}, Status: v1.PodStatus{QOSClass: v1.PodQOSGuaranteed}, Spec: v1.PodSpec{
			InitContainers: []v1.Container{{Name: "init"}, {Name: "side", RestartPolicy: ptr.To(v1.ContainerRestartPolicyAlways)}},
			Containers:     []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: list("1", "1Mi"), Limits: list("1", "1Mi")}}}}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "ended", UID: "2"}, Status: v1.PodStatus{Phase: v1.PodFailed}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "x"}}}},
	}
	if err := given.Admit(pods[0]); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "podresources") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Pods: func() []*v1.Pod { return pods }, Given: given, Claims: dra.New(fake.NewClientset(), "node", filepath.Join(dir, "dra"), clock.RealClock{}), Called: func(string, error) {}, limit: limit}
	path := filepath.Join(dir, Socket)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, path) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(conn.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return podresources.NewPodResourcesListerClient(conn)
}

func expect(t *testing.T, got, want proto.Message, text string) {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestServer(t *testing.T) {
	c, ctx := start(t, nil), t.Context()
	const pod = `{"name":"p","namespace":"n","containers":[{"name":"side"},
		{"name":"c","cpuIds":[1],"memory":[{"memoryType":"memory","size":1048576,"topology":{"nodes":[{"ID":0}]}}]}]}`
	all, err := c.List(ctx, &podresources.ListPodResourcesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, all, &podresources.ListPodResourcesResponse{}, `{"podResources":[`+pod+`]}`)
	one, err := c.Get(ctx, &podresources.GetPodResourcesRequest{PodNamespace: "n", PodName: "p"})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, one, &podresources.GetPodResourcesResponse{}, `{"podResources":`+pod+`}`)
	if _, err := c.Get(ctx, &podresources.GetPodResourcesRequest{PodNamespace: "n", PodName: "x"}); status.Convert(err).Message() != "pod x in namespace n not found" {
		t.Error(err)
	}
	can, err := c.GetAllocatableResources(ctx, &podresources.AllocatableResourcesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, can, &podresources.AllocatableResourcesResponse{}, `{"cpuIds":[1,2],"memory":[{"memoryType":"memory","size":3221225472,"topology":{"nodes":[{"ID":0}]}}]}`)
}

// TestLimit checks that a caller that asks too often is refused.
func TestLimit(t *testing.T) {
	c := start(t, rate.NewLimiter(0, 2))
	for n := range 3 {
		_, err := c.List(t.Context(), &podresources.ListPodResourcesRequest{})
		if n < 2 && err != nil || n == 2 && (status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != "rejected by rate limit") {
			t.Errorf("call %d: %v", n, err)
		}
	}
}
