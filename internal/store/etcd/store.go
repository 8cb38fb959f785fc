package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/memory"
)

// root is the prefix of the store's keys, and by default of those in etcd.
const root = "/registry"

// Options of a store.
type Options struct {
	// Servers are the URLs of etcd's members.
	Servers []string
	// CAFile verifies the members; CertFile and KeyFile are this client's
	// certificate. All may be empty.
	CAFile, CertFile, KeyFile string
	// Prefix stands in etcd where the store's keys have /registry, its default.
	Prefix string
	Codec  store.Codec
	// Indexers are kept up to date for List and Watch.
	Indexers []store.Indexer
	Clock    clock.WithTicker
	// HistoryLimit and HistoryAge are those of the state in memory.
	HistoryLimit int
	HistoryAge   time.Duration
	// CompactionInterval is how often one of the servers compacts etcd to the
	// revision of the time before (default 5 minutes); below zero is never.
	CompactionInterval time.Duration
	// OpenTimeout is how long etcd may take to answer at the start (default 20
	// seconds).
	OpenTimeout time.Duration
	// Observed, if set, is told of each change with a note that another server makes after
	// Open, before it is shown; and Posted of what another server posts. Neither may block.
	Observed func(*store.Event)
	Posted   func(message []byte)
}

// Store implements store.Store.
type Store struct {
	// State follows etcd. Only follow changes it.
	*memory.State
	opts   Options
	client *clientv3.Client
	// instance begins this server's notes and messages.
	instance string
	since    int64 // the revision at its start
	fence    fence
	leases   leases
	writes   writes

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// requestTimeout is how long etcd may take for a request.
const requestTimeout = 10 * time.Second

// Open connects to etcd and reads what it has.
func Open(opts Options) (*Store, error) {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.CompactionInterval == 0 {
		opts.CompactionInterval = 5 * time.Minute
	}
	if opts.OpenTimeout == 0 {
		opts.OpenTimeout = 20 * time.Second
	}
	opts.Prefix = "/" + strings.Trim(opts.Prefix, "/")
	if opts.Prefix == "/" {
		opts.Prefix = root
	}
	config, err := opts.tls()
	if err != nil {
		return nil, fmt.Errorf("etcd's certificates: %w: check --etcd-cafile, --etcd-certfile and --etcd-keyfile", err)
	}
	s := &Store{opts: opts, instance: newInstance(), State: memory.New(memory.Options{
		Indexers: opts.Indexers, Clock: opts.Clock, HistoryLimit: opts.HistoryLimit, HistoryAge: opts.HistoryAge,
	})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.fence.ask, s.leases.store = s.revision, s
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints: opts.Servers, TLS: config, Context: s.ctx, Logger: zap.NewNop(),
		DialTimeout: opts.OpenTimeout, DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second,
	})
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("etcd at %s: %w: check --etcd-servers", strings.Join(opts.Servers, ", "), err)
	}
	if err := s.begin(); err != nil {
		_ = s.Close()
		return nil, err
	}
	if opts.CompactionInterval > 0 {
		s.wg.Go(s.compact)
	}
	return s, nil
}

func (o *Options) tls() (*tls.Config, error) {
	info := transport.TLSInfo{TrustedCAFile: o.CAFile, CertFile: o.CertFile, KeyFile: o.KeyFile}
	if info.Empty() && info.TrustedCAFile == "" {
		for _, s := range o.Servers {
			if strings.HasPrefix(s, "https://") {
				return &tls.Config{MinVersion: tls.VersionTLS12}, nil
			}
		}
		return nil, nil
	}
	return info.ClientConfig()
}

// begin reads the state and follows it, and returns when it is up to date.
func (s *Store) begin() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.OpenTimeout)
	current, err := s.load(ctx)
	cancel()
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v (%w): start etcd, or correct --etcd-servers", s.opts.OpenTimeout, err)
		}
		return fmt.Errorf("etcd at %s: %w", strings.Join(s.opts.Servers, ", "), err)
	}
	s.since = current
	s.wg.Go(s.follow)
	ctx, cancel = context.WithTimeout(s.ctx, s.opts.OpenTimeout)
	defer cancel()
	if err := s.Reach(ctx, current); err != nil {
		return fmt.Errorf("etcd at %s: no changes came within %v: is a majority of its members running? %w",
			strings.Join(s.opts.Servers, ", "), s.opts.OpenTimeout, err)
	}
	return nil
}

// place returns where etcd has the store's key.
func (s *Store) place(key string) string { return s.opts.Prefix + strings.TrimPrefix(key, root) }

// keyAt returns the store's key at a place in etcd; false where it is not the store's.
func (s *Store) keyAt(place []byte) (string, bool) {
	rest, ok := strings.CutPrefix(string(place), s.opts.Prefix+"/")
	return root + "/" + rest, ok
}

// explain names etcd in its errors; those of a closed store are ErrClosed.
func (s *Store) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case s.ctx.Err() != nil:
		return store.ErrClosed
	}
	return fmt.Errorf("etcd: %w", err)
}

// Err is nil if etcd answers, else its error.
func (s *Store) Err() error {
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	_, err := s.fence.revision(ctx)
	return s.explain(err)
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.cancel()
	s.wg.Wait()
	if !s.State.Close() {
		return nil
	}
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
