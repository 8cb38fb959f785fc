package machines_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/kubectl/pkg/drain"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/agent/join"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/lab"
	"keelson.dev/keelson/test/harness/podtest"
)

const image = "keelson.local/demo"

// env is a cluster of four machines, and a namespace in it.
type env struct {
	testing.TB
	client *kubernetes.Clientset
	cfg    *rest.Config
	ns     string
	// server has the API server; far is behind a router.
	server, near, second, far *lab.Machine
	processes                 map[*lab.Machine]*harness.Process
	roles                     map[*lab.Machine]role // for restarts
}

func (e *env) machines() []*lab.Machine {
	return []*lab.Machine{e.server, e.near, e.second, e.far}
}

// TestMachines runs all tests on the same machines, one after the other.
func TestMachines(t *testing.T) {
	a := lab.NewSegment(t, "sega", netip.MustParsePrefix("10.77.0.1/24"))
	b := lab.NewSegment(t, "segb", netip.MustParsePrefix("10.77.1.1/24"))
	e := &env{TB: t, server: a.NewMachine("server"), near: a.NewMachine("near"), second: a.NewMachine("second"), far: b.NewMachine("far"),
		processes: map[*lab.Machine]*harness.Process{}, roles: map[*lab.Machine]role{}}
	serve := role{Do: "serve", Name: "server", Dir: e.server.Dir, Address: e.server.Address}
	e.start(e.server, serve)
	cfg, err := clientcmd.BuildConfigFromFlags("", serve.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	e.cfg, e.client = cfg, kubernetes.NewForConfigOrDie(cfg)
	joining := e.token()
	for _, m := range []*lab.Machine{e.near, e.second, e.far} {
		joining.Name, joining.Dir, joining.Address = m.Name, m.Dir, m.Address
		e.start(m, joining)
	}
	for _, test := range []struct {
		name string
		f    func(*env)
	}{
		{"routes", (*env).routes},
		{"pods", (*env).pods},
		{"firewall", (*env).firewall},
		{"kubectl", (*env).kubectl},
		{"killed", (*env).killed},
		{"rejoin", (*env).rejoin},
		{"drain", (*env).drain},
		{"cut", (*env).cut},
	} {
		if !t.Run(test.name, func(t *testing.T) {
			ns, err := e.client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: test.name + "-"}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			x := *e
			x.TB, x.ns = t, ns.Name
			t.Cleanup(x.explain)
			test.f(&x)
		}) {
			break
		}
	}
}

// explain logs the nodes' events where a test has failed.
func (e *env) explain() {
	if !e.Failed() {
		return
	}
	events, err := e.client.CoreV1().Events("").List(context.Background(), metav1.ListOptions{FieldSelector: "type=Warning"})
	if err != nil {
		e.Log(err)
		return
	}
	for i := range events.Items {
		x := &events.Items[i]
		e.Logf("%s %s %s: %s", x.InvolvedObject.Kind, x.InvolvedObject.Name, x.Reason, x.Message)
	}
}

// start runs a role on a machine until the end of the test, and cleans up after it.
func (e *env) start(m *lab.Machine, r role) {
	e.Helper()
	e.Cleanup(func() {
		cmd := m.Self(role{Do: "clean", Name: m.Name, Dir: m.Dir}.env())
		if out, err := cmd.CombinedOutput(); err != nil {
			e.Errorf("cleaning %s: %v: %s", m.Name, err, out)
		}
		if left := m.Left(); len(left) > 0 {
			e.Errorf("%s has left: %q", m.Name, left)
		}
		mounts, err := os.ReadFile("/proc/mounts")
		if err != nil || strings.Contains(strings.ReplaceAll(string(mounts), m.Dir+"/netns", ""), m.Dir) {
			e.Errorf("a mount is left below %s (%v)", m.Dir, err)
		}
	})
	e.roles[m] = r
	e.processes[m] = harness.StartProcess(e, func() *exec.Cmd { return m.Self(e.roles[m].env()) })
}

