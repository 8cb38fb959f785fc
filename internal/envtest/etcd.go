package envtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// folderPath is the path at which an etcd of this package gives its Folder.
const folderPath = "/keelson/folder"

// Folder is the place where an API server keeps objects instead of in an etcd.
type Folder struct {
	// Path of the folder.
	Path string `json:"path"`
	// NoSync reports whether what was written may be lost when the machine crashes.
	NoSync bool `json:"noSync"`
}

// Serve answers at the URLs as an etcd that is healthy, and gives f to callers
// of Find, until ctx is done.
func Serve(ctx context.Context, urls []string, f Folder) error {
	if err := os.MkdirAll(f.Path, 0o700); err != nil {
		return err
	}
	mux := http.NewServeMux()
	answer := func(path string, v any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	answer("/health", map[string]string{"health": "true", "reason": ""})
	answer(folderPath, f)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, len(urls))
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			return err
		}
		if u.Scheme != "http" {
			return fmt.Errorf("client URL %s: this etcd speaks http only: use one, or an etcd", raw)
		}
		l, err := net.Listen("tcp", u.Host)
		if err != nil {
			return err
		}
		go func() { failed <- s.Serve(l) }()
	}
	defer s.Close()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Find asks the servers which folder they stand for. It gives false where one is
// an etcd.
func Find(ctx context.Context, servers []string) (Folder, bool, error) {
	if len(servers) != 1 {
		return Folder{}, false, nil // an etcd of this package is alone
	}
	u, err := url.Parse(servers[0])
	if err != nil || u.Scheme != "http" {
		return Folder{}, false, nil //nolint:nilerr // the client of etcd says what is wrong with it
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath(folderPath).String(), nil)
	if err != nil {
		return Folder{}, false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Folder{}, false, fmt.Errorf("--etcd-servers: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Folder{}, false, nil
	}
	var f Folder
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<16)).Decode(&f); err != nil || f.Path == "" {
		return Folder{}, false, errors.Join(fmt.Errorf("--etcd-servers: %s did not say its folder", u), err)
	}
	return f, true, nil
}
