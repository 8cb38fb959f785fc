package machines_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
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
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/kubectl/pkg/drain"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/imagetest"
	"keelson.dev/keelson/test/harness/lab"
	"keelson.dev/keelson/test/harness/podtest"
	"keelson.dev/keelson/test/harness/realcluster"
)

const image = "keelson.local/demo"

// env is a cluster of four machines, and a namespace in it.
type env struct {
	testing.TB
	client  *kubernetes.Clientset
	cfg     *rest.Config
	ns      string
	cluster *realcluster.Cluster
	// server has the API server; far is behind a router.
	server, near, second, far *lab.Machine
}

func (e *env) machines() []*lab.Machine {
	return []*lab.Machine{e.server, e.near, e.second, e.far}
}

// TestMachines runs all tests on the same machines, one after the other.
func TestMachines(t *testing.T) {
	a := lab.NewSegment(t, "sega", netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("fd00:77::1/64"))
	b := lab.NewSegment(t, "segb", netip.MustParsePrefix("10.77.1.1/24"), netip.MustParsePrefix("fd00:77:1::1/64"))
	e := &env{TB: t, server: a.NewMachine("server"), near: a.NewMachine("near"), second: a.NewMachine("second"), far: b.NewMachine("far")}
	e.cluster = realcluster.Start(t, e.server, realcluster.Options{PodRanges: []string{"10.244.0.0/16", "fd00:244::/56"},
		ServiceRanges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/108")}})
	e.cfg, e.client = e.cluster.Config, e.cluster.Client
	e.cluster.Join(e.near, e.second, e.far)
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
		{"readdressed", (*env).readdressed},
		{"renumbered", (*env).renumbered},
		{"moved", (*env).moved},
	} {
		e.cfg, e.client = e.cluster.Config, e.cluster.Client // another address after a test
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

func (e *env) check(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// node returns the Node of a machine.
func (e *env) node(m *lab.Machine) *v1.Node {
	e.Helper()
	n, err := e.client.CoreV1().Nodes().Get(e.Context(), m.Name, metav1.GetOptions{})
	e.check(err)
	return n
}

// addressed waits until the Node of a machine has its addresses, of both families.
func (e *env) addressed(m *lab.Machine) {
	e.Helper()
	harness.Succeeds(e, "the addresses of "+m.Name, func() error {
		var have []string
		for _, a := range e.node(m).Status.Addresses {
			if a.Type == v1.NodeInternalIP {
				have = append(have, a.Address)
			}
		}
		if want := []string{m.Addresses[0].String(), m.Addresses[1].String()}; !slices.Equal(have, want) {
			return fmt.Errorf("%v, want %v", have, want)
		}
		return nil
	})
}

// routes looks at how each machine reaches the pods of the others, of both families.
func (e *env) routes() {
	ranges := map[*lab.Machine][]string{}
	for _, m := range e.machines() {
		e.addressed(m)
		if ranges[m] = e.node(m).Spec.PodCIDRs; len(ranges[m]) != 2 {
			e.Fatalf("the ranges of %s: %v", m.Name, ranges[m])
		}
	}
	for _, from := range e.machines() {
		for _, to := range e.machines() {
			if from == to {
				continue
			}
			for i, r := range ranges[to] {
				e.route(from, to, i, netip.MustParsePrefix(r))
			}
		}
	}
}

// route checks the route from a machine to the range of another, of the i-th family.
func (e *env) route(from, to *lab.Machine, i int, r netip.Prefix) {
	e.Helper()
	tunnel := from == e.far || to == e.far
	harness.Succeeds(e, fmt.Sprintf("the route from %s to the pods of %s, %s", from.Name, to.Name, r), func() error {
		return from.In(func() error {
			routes, err := netlink.RouteGet(r.Addr().Next().Next().AsSlice())
			if err != nil || len(routes) != 1 {
				return fmt.Errorf("%v %w", routes, err)
			}
			l, err := netlink.LinkByIndex(routes[0].LinkIndex)
			if err != nil {
				return err
			}
			if tunnel != (l.Attrs().Name == "keelson-vxlan") || !tunnel && !routes[0].Gw.Equal(to.Addresses[i].AsSlice()) {
				return fmt.Errorf("it goes over %s by %s", l.Attrs().Name, routes[0].Gw)
			}
			if tunnel && l.Attrs().MTU != 1450 {
				return fmt.Errorf("packets of %d bytes", l.Attrs().MTU)
			}
			return nil
		})
	})
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
			if !podtest.Ready(p) || len(p.Status.PodIPs) != 2 {
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
		Spec: v1.ServiceSpec{Type: v1.ServiceTypeNodePort, Selector: map[string]string{"app": app}, Ports: []v1.ServicePort{{Port: 80}}, IPFamilyPolicy: ptr.To(v1.IPFamilyPolicyRequireDualStack)}}, metav1.CreateOptions{})
	e.check(err)
	return s
}

// exec runs the demo program in a pod.
func (e *env) exec(pod string, args ...string) (string, error) {
	return podtest.Exec(e.Context(), e.cfg, e.ns, pod, "", "", append([]string{"/bin/demo"}, args...)...)
}

// at returns the URL of a path at an address.
func at(ip, path string) string { return "http://" + net.JoinHostPort(ip, "80") + path }

// pods checks that pods reach each other by their own addresses of both families, on
// whatever machines, with packets of any size; that Services balance over all of them, at
// node ports too; and that names are resolved.
func (e *env) pods() {
	pods := e.run("web", e.machines()...)
	service := e.expose("web")
	long := strings.Repeat("a", 8000) // no link carries it in one packet
	for from, p := range pods {
		for to, q := range pods {
			for i, ip := range q.Status.PodIPs {
				harness.Succeeds(e, "from "+from.Name+" to "+to.Name+" at "+ip.IP, func() error {
					out, err := e.exec(p.Name, "get", at(ip.IP, "/client"))
					if err != nil {
						return err
					}
					seen, err := netip.ParseAddrPort(strings.TrimSpace(out))
					if err == nil && seen.Addr().String() != p.Status.PodIPs[i].IP {
						err = fmt.Errorf("%s sees the address %s in place of %s", q.Name, seen.Addr(), p.Status.PodIPs[i].IP)
					}
					return err
				})
				if out, err := e.exec(p.Name, "get", at(ip.IP, "/"+long)); err != nil || !strings.Contains(out, "/"+long) {
					e.Errorf("long packets from %s to %s at %s: %d bytes, %v", from.Name, to.Name, ip.IP, len(out), err)
				}
			}
		}
		for _, host := range append([]string{"web"}, service.Spec.ClusterIPs...) {
			harness.Succeeds(e, "the Service from "+from.Name+" at "+host, func() error {
				seen := map[string]bool{}
				for range 60 {
					out, err := e.exec(p.Name, "get", at(host, "/"))
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
		}
		// From the machine itself, too.
		for to, q := range pods {
			for _, ip := range q.Status.PodIPs {
				harness.Succeeds(e, "from the machine "+from.Name+" to "+to.Name+" at "+ip.IP, func() error {
					return e.dial(e.Context(), from, net.JoinHostPort(ip.IP, "80"))
				})
			}
		}
	}
	// Node ports, at the addresses of every machine from every other.
	port := fmt.Sprint(service.Spec.Ports[0].NodePort)
	for _, from := range e.machines() {
		for _, to := range e.machines() {
			for _, a := range to.Addresses {
				harness.Succeeds(e, "the node port of "+to.Name+" at "+a.String()+" from "+from.Name, func() error {
					return e.dial(e.Context(), from, net.JoinHostPort(a.String(), port))
				})
			}
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
			return e.dial(e.Context(), e.server, net.JoinHostPort(pods[e.near].Status.PodIP, "80"))
		})
	}
}

// dial connects to an address from a machine.
func (e *env) dial(ctx context.Context, m *lab.Machine, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return m.In(func() error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// kubectl has logs, exec, port-forward and cp for pods of other machines.
func (e *env) kubectl() {
	e.copies()
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

// copies checks that kubectl cp copies a file to a pod of another machine, and back. The
// image needs tar for that.
func (e *env) copies() {
	e.Helper()
	busybox := imagetest.Busybox(e, e.far.In)
	p := e.pod(e.far, "files")
	p.Spec.Containers = []v1.Container{{Name: "c", Image: busybox, Command: []string{"sleep", "3600"}}}
	_, err := e.client.CoreV1().Pods(e.ns).Create(e.Context(), p, metav1.CreateOptions{})
	e.check(err)
	harness.Succeeds(e, "the pod with files", func() error {
		is, err := e.client.CoreV1().Pods(e.ns).Get(e.Context(), p.Name, metav1.GetOptions{})
		if err == nil && !podtest.Ready(is) {
			err = fmt.Errorf("%+v", is.Status)
		}
		return err
	})
	dir := e.TempDir()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // a MiB
	e.check(os.WriteFile(filepath.Join(dir, "sent"), want, 0o600))
	for _, args := range [][]string{{filepath.Join(dir, "sent"), p.Name + ":/tmp/file"}, {p.Name + ":/tmp/file", filepath.Join(dir, "got")}} {
		cmd := exec.CommandContext(e.Context(), os.Args[0], append([]string{"--kubeconfig", e.cluster.Kubeconfig, "--namespace", e.ns, "cp"}, args...)...)
		cmd.Env = append(os.Environ(), asKubectl+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			e.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "got")); err != nil || !bytes.Equal(got, want) {
		e.Errorf("the file came back with %d bytes, want %d: %v", len(got), len(want), err)
	}
}

// forwarded asks a pod through port-forward.
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
	addresses := slices.Clone(e.expose("web").Spec.ClusterIPs)
	for _, p := range before {
		for _, ip := range p.Status.PodIPs {
			addresses = append(addresses, ip.IP)
		}
	}
	var talks []func() error
	for _, m := range e.machines() {
		for _, a := range addresses {
			talks = append(talks, e.talk(m, net.JoinHostPort(a, "80")))
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
	e.cluster.Kill(e.server)
	all("while the server is down")
	e.cluster.Restart(e.server)
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
	e.cluster.Kill(e.near)
	e.cluster.Restart(e.near)
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

// readdressed changes the addresses of a machine, and checks that its Node, its
// certificate, the statuses of its pods and the routes to them follow.
func (e *env) readdressed() {
	pods := e.run("web", e.machines()...)
	service := e.expose("web")
	e.near.Readdress(netip.MustParseAddr("10.77.0.150"), netip.MustParseAddr("fd00:77::150"))
	e.addressed(e.near)
	e.nodeReady(e.near)
	for i, r := range e.node(e.near).Spec.PodCIDRs {
		for _, from := range []*lab.Machine{e.server, e.second, e.far} {
			e.route(from, e.near, i, netip.MustParsePrefix(r))
		}
	}
	harness.Succeeds(e, "a certificate for the new addresses", func() error {
		authorities := x509.NewCertPool()
		authorities.AppendCertsFromPEM(e.cfg.CAData)
		for _, a := range e.near.Addresses {
			if err := e.server.In(func() error {
				c, err := tls.DialWithDialer(&net.Dialer{Timeout: 2 * time.Second}, "tcp", net.JoinHostPort(a.String(), "10250"), &tls.Config{RootCAs: authorities})
				if err == nil {
					err = c.Close()
				}
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	harness.Succeeds(e, "the host addresses of its pod", func() error {
		p, err := e.client.CoreV1().Pods(e.ns).Get(e.Context(), pods[e.near].Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := p.Status.HostIPs; len(got) != 2 || got[0].IP != e.near.Address.String() || got[1].IP != e.near.Addresses[1].String() {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	for from, p := range pods {
		for to, q := range pods {
			for _, ip := range q.Status.PodIPs {
				harness.Succeeds(e, "from "+from.Name+" to "+to.Name+" at "+ip.IP, func() error {
					_, err := e.exec(p.Name, "get", at(ip.IP, "/"))
					return err
				})
			}
		}
	}
	for _, a := range e.near.Addresses {
		harness.Succeeds(e, "the node port at "+a.String(), func() error {
			return e.dial(e.Context(), e.far, net.JoinHostPort(a.String(), fmt.Sprint(service.Spec.Ports[0].NodePort)))
		})
	}
}

// renumbered gives the server's machine other addresses and then takes the former ones away:
// the agents, which have learned the new ones meanwhile, find it without being told.
func (e *env) renumbered() {
	was := e.run("web", e.near, e.far)
	drop := e.server.Renumber(netip.MustParseAddr("10.77.0.140"), netip.MustParseAddr("fd00:77::140"))
	for _, m := range []*lab.Machine{e.near, e.second, e.far} {
		harness.Succeeds(e, "the new address of the server on "+m.Name, func() error {
			b, err := os.ReadFile(filepath.Join(m.Dir, "node", "servers"))
			if err == nil && !strings.Contains(string(b), e.server.Address.String()) {
				err = errors.New(string(b))
			}
			return err
		})
	}
	drop()
	e.cluster.FollowAlone()
	e.cfg, e.client = e.cluster.Config, e.cluster.Client
	dropped := time.Now()
	for _, m := range e.machines() {
		harness.Succeeds(e, "a heartbeat of "+m.Name, func() error {
			l, err := e.client.CoordinationV1().Leases(v1.NamespaceNodeLease).Get(e.Context(), m.Name, metav1.GetOptions{})
			if err == nil && !l.Spec.RenewTime.After(dropped) {
				err = fmt.Errorf("the last was at %s, %s before the address went", l.Spec.RenewTime, dropped.Sub(l.Spec.RenewTime.Time))
			}
			return err
		})
		e.nodeReady(m)
	}
	e.run("after", e.near, e.far)
	for m, p := range was {
		is, err := e.client.CoreV1().Pods(e.ns).Get(e.Context(), p.Name, metav1.GetOptions{})
		e.check(err)
		if a, b := p.Status.ContainerStatuses[0], is.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
			e.Errorf("on %s the container was replaced: %s, then %s with %d restarts", m.Name, a.ContainerID, b.ContainerID, b.RestartCount)
		}
	}
	// An agent that starts later has the address from its file.
	e.cluster.Kill(e.near)
	e.cluster.Restart(e.near)
	e.nodeReady(e.near)
}

// moved changes the addresses of the server's machine: its certificate names the new ones,
// the Service kubernetes leads there, and agents that are given the new URL continue with what
// they have, their pods too.
func (e *env) moved() {
	was := e.run("web", e.server, e.near, e.far)
	e.server.Readdress(netip.MustParseAddr("10.77.0.160"), netip.MustParseAddr("fd00:77::160"))
	e.cluster.Follow()
	e.cfg, e.client = e.cluster.Config, e.cluster.Client
	harness.Succeeds(e, "the API server by its new address", func() error {
		_, err := e.client.Discovery().ServerVersion()
		return err
	})
	for _, m := range e.machines() {
		e.nodeReady(m)
	}
	e.addressed(e.server)
	for m, p := range was {
		is, err := e.client.CoreV1().Pods(e.ns).Get(e.Context(), p.Name, metav1.GetOptions{})
		e.check(err)
		if a, b := p.Status.ContainerStatuses[0], is.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
			e.Errorf("on %s the container was replaced: %s, then %s with %d restarts", m.Name, a.ContainerID, b.ContainerID, b.RestartCount)
		}
		// It answers plain HTTP by saying that it wants TLS.
		harness.Succeeds(e, "the API server from a pod on "+m.Name, func() error {
			out, err := e.exec(p.Name, "get", "http://kubernetes.default:443/")
			if err == nil && !strings.Contains(out, "HTTPS") {
				err = fmt.Errorf("%q", out)
			}
			return err
		})
	}
}