// token creates a bootstrap token, as keelson token create does, and returns a
// role that joins with it.
func (e *env) token() role {
	e.Helper()
	ctx := e.Context()
	server, err := join.Server(ctx, e.client)
	e.check(err)
	e.check(rest.LoadTLSFiles(e.cfg))
	e.check(join.Prepare(ctx, e.client, server, e.cfg.CAData))
	e.check(agent.PrepareJoin(ctx, e.client))
	t, err := join.Create(ctx, e.client, join.Token{Groups: []string{join.DefaultGroup}, Expires: time.Now().Add(time.Hour)})
	e.check(err)
	hashes, err := join.Hashes(e.cfg.CAData)
	e.check(err)
	return role{Do: "join", Server: server, Token: t.String(), Hashes: hashes}
}

func (e *env) check(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// routes checks the routes of each machine to the pods of the others.
func (e *env) routes() {
	ranges := map[string]netip.Prefix{}
	for _, m := range e.machines() {
		n, err := e.client.CoreV1().Nodes().Get(e.Context(), m.Name, metav1.GetOptions{})
		e.check(err)
		ranges[m.Name] = netip.MustParsePrefix(n.Spec.PodCIDR)
	}
	for _, from := range e.machines() {
		for _, to := range e.machines() {
			if from == to {
				continue
			}
			tunnel := from == e.far || to == e.far
			harness.Succeeds(e, "the route from "+from.Name+" to the pods of "+to.Name, func() error {
				return from.In(func() error {
					routes, err := netlink.RouteGet(ranges[to.Name].Addr().Next().Next().AsSlice())
					if err != nil || len(routes) != 1 {
						return fmt.Errorf("%v %w", routes, err)
					}
					l, err := netlink.LinkByIndex(routes[0].LinkIndex)
					if err != nil {
						return err
					}
					if tunnel != (l.Attrs().Name == "keelson-vxlan") || !tunnel && !routes[0].Gw.Equal(to.Address.AsSlice()) {
						return fmt.Errorf("it goes over %s by %s", l.Attrs().Name, routes[0].Gw)
					}
					if tunnel && l.Attrs().MTU != 1450 {
						return fmt.Errorf("packets of %d bytes", l.Attrs().MTU)
					}
					return nil
				})
			})
		}
	}
}

// pod returns a pod of the demo image on a machine.
func (e *env) pod(m *lab.Machine, app string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: e.ns, Name: app + "-" + m.Name, Labels: map[string]string{"app": app}}, Spec: v1.PodSpec{
		NodeName: m.Name, TerminationGracePeriodSeconds: ptr.To[int64](1),
		Containers: []v1.Container{{Name: "c", Image: image,
			ReadinessProbe: &v1.Probe{PeriodSeconds: 1, ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(80)}}}}}}}
}

