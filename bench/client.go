package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// client sends ready-made bodies over HTTP/2, so that little of the time is its own.
type client struct{ http *http.Client }

func newClient(cert *tls.Certificate) *client {
	c := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // servers of our own, on loopback
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return &client{&http.Client{Transport: &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true, MaxConnsPerHost: 8, DisableCompression: true}}}
}

// adminCertificate reads the client certificate of a kubeconfig.
func adminCertificate(path string) (tls.Certificate, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cfg.CertData, cfg.KeyData)
}

func (c *client) do(ctx context.Context, method, url, accept string, body []byte) (int, []byte, error) {
	resp, err := c.open(ctx, method, url, accept, body)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// drain is do without keeping the answer.
func (c *client) drain(ctx context.Context, method, url, accept string, body []byte) (int, int64, error) {
	resp, err := c.open(ctx, method, url, accept, body)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{resp.Body}, *buf)
	return resp.StatusCode, n, err
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

func (c *client) open(ctx context.Context, method, url, accept string, body []byte) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		if method == http.MethodPatch {
			req.Header.Set("Content-Type", "application/merge-patch+json")
		}
	}
	if accept == "" {
		accept = "application/json"
	}
	req.Header.Set("Accept", accept)
	return c.http.Do(req)
}

// must is do, with an answer of 2xx.
func (c *client) must(ctx context.Context, method, url, accept string, body []byte) ([]byte, error) {
	code, b, err := c.do(ctx, method, url, accept, body)
	if err == nil && (code < 200 || code > 299) {
		err = fmt.Errorf("%s %s: %d: %.300s", method, url, code, b)
	}
	return b, err
}

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "0"
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// rate makes the clients call f until the window is over, and returns the calls
// per second.
func rate(ctx context.Context, clients int, window time.Duration, f func(ctx context.Context, client, n int) error) (float64, error) {
	end := time.Now().Add(window)
	counts, errs := make([]int, clients), make([]error, clients)
	begin := time.Now()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for n := 0; time.Now().Before(end) && errs[c] == nil; n++ {
				if errs[c] = f(ctx, c, n); errs[c] == nil {
					counts[c]++
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for c := range clients {
		if errs[c] != nil {
			return 0, errs[c]
		}
		total += counts[c]
	}
	return float64(total) / time.Since(begin).Seconds(), nil
}

func indented(s string) string { return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ") }
