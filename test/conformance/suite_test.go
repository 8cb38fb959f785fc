package conformance

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/imagetest"
	"keelson.dev/keelson/test/harness/lab"
	"keelson.dev/keelson/test/harness/realcluster"
	"keelson.dev/keelson/test/harness/realnode"
	"keelson.dev/keelson/testcluster"
)

var (
	kubeconfig = flag.String("kubeconfig", "", "kubeconfig of the cluster to test (default: clusters in this process)")
	containers = flag.Bool("containers", false, "the cluster's nodes run containers, and pull keelson.local/demo")
	busybox    = flag.String("busybox", "", "image of busybox that the cluster's nodes can pull (default: this machine's busybox, from a registry on its loopback)")
	report     = flag.String("report", "", "file to write the codenames to that did not pass")
)

// T is one conformance test.
type T struct {
	*testing.T
	Config  *rest.Config
	Client  kubernetes.Interface
	Dynamic dynamic.Interface
	// NS is the name of the test's own namespace.
	NS string
	// Kubeconfig is the path of a kubeconfig for kubectl.
	Kubeconfig string
	// Busybox is an image of busybox, for tests in containers.
	Busybox string
	// machines are those beside this one that pull images (imagetest.Push).
	machines []func(func() error) error
}

type entry struct {
	codename string
	// containers reports whether the test looks into containers, network whether it is
	// of what their nodes do together.
	containers, network bool
	f                   func(*T)
}

var registered []entry

// It registers a test under its codename, without the marks in brackets at the
// end. It is called in the initialization of package variables, so that a test's
// name is beside its function.
func It(codename string, f func(*T)) bool {
	registered = append(registered, entry{codename: codename, f: f})
	return true
}

// InContainers registers a test that needs real containers.
func InContainers(codename string, f func(*T)) bool {
	registered = append(registered, entry{codename, true, sig(codename) == "sig-network", f})
	return true
}

// OverNetwork registers a test of another SIG that needs a Service, a name, or pods that
// reach one another: like those of sig-network, it runs on several nodes, too.
func OverNetwork(codename string, f func(*T)) bool {
	registered = append(registered, entry{codename, true, true, f})
	return true
}

// timeout bounds each wait for the cluster.
const timeout = harness.Patience

var marks = regexp.MustCompile(`( \[(Conformance|NodeConformance|LinuxOnly|Slow|Serial|Disruptive|Minimum\w+:[\d.]+|Environment:\w+)\])+$`)

// rows returns the codenames of the list, without the marks in brackets at the end;
// those marked Serial are true.
func rows(t *testing.T) map[string]bool {
	t.Helper()
	f, err := os.Open("testdata/tests-v1.37.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, _, ok := strings.Cut(s.Text(), "\t"); ok && strings.HasPrefix(name, "[") {
			out[marks.ReplaceAllString(name, "")] = strings.Contains(name, "[Serial]")
		}
	}
	return out
}

func sig(codename string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(codename, "["), "]")
	return name
}

// target is a cluster to test.
type target struct {
	config     *rest.Config
	kubeconfig string
	client     kubernetes.Interface
	dynamic    dynamic.Interface
	busybox    string
	machines   []func(func() error) error
}

func newTarget(t *testing.T, cfg *rest.Config, file string) *target {
	t.Helper()
	if file == "" {
		file = t.TempDir() + "/kubeconfig"
		if err := harness.WriteKubeconfig(file, cfg); err != nil {
			t.Fatal(err)
		}
	}
	cfg.QPS, cfg.Burst = -1, 0
	return &target{cfg, file, kubernetes.NewForConfigOrDie(cfg), dynamic.NewForConfigOrDie(cfg), *busybox, nil}
}

// given returns the cluster of the kubeconfig, or one of simulated nodes.
func given(t *testing.T) *target {
	t.Helper()
	if *kubeconfig != "" {
		cfg, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		return newTarget(t, cfg, *kubeconfig)
	}
	return newTarget(t, testcluster.Start(t, testcluster.WithNodes(3)).Config, "")
}

// threeNodes returns a cluster of three machines, the third of them behind a router.
func threeNodes(t *testing.T) *target {
	t.Helper()
	near := lab.NewSegment(t, "near", netip.MustParsePrefix("10.78.0.1/24"))
	far := lab.NewSegment(t, "far", netip.MustParsePrefix("10.78.1.1/24"))
	machines := []*lab.Machine{near.NewMachine("first"), near.NewMachine("second"), far.NewMachine("third")}
	c := realcluster.Start(t, machines[0], realcluster.Options{})
	c.Join(machines[1:]...)
	out := newTarget(t, c.Config, "")
	for _, m := range machines {
		out.machines = append(out.machines, m.In)
	}
	if out.busybox == "" {
		out.busybox = imagetest.Busybox(t, out.machines...)
	}
	return out
}

