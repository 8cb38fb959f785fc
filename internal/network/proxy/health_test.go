package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"

	"keelson.dev/keelson/test/harness"
)

// ask returns the code and the body of an answer.
func ask(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

// TestHealthChecks asks about a Service of the policy Local, whose port is another's at
// first.
func TestHealthChecks(t *testing.T) {
	port := int32(harness.FreePort(t))
	url := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))) + "/"
	busy, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal(err)
	}
	clock := testingclock.NewFakeClock(time.Now())
	var told []string
	r := newRig(t, Config{IPv4: &fake{}, Clock: clock, NodeIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		HealthCheckFailed: func(s *v1.Service, _ int32, err error) { told = append(told, s.Name+": "+err.Error()) }})
	balanced := func(s *v1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceTypeLoadBalancer, v1.ServiceExternalTrafficPolicyLocal, port
	}
	r.set(service("web", "10.96.0.1", balanced), slice("web", "web-1", ep("10.244.0.2", onHere), ep("10.244.1.2")))
	r.sync()
	r.inspect(t.Context())
	if len(told) != 1 || !strings.Contains(told[0], "web: ") || !strings.Contains(told[0], "address already in use") {
		t.Errorf("told %q", told)
	}
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}
	r.inspect(t.Context())
	want := func(code int, body string) {
		t.Helper()
		if got, text := ask(t, url); got != code || text != body {
			t.Errorf("%d %s, want %d %s", got, text, code, body)
		}
	}
	want(200, `{"service":{"namespace":"ns","name":"web"},"localEndpoints":1,"serviceProxyHealthy":true}`)

	// The proxy falls behind.
	kernel := r.tables[0].kernel.(*fake)
	kernel.Fail = errors.New("no")
	r.set(slice("web", "web-1", ep("10.244.0.2", onHere), ep("10.244.0.3", onHere)))
	if err := r.Sync(); err == nil {
		t.Fatal("the error is not told")
	}
	clock.Step(2 * late)
	want(503, `{"service":{"namespace":"ns","name":"web"},"localEndpoints":2,"serviceProxyHealthy":false}`)
	kernel.Fail = nil
	r.sync()
	want(200, `{"service":{"namespace":"ns","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}`)
	r.set(slice("web", "web-1", ep("10.244.1.2")))
	r.sync()
	want(503, `{"service":{"namespace":"ns","name":"web"},"localEndpoints":0,"serviceProxyHealthy":true}`)
	r.remove(service("web", "10.96.0.1"))
	r.sync()
	if code, _ := ask(t, url); code != 0 {
		t.Errorf("the port of a Service that is gone answers %d", code)
	}
}

// TestHealthz asks about the node.
func TestHealthz(t *testing.T) {
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(harness.FreePort(t)))
	busy, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	clock := testingclock.NewFakeClock(time.Now())
	told := 0
	kernel := &fake{}
	r := newRig(t, Config{IPv4: kernel, Clock: clock, NoHealthChecks: true, Healthz: at, HealthzFailed: func(error) { told++ }})
	t.Cleanup(r.own.close)
	r.listen(t.Context())
	r.inspect(t.Context())
	if told != 1 {
		t.Errorf("told %d times that the port is another's", told)
	}
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}
	r.inspect(t.Context())
	want := func(healthz, livez int, eligible string) {
		t.Helper()
		code, body := ask(t, "http://"+at+"/healthz")
		if code != healthz || !strings.HasSuffix(body, `, "nodeEligible": `+eligible+"}") || !strings.HasPrefix(body, `{"lastUpdated": "`) {
			t.Errorf("/healthz: %d %s, want %d %s", code, body, healthz, eligible)
		}
		if code, body := ask(t, "http://"+at+"/livez"); code != livez {
			t.Errorf("/livez: %d %s, want %d", code, body, livez)
		}
	}
	want(200, 200, "true")
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}, Spec: v1.NodeSpec{Taints: []v1.Taint{{Key: toBeDeleted, Effect: v1.TaintEffectNoSchedule}}}}
	r.set(node)
	want(503, 200, "false")
	node = &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}
	r.set(node)
	kernel.Fail = errors.New("no")
	r.set(service("web", "10.96.0.1"), slice("web", "web-1", ep("10.244.1.2")))
	if err := r.Sync(); err == nil {
		t.Fatal("the error is not told")
	}
	want(200, 200, "true")
	clock.Step(late)
	want(503, 503, "true")
	kernel.Fail = nil
	r.sync()
	want(200, 200, "true")
	node = node.DeepCopy()
	node.DeletionTimestamp = &metav1.Time{Time: clock.Now()}
	r.set(node)
	want(503, 200, "false")
}
