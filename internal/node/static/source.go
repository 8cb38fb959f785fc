package static

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Period is how often the folder is read where inotify is not available, the
// kubelet's fileCheckFrequency.
const Period = 20 * time.Second

// settle is how long the folder has to be quiet after a change: files are not
// written at once.
const settle = 50 * time.Millisecond

// Source reads the manifests of a folder, or one manifest.
type Source struct {
	// Path is the folder, or the file.
	Path string
	// Node is the name of the node.
	Node  string
	Clock clock.WithTicker

	first map[string]time.Time // when a pod was seen first, by UID
}

// Run delivers the pods, now and when they may have changed, until ctx ends.
func (s *Source) Run(ctx context.Context, changed func([]*v1.Pod)) {
	log := klog.FromContext(ctx)
	events := make(chan fsnotify.Event)
	if w, err := fsnotify.NewWatcher(); err != nil {
		log.Error(err, "Static pods: changes are noticed late", "period", Period)
	} else {
		defer w.Close()
		if err := w.Add(s.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Error(err, "Static pods: changes are noticed late", "period", Period)
		}
		events = w.Events
	}
	for ctx.Err() == nil {
		changed(s.Read(ctx))
		select {
		case <-ctx.Done():
			return
		case <-s.Clock.After(Period):
		case <-events:
			s.quiet(ctx, events)
		}
	}
}

// quiet returns when there has been no event for a moment.
func (s *Source) quiet(ctx context.Context, events <-chan fsnotify.Event) {
	for {
		select {
		case <-events:
		case <-s.Clock.After(settle):
			return
		case <-ctx.Done():
			return
		}
	}
}

// Read returns the pods of all manifests that can be read; the others are logged.
// Files whose names begin with a dot are passed over.
func (s *Source) Read(ctx context.Context) (pods []*v1.Pod) {
	log := klog.FromContext(ctx)
	files := []string{s.Path}
	if info, err := os.Stat(s.Path); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Error(err, "Reading static pods failed")
		}
		return nil
	} else if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(escape.Replace(s.Path), "[^.]*")); err != nil {
			log.Error(err, "Reading static pods failed")
			return nil
		}
	}
	first, names := map[string]time.Time{}, map[string]string{}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			log.Error(err, "Reading a static pod failed")
			continue
		}
		seen := s.Clock.Now()
		pod, err := Decode(b, Origin{FileSource, file}, s.Node, seen)
		if err != nil {
			log.Error(err, "A static pod's manifest is not right, and it does not run", "file", file)
			continue
		}
		if other, taken := names[pod.Namespace+"/"+pod.Name]; taken {
			log.Error(nil, "Two manifests have static pods of one name; the first one runs", "pod", klog.KObj(pod), "file", file, "first", other)
			continue
		}
		names[pod.Namespace+"/"+pod.Name] = file
		if at, ok := s.first[string(pod.UID)]; ok {
			seen = at
		}
		first[string(pod.UID)] = seen
		pod.Annotations[SeenAnnotation] = seen.Format(time.RFC3339Nano)
		pods = append(pods, pod)
	}
	s.first = first
	return pods
}

// escape makes a path a pattern of filepath.Glob that matches only it.
var escape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