// TestConformance runs all tests, serial ones after the others, and reports the
// results.
func TestConformance(t *testing.T) {
	list := rows(t)
	for _, e := range registered {
		if _, ok := list[e.codename]; !ok {
			t.Errorf("no conformance test is called %q", e.codename)
		}
	}
	var mu sync.Mutex
	passed := map[string]bool{}
	// group runs the tests for which in reports true, in parallel unless they are
	// serial.
	group := func(name string, c *target, in func(entry) bool) {
		t.Run(name, func(t *testing.T) {
			for _, e := range registered {
				if !in(e) {
					continue
				}
				t.Run(e.codename, func(t *testing.T) {
					if !list[e.codename] {
						t.Parallel()
					}
					defer func() {
						mu.Lock()
						defer mu.Unlock()
						before, ran := passed[e.codename]
						passed[e.codename] = !t.Failed() && (before || !ran)
					}()
					c.run(t, e)
				})
			}
		})
	}
	c := given(t)
	if *containers && c.busybox == "" {
		c.busybox = imagetest.Busybox(t)
	}
	group("parallel", c, func(e entry) bool { return !list[e.codename] && (!e.containers || *containers) })
	group("serial", c, func(e entry) bool { return list[e.codename] && (!e.containers || *containers) })
	if *kubeconfig == "" && os.Geteuid() == 0 {
		node := newTarget(t, realnode.Start(t, agent.Options{}).Config, "")
		if node.busybox == "" {
			node.busybox = imagetest.Busybox(t)
		}
		group("containers", node, func(e entry) bool { return e.containers })
		group("machines", threeNodes(t), func(e entry) bool { return e.network })
	}
	summarize(t, list, passed)
}

// run runs the test in a namespace of its own.
func (c *target) run(t *testing.T, e entry) {
	ns := "conformance-" + rand.String(8)
	if _, err := c.client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), ns, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}()
	// Pods need the account; upstream's framework waits for it, too.
	harness.Succeeds(t, "the account of namespace "+ns, func() error {
		_, err := c.client.CoreV1().ServiceAccounts(ns).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	e.f(c.test(t, ns))
}

func (c *target) test(t *testing.T, namespace string) *T {
	return &T{t, c.config, c.client, c.dynamic, namespace, c.kubeconfig, c.busybox, c.machines}
}

// summarize prints passed/total for each SIG and all of them, and writes the rows that
// did not pass, by SIG with the reason, to the file of -report.
func summarize(t *testing.T, list, passed map[string]bool) {
	t.Helper()
	tests := map[string]entry{}
	for _, e := range registered {
		tests[e.codename] = e
	}
	total, ok, all := map[string]int{}, map[string]int{}, 0
	missing := map[string][]string{} // by SIG
	for _, name := range slices.Sorted(maps.Keys(list)) {
		s := sig(name)
		total[s]++
		ran := false
		if _, ran = passed[name]; passed[name] {
			ok[s]++
			all++
			continue
		}
		why := "not run"
		switch e, has := tests[name]; {
		case !has:
			why = "no test yet"
		case ran:
			why = "fails"
		case e.containers:
			why = "needs nodes with containers"
		}
		missing[s] = append(missing[s], fmt.Sprintf("%s: %s", name, why))
	}
	text := fmt.Sprintf("# Conformance tests that do not pass, as make conformance found them: %d of %d do.\n", all, len(list))
	var figures []string
	for _, s := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%-22s %3d/%d", s, ok[s], total[s])
		figures = append(figures, fmt.Sprintf("%s %d/%d", s, ok[s], total[s]))
		if len(missing[s]) > 0 {
			text += fmt.Sprintf("\n## %s: %d/%d\n\n%s\n", s, ok[s], total[s], strings.Join(missing[s], "\n"))
		}
	}
	t.Logf("conformance: %s; all %d/%d", strings.Join(figures, ", "), all, len(list))
	if *report == "" {
		return
	}
	if err := os.WriteFile(*report, []byte(text), 0o644); err != nil {
		t.Error(err)
	}
}
