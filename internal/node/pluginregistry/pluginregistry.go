// Package pluginregistry finds the plug-ins of a node, CSI drivers and others, by the
// sockets that they make in its plugins_registry folder
// (https://github.com/kubernetes/kubelet/blob/master/pkg/apis/pluginregistration/v1/api.proto).
package pluginregistry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/clock"
)

// Handler takes the plug-ins of one type.
type Handler interface {
	// Register makes a plug-in known, whose socket is endpoint. The plug-in gets the
	// error as the answer to its registration.
	Register(ctx context.Context, name, endpoint string, versions []string) error
	// Deregister forgets it: its registration socket is gone.
	Deregister(name string)
}

// Registry watches a folder.
type Registry struct {
	// Dir is the folder; it is made.
	Dir string
	// Handlers are by the plug-ins' type, for example registration.CSIPlugin.
	Handlers map[string]Handler
	Clock    clock.WithTicker

	mu    sync.Mutex
	known map[string]*plugin // by socket
}

// plugin is a socket in the folder.
type plugin struct {
	modified   time.Time
	kind, name string // of what has registered
	registered bool
	retry      time.Time
	pause      time.Duration
}

const (
	callTimeout = 10 * time.Second
	firstPause  = 500 * time.Millisecond
	lastPause   = 2*time.Minute + 2*time.Second
)

// Run registers plug-ins until ctx is done.
func (r *Registry) Run(ctx context.Context) error {
	if err := os.MkdirAll(r.Dir, 0o750); err != nil {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(r.Dir); err != nil {
		return err
	}
	r.known = map[string]*plugin{}
	for {
		var again <-chan time.Time
		if next := r.sync(ctx); next > 0 {
			again = r.Clock.After(next)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.Errors:
			klog.FromContext(ctx).Error(err, "Watching the plug-ins' folder", "dir", r.Dir)
		case _, ok := <-w.Events:
			if !ok {
				return errors.New("the watch of " + r.Dir + " ended")
			}
		case <-again:
		}
	}
}

// sync compares the sockets with what has registered, and returns when it is to be
// called again, 0 if not before something changes. A socket that was made anew is
// another plug-in's, or a restarted one's, and registers again.
func (r *Registry) sync(ctx context.Context) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := klog.FromContext(ctx)
	sockets := map[string]time.Time{}
	err := filepath.WalkDir(r.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it went meanwhile
		}
		if path != r.Dir && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type()&fs.ModeSocket != 0 {
			if info, err := d.Info(); err == nil {
				sockets[path] = info.ModTime()
			}
		}
		return nil
	})
	if err != nil {
		log.Error(err, "Reading the plug-ins' folder", "dir", r.Dir)
	}
	for path, p := range r.known {
		if modified, ok := sockets[path]; !ok || !modified.Equal(p.modified) {
			if p.registered && !r.takenOver(path, p) {
				r.Handlers[p.kind].Deregister(p.name)
			}
			delete(r.known, path)
		}
	}
	now := r.Clock.Now()
	next := time.Duration(0)
	for path, modified := range sockets {
		p := r.known[path]
		if p == nil {
			p = &plugin{modified: modified}
			r.known[path] = p
		}
		if p.registered {
			continue
		}
		if !now.Before(p.retry) {
			if err := r.register(ctx, path, p); err != nil {
				log.Info("Registering a plug-in failed", "socket", path, "err", err)
				p.pause = min(max(2*p.pause, firstPause), lastPause)
				p.retry = now.Add(p.pause)
			}
		}
		if left := p.retry.Sub(now); !p.registered && (next == 0 || left < next) {
			next = max(left, firstPause)
		}
	}
	return next
}

// takenOver reports whether another socket has registered the same plug-in.
func (r *Registry) takenOver(path string, p *plugin) bool {
	for other, q := range r.known {
		if other != path && q.registered && q.kind == p.kind && q.name == p.name {
			return true
		}
	}
	return false
}

func (r *Registry) register(ctx context.Context, path string, p *plugin) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := registration.NewRegistrationClient(conn)
	info, err := client.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return fmt.Errorf("failed to get plugin info using RPC GetInfo at socket %s: %w", path, err)
	}
	h := r.Handlers[info.Type]
	if h == nil {
		err = fmt.Errorf("no handler registered for plugin type: %s at socket %s", info.Type, path)
	} else {
		endpoint := info.Endpoint
		if endpoint == "" {
			endpoint = path
		}
		err = h.Register(ctx, info.Name, endpoint, info.SupportedVersions)
	}
	answer := &registration.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		answer.Error = err.Error()
	}
	if _, told := client.NotifyRegistrationStatus(ctx, answer); told != nil {
		klog.FromContext(ctx).Info("Telling a plug-in of its registration failed", "socket", path, "err", told)
	}
	if err == nil {
		p.registered, p.kind, p.name = true, info.Type, info.Name
	}
	return err
}