// run makes a pod of an app on each machine and waits until they are ready.
func (e *env) run(app string, machines ...*lab.Machine) map[*lab.Machine]*v1.Pod {
	e.Helper()
	out := map[*lab.Machine]*v1.Pod{}
	for _, m := range machines {
		_, err := e.client.CoreV1().Pods(e.ns).Create(e.Context(), e.pod(m, app), metav1.CreateOptions{})
		e.check(err)
	}
	for _, m := range machines {
		harness.Succeeds(e, "the pod on "+m.Name, func() error {
			p, err := e.client.CoreV1().Pods(e.ns).Get(e.Context(), app+"-"+m.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			out[m] = p
			if !podtest.Ready(p) {
				return fmt.Errorf("%+v", p.Status)
			}
			return nil
		})
	}
	return out
}

func (e *env) expose(app string) *v1.Service {
	e.Helper()
	s, err := e.client.CoreV1().Services(e.ns).Create(e.Context(), &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: app},
		Spec: v1.ServiceSpec{Selector: map[string]string{"app": app}, Ports: []v1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	e.check(err)
	return s
}

// exec runs the demo program in a pod.
func (e *env) exec(pod string, args ...string) (string, error) {
	return podtest.Exec(e.Context(), e.cfg, e.ns, pod, "", "", append([]string{"/bin/demo"}, args...)...)
}

// pods checks that pods reach each other by their own addresses, on whatever machines,
// with packets of any size; that Services balance over all of them; and that names are
// resolved.
func (e *env) pods() {
	pods := e.run("web", e.machines()...)
	e.expose("web")
	long := strings.Repeat("a", 8000) // no link carries it in one packet
	for from, p := range pods {
		for to, q := range pods {
			harness.Succeeds(e, "from "+from.Name+" to "+to.Name, func() error {
				out, err := e.exec(p.Name, "get", "http://"+q.Status.PodIP+"/client")
				if err == nil && !strings.HasPrefix(out, p.Status.PodIP+":") {
					err = fmt.Errorf("%s sees the address %s in place of %s", q.Name, strings.TrimSpace(out), p.Status.PodIP)
				}
				return err
			})
			if out, err := e.exec(p.Name, "get", "http://"+q.Status.PodIP+"/"+long); err != nil || !strings.Contains(out, "/"+long) {
				e.Errorf("long packets from %s to %s: %d bytes, %v", from.Name, to.Name, len(out), err)
			}
		}
		harness.Succeeds(e, "the Service from "+from.Name, func() error {
			seen := map[string]bool{}
			for range 60 {
				out, err := e.exec(p.Name, "get", "http://web/")
				if err != nil {
					return err
				}
				line, _, _ := strings.Cut(out, "\n")
				if seen[line] = true; len(seen) == len(pods) {
					return nil
				}
			}
			return fmt.Errorf("only %v answered", seen)
		})
		// From the machine itself, too.
		for to, q := range pods {
			harness.Succeeds(e, "from the machine "+from.Name+" to "+to.Name, func() error {
				return from.In(func() error {
					c, err := net.DialTimeout("tcp", net.JoinHostPort(q.Status.PodIP, "80"), 2*time.Second)
					if err == nil {
						err = c.Close()
					}
					return err
				})
			})
		}
	}
}

// firewall checks that a firewall that drops forwarded packets, as Docker's and
// ufw's do, lets the pods' packets through, also after it was reloaded.
func (e *env) firewall() {
	pods := e.run("web", e.server, e.near)
	nft := func(script string) {
		e.Helper()
		e.check(e.near.In(func() error {
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}))
	}
	e.Cleanup(func() { nft("table ip filter {}; delete table ip filter") })
	for _, when := range []string{"at first", "after it was written anew"} {
		nft("table ip filter {}; delete table ip filter; table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }")
		harness.Succeeds(e, "a way through the firewall "+when, func() error {
			c, cancel := context.WithTimeout(e.Context(), 3*time.Second)
			defer cancel()
			return e.dial(c, e.server, pods[e.near])
		})
	}
}

// dial connects to a pod from a machine.
func (e *env) dial(ctx context.Context, m *lab.Machine, p *v1.Pod) error {
	return m.In(func() error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(p.Status.PodIP, "80"))
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// kubectl checks logs, exec and port-forward of pods on other machines.
func (e *env) kubectl() {
	for m, p := range e.run("web", e.near, e.far) {
		out, err := e.exec(p.Name, "echo", "hello")
		if err != nil || out != "hello\n" {
			e.Errorf("exec on %s: %q %v", m.Name, out, err)
		}
		logs, err := e.client.CoreV1().Pods(e.ns).GetLogs(p.Name, &v1.PodLogOptions{}).DoRaw(e.Context())
		if err != nil || !strings.Contains(string(logs), "serving on :80") {
			e.Errorf("logs on %s: %q %v", m.Name, logs, err)
		}
		if got, err := e.forwarded(p); err != nil || !strings.HasPrefix(got, "Hello from "+p.Name) {
			e.Errorf("port-forward on %s: %q %v", m.Name, got, err)
		}
	}
}

// forwarded sends a request to a pod through port-forward.
func (e *env) forwarded(p *v1.Pod) (string, error) {
	rt, upgrader, err := spdy.RoundTripperFor(e.cfg)
	if err != nil {
		return "", err
	}
	u := e.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(e.ns).Name(p.Name).SubResource("portforward").URL()
	stop, open := make(chan struct{}), make(chan struct{})
	f, err := portforward.NewOnAddresses(spdy.NewDialer(upgrader, &http.Client{Transport: rt}, http.MethodPost, u), []string{"127.0.0.1"}, []string{"0:80"}, stop, open, io.Discard, io.Discard)
	if err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- f.ForwardPorts() }()
	select {
	case <-open:
	case err := <-ended:
		return "", err
	}
	defer func() { close(stop); <-ended }()
	ports, err := f.GetPorts()
	if err != nil {
		return "", err
	}
	at := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", ports[0].Local)}
	resp, err := (&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Get(at.String())
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// talk opens a connection from a machine and returns a function that sends a
// request over it.
func (e *env) talk(m *lab.Machine, address string) func() error {
	e.Helper()
	var c net.Conn
	harness.Succeeds(e, "a connection to "+address, func() error {
		return m.In(func() (err error) {
			c, err = net.DialTimeout("tcp", address, 2*time.Second)
			return err
		})
	})
	e.Cleanup(func() { c.Close() })
	b := make([]byte, 4096)
	return func() error {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
			return err
		}
		n, err := c.Read(b)
		if err == nil && !bytes.HasPrefix(b[:n], []byte("HTTP/1.1 200")) {
			err = fmt.Errorf("%q", b[:n])
		}
		return err
	}
}

// killed checks that pods and connections survive when the server is killed.
func (e *env) killed() {
	before := e.run("web", e.server, e.second, e.far)
	address := net.JoinHostPort(e.expose("web").Spec.ClusterIP, "80")
	var talks []func() error
	for _, m := range e.machines() {
		talks = append(talks, e.talk(m, address))
		for _, p := range before {
			talks = append(talks, e.talk(m, net.JoinHostPort(p.Status.PodIP, "80")))
		}
	}
	all := func(when string) {
		for _, talk := range talks {
			if err := talk(); err != nil {
				e.Errorf("%s: %v", when, err)
			}
		}
	}
	all("before")
	p := e.processes[e.server]
	p.Kill()
	all("while the server is down")
	p.Start()
	all("after the server is back")
	for m, was := range before {
		harness.Succeeds(e, "the pod on "+m.Name, func() error {
			is, err := e.client.CoreV1().Pods(e.ns).Get(e.Context(), was.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			a, b := was.Status.ContainerStatuses[0], is.Status.ContainerStatuses[0]
			if a.ContainerID != b.ContainerID || b.RestartCount != 0 {
				e.Fatalf("the container was replaced: %s, then %s with %d restarts", a.ContainerID, b.ContainerID, b.RestartCount)
			}
			if !podtest.Ready(is) {
				return errors.New("it is not ready")
			}
			return nil
		})
	}
	for _, m := range e.machines() {
		e.nodeReady(m)
	}
}

func (e *env) nodeReady(m *lab.Machine) {
	e.Helper()
	harness.Succeeds(e, "the node "+m.Name, func() error {
		n, err := e.client.CoreV1().Nodes().Get(e.Context(), m.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(n.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue }) || len(n.Spec.Taints) > 0 {
			return fmt.Errorf("%+v %+v", n.Spec.Taints, n.Status.Conditions)
		}
		return nil
	})
}

// rejoin checks that an agent starts again without a token, since it has its
// certificate.
func (e *env) rejoin() {
	was := e.run("web", e.near)[e.near]
	p := e.processes[e.near]
	p.Kill()
	e.roles[e.near] = role{Do: "join", Name: e.near.Name, Dir: e.near.Dir}
	p.Start()
	is, err := e.client.CoreV1().Pods(e.ns).Get(e.Context(), was.Name, metav1.GetOptions{})
	e.check(err)
	if a, b := was.Status.ContainerStatuses[0], is.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		e.Errorf("the container was replaced: %s, then %s with %d restarts", a.ContainerID, b.ContainerID, b.RestartCount)
	}
	if out, err := e.exec(was.Name, "echo", "hello"); err != nil || out != "hello\n" {
		e.Errorf("exec: %q %v", out, err)
	}
}

// deployment makes a Deployment whose pods are evicted at once from a machine
// that is cut off.
func (e *env) deployment(replicas int32) {
	e.Helper()
	leave := func(key string) v1.Toleration {
		return v1.Toleration{Key: key, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](1)}
	}
	labels := map[string]string{"app": "web"}
	_, err := e.client.AppsV1().Deployments(e.ns).Create(e.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](1), Containers: []v1.Container{{Name: "c", Image: image}},
			Tolerations:               []v1.Toleration{leave(v1.TaintNodeUnreachable), leave(v1.TaintNodeNotReady)},
			TopologySpreadConstraints: []v1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: v1.LabelHostname, WhenUnsatisfiable: v1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: labels}}},
		}}}}, metav1.CreateOptions{})
	e.check(err)
}

