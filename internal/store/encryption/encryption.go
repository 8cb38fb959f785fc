// Package encryption encrypts objects at rest, as upstream's
// EncryptionConfiguration says: a codec around the engines' one. What it writes
// an upstream API server with the same configuration reads, and the reverse:
// https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/
package encryption

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"

	"keelson.dev/keelson/internal/reload"
	"keelson.dev/keelson/internal/store"
)

// Options of encryption.
type Options struct {
	// File is an EncryptionConfiguration of apiserver.config.k8s.io.
	File string
	// Reload reads it again when it changes.
	Reload bool
	// Resource returns the resource of the object at a key.
	Resource func(key string) schema.GroupResource
	// Server names this API server in metrics.
	Server string
}

// Codec is a store.Codec that encrypts.
type Codec struct {
	store.Codec
	Options
	state atomic.Pointer[state]
}

// state is one configuration.
type state struct {
	encryptionconfig.StaticTransformers
	checks []healthz.HealthChecker
	form   int64 // counts the configurations
	grace  time.Duration
	end    context.CancelFunc
}

// New encrypts what inner encodes. It works until ctx is done.
func New(ctx context.Context, inner store.Codec, o Options) (*Codec, error) {
	c := &Codec{Codec: inner, Options: o}
	apply := func([]byte) error {
		ctx, end := context.WithCancel(ctx)
		cfg, err := encryptionconfig.LoadEncryptionConfig(ctx, o.File, o.Reload, o.Server)
		if err != nil {
			end()
			return fmt.Errorf("--encryption-provider-config %s: %w", o.File, err)
		}
		next := &state{StaticTransformers: cfg.Transformers, checks: cfg.HealthChecks, form: 1, grace: cfg.KMSCloseGracePeriod, end: end}
		was := c.state.Load()
		if was != nil {
			next.form = was.form + 1
		}
		c.state.Store(next)
		if was != nil {
			// Reads and writes that have begun still need its plug-ins.
			time.AfterFunc(max(was.grace, 10*time.Second), was.end)
		}
		return nil
	}
	if o.Reload {
		return c, reload.File(ctx, o.File, apply)
	}
	return c, apply(nil)
}

// Form implements store.Codec.
func (c *Codec) Form(string) int64 { return c.state.Load().form }

// Seal implements store.Codec.
func (c *Codec) Seal(key string, plain []byte) ([]byte, int64, error) {
	s := c.state.Load()
	out, err := s.TransformerForResource(c.Resource(key)).TransformToStorage(context.Background(), plain, value.DefaultContext(key))
	if err != nil {
		return nil, 0, fmt.Errorf("encrypting: %w", err)
	}
	return out, s.form, nil
}

// stale is the form of what is to be written anew.
const stale = -1

// Open implements store.Codec.
func (c *Codec) Open(key string, data []byte) ([]byte, int64, error) {
	s := c.state.Load()
	plain, old, err := s.TransformerForResource(c.Resource(key)).TransformFromStorage(context.Background(), data, value.DefaultContext(key))
	if err != nil {
		return nil, 0, fmt.Errorf("decrypting, which needs the key that it was encrypted with among the providers of %s: %w", c.File, err)
	}
	form := s.form
	if old {
		form = stale
	}
	return plain, form, nil
}

const checkTimeout = 10 * time.Second

// Check is nil if the key management services that are needed are well.
func (c *Codec) Check() error {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/readyz", nil)
	if err != nil {
		return err
	}
	for _, h := range c.state.Load().checks {
		if err := h.Check(req); err != nil {
			return err
		}
	}
	return nil
}
