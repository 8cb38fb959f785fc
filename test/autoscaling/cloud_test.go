package autoscaling

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/certs"
	wire "keelson.dev/keelson/internal/nodegroup/externalgrpc"
	"keelson.dev/keelson/test/harness"
)

// asCloud, in the environment, has the test's program be a cloud whose files are in the
// folder that it names.
const asCloud = "AUTOSCALING_CLOUD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asCloud); dir != "" {
		if err := serveCloud(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// What becomes of machines that a pool is asked for.
const (
	registers = ""       // each becomes a node
	silent    = "silent" // each runs, without becoming a node
	broken    = "broken" // none can be made, and their states say so
	refuses   = "refuses"
)

// pool is a group of machines, as the cloud's settings have it.
type pool struct {
	ID          string `json:"id"`
	Least, Most int32
	CPU         string
	Fate        string
	// Provision is how long the autoscaler is to wait for a machine; 0 is its default.
	Provision time.Duration
}

// Files of a cloud, in its folder.
const (
	settingsFile = "settings" // the pools, in JSON; they are read again where they matter
	configFile   = "config"   // the autoscaler's --cloud-config
)

// startCloud starts the cloud of a folder in a process of its own.
func startCloud(tb testing.TB, cfg *rest.Config, address, dir string) {
	tb.Helper()
	if err := harness.WriteKubeconfig(filepath.Join(dir, "kubeconfig"), cfg); err != nil {
		tb.Fatal(err)
	}
	harness.StartProcess(tb, func() *exec.Cmd { return harness.Self(asCloud+"="+dir, "AUTOSCALING_ADDRESS="+address) })
}

// cloudFiles writes the certificates of a cloud at this address, and the configuration
// of its client.
func cloudFiles(tb testing.TB, address string, pools ...pool) (dir string) {
	tb.Helper()
	dir = tb.TempDir()
	bundle, err := certs.Ensure("", certs.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	server, err := bundle.ServingCert("cloud", []string{"127.0.0.1"})
	if err != nil {
		tb.Fatal(err)
	}
	client, err := bundle.ClientCert("cluster-autoscaler", nil)
	if err != nil {
		tb.Fatal(err)
	}
	for name, data := range map[string][]byte{"ca": bundle.CAPEM, "server.crt": server.Cert, "server.key": server.Key, "client.crt": client.Cert, "client.key": client.Key,
		configFile: fmt.Appendf(nil, "address: %s\nkey: %s/client.key\ncert: %s/client.crt\ncacert: %s/ca\ngrpc_timeout: %s\n", address, dir, dir, dir, harness.Patience)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	setPools(tb, dir, pools...)
	return dir
}

// setPools changes the pools of a cloud.
func setPools(tb testing.TB, dir string, pools ...pool) {
	tb.Helper()
	data, err := json.Marshal(pools)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, settingsFile+".new"), data, 0o600)
	}
	if err == nil {
		err = os.Rename(filepath.Join(dir, settingsFile+".new"), filepath.Join(dir, settingsFile))
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// cloud is a provider of node groups by upstream's protocol. Its machines are hollow:
// they register as nodes, renew their leases, and say of their pods that they run.
type cloud struct {
	dir    string
	client kubernetes.Interface

	mu       sync.Mutex
	made     int
	target   map[string]int32
	machines map[string]*machine // by the node's name
}

type machine struct{ name, pool, fate string }

func (m *machine) providerID() string { return "hollow://" + m.name }

// serveCloud serves a cloud until the process ends.
func serveCloud(dir string) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		return err
	}
	cfg.QPS = -1
	c := &cloud{dir: dir, client: kubernetes.NewForConfigOrDie(cfg), target: map[string]int32{}, machines: map[string]*machine{}}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca"))
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(ca)
	l, err := net.Listen("tcp", os.Getenv("AUTOSCALING_ADDRESS"))
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12})))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider", HandlerType: (*any)(nil), Methods: c.methods()}, nil)
	c.run()
	fmt.Println("ready")
	return s.Serve(l)
}

// method returns a method of a server that f answers.
func method[In, Out any](name string, f func(*In) (*Out, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(In)
		if err := decode(in); err != nil {
			return nil, err
		}
		return f(in)
	}}
}

