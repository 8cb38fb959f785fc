package prober

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	testclock "k8s.io/utils/clock/testing"
)

func TestOnce(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X") != "y" || !strings.HasPrefix(r.UserAgent(), "kube-probe/") {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	host, text, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	code := int32(0)
	target := Target{PodIP: host, Container: &v1.Container{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: int32(number)}}},
		Exec: func(context.Context, []string, time.Duration) (string, int32, error) { return "said", code, nil }}
	get := func(path string) v1.ProbeHandler {
		return v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), HTTPHeaders: []v1.HTTPHeader{{Name: "X", Value: "y"}}}}
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unused := closed.Addr().(*net.TCPAddr).Port
	closed.Close()
	for name, c := range map[string]struct {
		h    v1.ProbeHandler
		code int32
		want Result
		says string
	}{
		"http":       {get("/ok"), 0, Success, ""},
		"http fails": {get("/bad"), 0, Failure, "HTTP probe failed with statuscode: 500"},
		"tcp":        {v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(number)}}, 0, Success, ""},
		"tcp fails":  {v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(unused)}}, 0, Failure, "connection refused"},
		"exec":       {v1.ProbeHandler{Exec: &v1.ExecAction{}}, 0, Success, "said"},
		"exec fails": {v1.ProbeHandler{Exec: &v1.ExecAction{}}, 3, Failure, "said"},
	} {
		code = c.code
		r, out, err := Once(t.Context(), c.h, target, 5*time.Second)
		if err != nil || r != c.want || !strings.Contains(out, c.says) {
			t.Errorf("%s: %v, %q, %v", name, r, out, err)
		}
	}
}

// TestWatch counts results in a row against the thresholds.
func TestWatch(t *testing.T) {
	clk := testclock.NewFakeClock(time.Unix(0, 0))
	codes := []int32{1, 1, 0, 1, 1, 1, 0, 0}
	i := 0
	type told struct {
		r       Result
		decided bool
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reports := make(chan told)
	target := Target{Exec: func(context.Context, []string, time.Duration) (string, int32, error) {
		c := codes[i]
		i++
		return "", c, nil
	}}
	p := &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{}}, PeriodSeconds: 5, FailureThreshold: 3, SuccessThreshold: 2}
	go Watch(ctx, clk, p, target, clk.Now(), func(r Result, _ string, _ error, decided bool, _ time.Duration) { reports <- told{r, decided} })
	for n, want := range []told{{Failure, false}, {Failure, false}, {Success, false}, {Failure, false}, {Failure, false}, {Failure, true}, {Success, false}, {Success, true}} {
		if got := <-reports; got != want {
			t.Errorf("probe %d: %v, want %v", n, got, want)
		}
		if n < len(codes)-1 {
			clk.Step(5 * time.Second)
		}
	}
}