// spread waits until that many pods are ready, and all of them are on these
// machines.
func (e *env) spread(replicas int, machines ...*lab.Machine) {
	e.Helper()
	deadline := time.Now().Add(3 * time.Minute) // a node counts as unreachable after 40 s
	for {
		pods, err := e.client.CoreV1().Pods(e.ns).List(e.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		e.check(err)
		on := map[string]int{}
		n := 0
		for i := range pods.Items {
			if p := &pods.Items[i]; podtest.Ready(p) && p.DeletionTimestamp == nil {
				n++
				on[p.Spec.NodeName]++
			}
		}
		for _, m := range machines {
			delete(on, m.Name)
		}
		if n == replicas && len(on) == 0 {
			return
		}
		if time.Now().After(deadline) {
			e.Fatalf("%d pods are ready, and others are on %v", n, on)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-e.Context().Done():
			e.Fatal(e.Context().Err())
		}
	}
}

// drain checks that a machine can be drained and used again.
func (e *env) drain() {
	e.deployment(4)
	e.spread(4, e.machines()...)
	h := &drain.Helper{Ctx: e.Context(), Client: e.client, Force: true, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true, GracePeriodSeconds: -1, Timeout: harness.Patience, Out: io.Discard, ErrOut: io.Discard}
	n, err := e.client.CoreV1().Nodes().Get(e.Context(), e.second.Name, metav1.GetOptions{})
	e.check(err)
	e.check(drain.RunCordonOrUncordon(h, n, true))
	e.check(drain.RunNodeDrain(h, e.second.Name))
	e.spread(4, e.server, e.near, e.far)
	n, err = e.client.CoreV1().Nodes().Get(e.Context(), e.second.Name, metav1.GetOptions{})
	e.check(err)
	e.check(drain.RunCordonOrUncordon(h, n, false))
	e.run("again", e.second)
	e.nodeReady(e.second)
}

// cut checks that a machine that is cut off is tainted and its pods move, and
// that it is as before once it is back.
func (e *env) cut() {
	e.deployment(4)
	e.spread(4, e.machines()...)
	on := func(m *lab.Machine) []v1.Pod {
		pods, err := e.client.CoreV1().Pods(e.ns).List(e.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + m.Name})
		e.check(err)
		return pods.Items
	}
	if len(on(e.far)) == 0 {
		e.Fatal("no pod is on the machine that is to be cut off")
	}
	old := on(e.far)[0]
	e.far.Cut(true)
	e.spread(4, e.server, e.near, e.second)
	n, err := e.client.CoreV1().Nodes().Get(e.Context(), e.far.Name, metav1.GetOptions{})
	e.check(err)
	for _, effect := range []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectNoExecute} {
		if !slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == v1.TaintNodeUnreachable && t.Effect == effect }) {
			e.Errorf("taints: %+v", n.Spec.Taints)
		}
	}
	e.far.Cut(false)
	e.nodeReady(e.far)
	harness.Eventually(e, "the end of the pods that have moved", func() bool {
		_, err := e.client.CoreV1().Pods(e.ns).Get(e.Context(), old.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	pods := e.run("again", e.far, e.near)
	harness.Succeeds(e, "a pod of the machine that is back", func() error {
		_, err := e.exec(pods[e.near].Name, "get", "http://"+pods[e.far].Status.PodIP+"/")
		return err
	})
}