func (c *cloud) methods() []grpc.MethodDesc {
	return []grpc.MethodDesc{
		method("Refresh", func(*wire.Empty) (*wire.Empty, error) { return &wire.Empty{}, nil }),
		method("NodeGroups", c.groups), method("NodeGroupForNode", c.groupOf), method("NodeGroupTargetSize", c.targetSize),
		method("NodeGroupIncreaseSize", c.increase), method("NodeGroupDecreaseTargetSize", c.decrease), method("NodeGroupDeleteNodes", c.remove),
		method("NodeGroupNodes", c.nodes), method("NodeGroupTemplateNodeInfo", c.template), method("NodeGroupGetOptions", c.options),
	}
}

func (c *cloud) pools() (pools []pool, err error) {
	data, err := os.ReadFile(filepath.Join(c.dir, settingsFile))
	if err != nil {
		return nil, err
	}
	return pools, json.Unmarshal(data, &pools)
}

func (c *cloud) pool(id string) (pool, error) {
	pools, err := c.pools()
	for _, p := range pools {
		if p.ID == id {
			return p, nil
		}
	}
	return pool{}, errors.Join(err, status.Errorf(codes.NotFound, "there is no node group %q", id))
}

func (c *cloud) groups(*wire.Empty) (*wire.NodeGroupsResponse, error) {
	pools, err := c.pools()
	out := &wire.NodeGroupsResponse{}
	for _, p := range pools {
		out.NodeGroups = append(out.NodeGroups, &wire.NodeGroup{ID: p.ID, MinSize: p.Least, MaxSize: p.Most})
	}
	return out, err
}

func (c *cloud) groupOf(in *wire.NodeGroupForNodeRequest) (*wire.NodeGroupForNodeResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.machines {
		if m.providerID() == in.Node.ProviderID {
			return &wire.NodeGroupForNodeResponse{NodeGroup: &wire.NodeGroup{ID: m.pool}}, nil
		}
	}
	return &wire.NodeGroupForNodeResponse{NodeGroup: &wire.NodeGroup{}}, nil
}

func (c *cloud) targetSize(in *wire.GroupRequest) (*wire.TargetSizeResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &wire.TargetSizeResponse{TargetSize: c.target[in.ID]}, nil
}

