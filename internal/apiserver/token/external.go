package token

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	signer "k8s.io/externaljwt/apis/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// callTime is how long the external signer may take to answer.
	callTime = 10 * time.Second
	// fetchPause is how often its keys are asked for at most because of keys that
	// are not known: anyone can name one.
	fetchPause = time.Second
	maxKeyID   = 1024
	minMaxLife = 600 // seconds
)

// external signs with keys that another process has (KEP-740), and checks with those
// that it says.
type external struct {
	client  signer.ExternalJWTSignerClient
	conn    *grpc.ClientConn
	clock   clock.PassiveClock
	maxLife time.Duration

	keys    atomic.Pointer[[]publicKey]
	refresh atomic.Int64 // seconds
	mu      sync.Mutex
	fetched time.Time
}

// newExternal connects to the signer at a Unix socket, and asks for its keys.
func newExternal(endpoint string, c clock.PassiveClock) (*external, error) {
	target := "unix:" + endpoint
	if name, ok := strings.CutPrefix(endpoint, "@"); ok {
		target = "unix-abstract:" + name
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("--service-account-signing-endpoint %s: %w", endpoint, err)
	}
	e := &external{client: signer.NewExternalJWTSignerClient(conn), conn: conn, clock: c}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	m, err := e.client.Metadata(ctx, &signer.MetadataRequest{}, grpc.WaitForReady(true))
	if err == nil {
		e.maxLife = time.Duration(m.MaxTokenExpirationSeconds) * time.Second
		if m.MaxTokenExpirationSeconds < minMaxLife {
			err = fmt.Errorf("max token life supported by external-jwt-signer (%ds) should be at least %ds", m.MaxTokenExpirationSeconds, minMaxLife)
		} else {
			err = e.fetch(ctx)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--service-account-signing-endpoint %s: %w", endpoint, err), conn.Close())
	}
	return e, nil
}

// fetch asks for the keys.
func (e *external) fetch(ctx context.Context) error {
	answer, err := e.client.FetchKeys(ctx, &signer.FetchKeysRequest{})
	if err != nil {
		return fmt.Errorf("while fetching token verification keys: %w", err)
	}
	if answer.RefreshHintSeconds <= 0 {
		return fmt.Errorf("found invalid refresh hint (%ds)", answer.RefreshHintSeconds)
	}
	if err := answer.DataTimestamp.CheckValid(); err != nil {
		return fmt.Errorf("found an invalid data timestamp: %w", err)
	}
	var keys []publicKey
	for _, k := range answer.Keys {
		if k.KeyId == "" || len(k.KeyId) > maxKeyID {
			return fmt.Errorf("found a key ID of %d bytes: want 1 to %d", len(k.KeyId), maxKeyID)
		}
		parsed, err := x509.ParsePKIXPublicKey(k.Key)
		if err != nil {
			return fmt.Errorf("key %q: %w", k.KeyId, err)
		}
		key, err := newPublicKey(parsed)
		if err != nil {
			return fmt.Errorf("key %q: %w", k.KeyId, err)
		}
		key.id, key.hidden = k.KeyId, k.ExcludeFromOidcDiscovery
		keys = append(keys, key)
	}
	e.keys.Store(&keys)
	e.refresh.Store(answer.RefreshHintSeconds)
	return nil
}

// look asks for the keys because of one that is not known.
func (e *external) look(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := e.clock.Now(); now.Sub(e.fetched) < fetchPause {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := e.fetch(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Asking the external signer for its keys")
	}
	e.fetched = e.clock.Now()
}

// run fetches the keys at the interval that the signer returns, until ctx is
// done.
func (e *external) run(ctx context.Context) {
	defer e.conn.Close()
	for {
		t := time.NewTimer(time.Duration(e.refresh.Load()) * time.Second)
		select {
		case <-t.C:
			e.look(ctx)
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func (e *external) known(id string) (publicKey, bool) {
	keys := *e.keys.Load()
	i := slices.IndexFunc(keys, func(k publicKey) bool { return k.id == id })
	if i < 0 {
		return publicKey{}, false
	}
	return keys[i], true
}

// sign asks the signer for a token of a payload. The answer is checked like a
// token from any client.
func (e *external) sign(ctx context.Context, payload []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	claims := base64.RawURLEncoding.EncodeToString(payload)
	answer, err := e.client.Sign(ctx, &signer.SignJWTRequest{Claims: claims})
	if err != nil {
		return "", fmt.Errorf("failed to sign jwt using external signer: %w", err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(answer.Header)
	if err != nil {
		return "", fmt.Errorf("external signer: the header is not URL-safe base64: %w", err)
	}
	var header struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&header); err != nil {
		return "", fmt.Errorf("external signer: the header: %w", err)
	}
	switch {
	case header.Type != "JWT":
		return "", fmt.Errorf("external signer: the header has typ %q: want \"JWT\"", header.Type)
	case header.KeyID == "" || len(header.KeyID) > maxKeyID:
		return "", fmt.Errorf("external signer: the header has a kid of %d bytes: want 1 to %d", len(header.KeyID), maxKeyID)
	case !slices.Contains(algorithms, jose.SignatureAlgorithm(header.Algorithm)):
		return "", fmt.Errorf("external signer: the header has alg %q: want one of %v", header.Algorithm, algorithms)
	}
	key, ok := e.known(header.KeyID)
	if !ok {
		e.look(ctx)
		if key, ok = e.known(header.KeyID); !ok {
			return "", fmt.Errorf("external signer: its keys do not have the one that it signs with, %q", header.KeyID)
		}
	}
	if key.hidden {
		return "", fmt.Errorf("key used for signing JWT (kid: %s) is excluded from OIDC discovery docs", header.KeyID)
	}
	token := answer.Header + "." + claims + "." + answer.Signature
	parsed, err := jose.ParseSigned(token, algorithms)
	if err == nil {
		_, err = parsed.Verify(key.key)
	}
	if err != nil {
		return "", fmt.Errorf("external signer: the signature is not of the key %q: %w", header.KeyID, err)
	}
	return token, nil
}
