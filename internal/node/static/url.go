package static

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// getTimeout bounds a request for manifests.
	getTimeout = 10 * time.Second
	// manifestMax is the greatest size, in bytes, of what a URL may answer.
	manifestMax = 10 << 20
	// failuresTold is how many failures one after another are told of.
	failuresTold = 3
)

// URL reads the manifests of static pods at a URL: a Pod, or a PodList.
type URL struct {
	URL    string
	Header http.Header
	// Node is the name of the node.
	Node  string
	Clock clock.WithTicker

	last []byte // what the URL answered last
}

// Run calls changed with all pods, when they have been read and each time that the URL answers with
// others, until ctx ends. As long as the URL cannot be read the pods stay as they are.
func (u *URL) Run(ctx context.Context, changed func([]*v1.Pod)) {
	log := klog.FromContext(ctx)
	client := &http.Client{Timeout: getTimeout}
	for failures := 0; ctx.Err() == nil; {
		pods, fresh, err := u.read(ctx, client)
		if fresh {
			changed(pods)
		}
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() != nil:
			return
		default:
			if failures++; failures <= failuresTold {
				log.Error(err, "Reading static pods from a URL failed", "url", u.URL)
			}
		}
		select {
		case <-ctx.Done():
		case <-u.Clock.After(Period):
		}
	}
}

// read returns the pods, and whether they may be others than before.
func (u *URL) read(ctx context.Context, client *http.Client) (pods []*v1.Pod, fresh bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.URL, nil)
	if err != nil {
		return nil, false, err
	}
	for name, values := range u.Header {
		req.Header[name] = values
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, false, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, manifestMax+1))
	switch {
	case err != nil:
		return nil, false, err
	case resp.StatusCode != http.StatusOK:
		return nil, false, fmt.Errorf("%s: %s", u.URL, resp.Status)
	case len(b) > manifestMax:
		return nil, false, fmt.Errorf("%s answers with more than %d bytes", u.URL, manifestMax)
	case len(b) == 0:
		u.last = nil
		return nil, true, fmt.Errorf("zero-length data received from %s", u.URL)
	case bytes.Equal(b, u.last):
		return nil, false, nil
	}
	u.last = b
	if pods, err = DecodeAll(b, Origin{URLSource, u.URL}, u.Node, u.Clock.Now()); err != nil {
		return nil, false, fmt.Errorf("a static pod's manifest is not right: %w", err)
	}
	names := map[string]bool{}
	for _, p := range pods {
		if names[p.Namespace+"/"+p.Name] {
			return nil, false, errors.New("two static pods have the name " + p.Namespace + "/" + p.Name)
		}
		names[p.Namespace+"/"+p.Name] = true
	}
	return pods, true, nil
}