func (c *cloud) increase(in *wire.DeltaRequest) (*wire.Empty, error) {
	p, err := c.pool(in.ID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Fate == refuses || c.target[in.ID]+in.Delta > p.Most {
		return nil, status.Errorf(codes.ResourceExhausted, "there are no more machines for %s", in.ID)
	}
	c.target[in.ID] += in.Delta
	for range in.Delta {
		m := &machine{name: fmt.Sprintf("%s-%d", p.ID, c.made), pool: p.ID, fate: p.Fate}
		c.made++
		c.machines[m.name] = m
		if m.fate == registers {
			node := hollow(p, m)
			if _, err := c.client.CoreV1().Nodes().Create(context.Background(), node, metav1.CreateOptions{}); err != nil {
				return nil, err
			}
			c.renew(m)
		}
	}
	return &wire.Empty{}, nil
}

func (c *cloud) decrease(in *wire.DeltaRequest) (*wire.Empty, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target[in.ID] += in.Delta
	return &wire.Empty{}, nil
}

func (c *cloud) remove(in *wire.DeleteNodesRequest) (*wire.Empty, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range in.Nodes {
		i := slices.IndexFunc(c.all(), func(m *machine) bool { return m.providerID() == n.ProviderID && m.pool == in.ID })
		if i < 0 {
			return nil, status.Errorf(codes.NotFound, "%s has no machine %q", in.ID, n.ProviderID)
		}
		m := c.all()[i]
		delete(c.machines, m.name)
		c.target[in.ID]--
		if err := c.client.CoreV1().Nodes().Delete(context.Background(), m.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return &wire.Empty{}, nil
}

// all returns the machines in the order of their names.
func (c *cloud) all() (out []*machine) {
	for _, m := range c.machines {
		out = append(out, m)
	}
	slices.SortFunc(out, func(x, y *machine) int {
		return cmp.Or(cmp.Compare(len(x.name), len(y.name)), cmp.Compare(x.name, y.name))
	})
	return out
}

func (c *cloud) nodes(in *wire.GroupRequest) (*wire.NodesResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &wire.NodesResponse{}
	for _, m := range c.all() {
		if m.pool != in.ID {
			continue
		}
		state := &wire.InstanceStatus{State: 1, Error: &wire.InstanceErrorInfo{}}
		if m.fate == broken {
			state = &wire.InstanceStatus{State: 2, Error: &wire.InstanceErrorInfo{Code: "STOCKOUT", Message: "no such machines are left", Class: 1}}
		}
		out.Instances = append(out.Instances, &wire.Instance{ID: m.providerID(), Status: state})
	}
	return out, nil
}

func (c *cloud) template(in *wire.GroupRequest) (*wire.TemplateResponse, error) {
	p, err := c.pool(in.ID)
	if err != nil {
		return nil, err
	}
	data, err := hollow(p, &machine{name: "template", pool: p.ID}).Marshal()
	return &wire.TemplateResponse{NodeBytes: data}, err
}

func (c *cloud) options(in *wire.OptionsRequest) (*wire.OptionsResponse, error) {
	p, err := c.pool(in.ID)
	if err != nil {
		return nil, err
	}
	if p.Provision == 0 {
		return nil, status.Error(codes.Unimplemented, "there are none")
	}
	o := *in.Defaults
	o.MaxNodeProvisionDuration = &wire.Duration{Seconds: int64(p.Provision / time.Second), Nanos: int32(p.Provision % time.Second)}
	return &wire.OptionsResponse{Options: &o}, nil
}

// hollow returns a node as it registers.
func hollow(p pool, m *machine) *v1.Node {
	capacity := v1.ResourceList{v1.ResourceCPU: resource.MustParse(p.CPU), v1.ResourceMemory: resource.MustParse("16Gi"), v1.ResourcePods: resource.MustParse("110")}
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.name, Labels: map[string]string{v1.LabelHostname: m.name, v1.LabelOSStable: "linux", "pool": p.ID}},
		Spec: v1.NodeSpec{ProviderID: m.providerID()},
		Status: v1.NodeStatus{Capacity: capacity, Allocatable: capacity, NodeInfo: v1.NodeSystemInfo{OperatingSystem: "linux", Architecture: "amd64"},
			Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}}}
}

// renew renews a node's lease.
func (c *cloud) renew(m *machine) {
	leases := c.client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	spec := coordinationv1.LeaseSpec{HolderIdentity: &m.name, LeaseDurationSeconds: ptr.To(int32(40)), RenewTime: ptr.To(metav1.NowMicro())}
	lease, err := leases.Get(context.Background(), m.name, metav1.GetOptions{})
	if err == nil {
		lease.Spec = spec
		_, _ = leases.Update(context.Background(), lease, metav1.UpdateOptions{})
		return
	}
	_, _ = leases.Create(context.Background(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: m.name}, Spec: spec}, metav1.CreateOptions{})
}

// run is the machines' kubelet.
func (c *cloud) run() {
	go func() {
		for range time.Tick(10 * time.Second) {
			c.mu.Lock()
			all := c.all()
			c.mu.Unlock()
			for _, m := range all {
				if m.fate == registers {
					c.renew(m)
				}
			}
		}
	}()
	f := informers.NewSharedInformerFactory(c.client, 0)
	handle := func(o any) {
		p, ok := o.(*v1.Pod)
		if !ok {
			return
		}
		c.mu.Lock()
		mine := c.machines[p.Spec.NodeName] != nil
		c.mu.Unlock()
		pods := c.client.CoreV1().Pods(p.Namespace)
		switch {
		case !mine:
		case p.DeletionTimestamp != nil:
			_ = pods.Delete(context.Background(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
		case p.Status.Phase == v1.PodPending:
			p = p.DeepCopy()
			now := metav1.Now()
			p.Status.Phase, p.Status.StartTime = v1.PodRunning, &now
			for _, t := range []v1.PodConditionType{v1.PodInitialized, v1.ContainersReady, v1.PodReady} {
				p.Status.Conditions = append(p.Status.Conditions, v1.PodCondition{Type: t, Status: v1.ConditionTrue, LastTransitionTime: now})
			}
			_, _ = pods.UpdateStatus(context.Background(), p, metav1.UpdateOptions{})
		}
	}
	_, _ = f.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: handle, UpdateFunc: func(_, o any) { handle(o) }})
	f.Start(context.Background().Done())
}
