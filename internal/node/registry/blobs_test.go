package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"keelson.dev/keelson/internal/node/statefile"
)

// client sends requests to a registry.
type client struct {
	*testing.T
	r   *Registry
	dir string
}

func newClient(t *testing.T) *client {
	t.Helper()
	dir := t.TempDir()
	r, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t, r, dir}
}

// do sends a request; headers are name and value in turn.
func (c *client) do(method, path string, body io.Reader, headers ...string) *http.Response {
	c.Helper()
	req := httptest.NewRequest(method, path, body)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.r.ServeHTTP(w, req)
	return w.Result()
}

// want checks the status of a response, and the code of its error.
func (c *client) want(what string, resp *http.Response, status int, code string) *http.Response {
	c.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	var e struct {
		Errors []struct{ Code, Message string }
	}
	got := ""
	if resp.StatusCode >= 400 {
		if err := json.Unmarshal(b, &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Message == "" {
			c.Errorf("%s: the error is %q", what, b)
		} else {
			got = e.Errors[0].Code
		}
	}
	if resp.StatusCode != status || got != code {
		c.Errorf("%s: %d %s, want %d %s: %s", what, resp.StatusCode, got, status, code, b)
	}
	return resp
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// begin begins an upload and returns its path.
func (c *client) begin(repository string) string {
	c.Helper()
	return c.want("an upload", c.do(http.MethodPost, "/v2/"+repository+"/blobs/uploads/", nil), http.StatusAccepted, "").Header.Get("Location")
}

func TestUploads(t *testing.T) {
	c := newClient(t)
	content := []byte("0123456789")
	digest := digestOf(content)
	blob := "/v2/a/blobs/" + digest
	at := c.begin("a")
	patch := func(what, part, span string, status int, code, reached string) {
		t.Helper()
		resp := c.want(what, c.do(http.MethodPatch, at, strings.NewReader(part), "Content-Range", span), status, code)
		if got := resp.Header.Get("Range"); got != reached {
			t.Errorf("%s: it has %s, want %s", what, got, reached)
		}
	}
	patch("the first chunk", "0123", "0-3", http.StatusAccepted, "", "0-3")
	patch("a chunk out of order", "89", "8-9", http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "0-3")
	patch("a chunk of another size", "45", "4-9", http.StatusBadRequest, "SIZE_INVALID", "0-3")
	patch("a range that is none", "45", "x", http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "0-3")
	patch("the second chunk", "45", "4-5", http.StatusAccepted, "", "0-5")
	patch("the rest of a stream", "67", "", http.StatusAccepted, "", "0-7")
	if got := c.want("its state", c.do(http.MethodGet, at, nil), http.StatusNoContent, "").Header.Get("Range"); got != "0-7" {
		t.Errorf("the upload has %s", got)
	}
	c.want("no digest", c.do(http.MethodPut, at, nil), http.StatusBadRequest, "DIGEST_INVALID")
	c.want("the blob before its end", c.do(http.MethodHead, blob, nil), http.StatusNotFound, "BLOB_UNKNOWN")
	c.want("the end", c.do(http.MethodPut, at+"?digest="+digest, strings.NewReader("89")), http.StatusCreated, "")
	c.want("after the end", c.do(http.MethodPut, at+"?digest="+digest, nil), http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
	c.want("an upload outside of the folder", c.do(http.MethodPatch, "/v2/a/blobs/uploads/../../x", strings.NewReader("x")), http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
	for span, want := range map[string]string{"": "0123456789", "bytes=2-3": "23", "bytes=7-": "789", "bytes=-2": "89"} {
		resp := c.do(http.MethodGet, blob, nil, "Range", span)
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != want || resp.Header.Get("Docker-Content-Digest") != digest {
			t.Errorf("range %q: %q %v, want %q", span, b, err, want)
		}
	}

	c.want("a mount", c.do(http.MethodPost, "/v2/b/blobs/uploads/?from=a&mount="+digest, nil), http.StatusCreated, "")
	c.want("a mount of nothing", c.do(http.MethodPost, "/v2/b/blobs/uploads/?from=a&mount="+digestOf(nil), nil), http.StatusAccepted, "")
	c.want("all in one", c.do(http.MethodPost, "/v2/b/blobs/uploads/?digest="+digestOf([]byte("x")), strings.NewReader("x")), http.StatusCreated, "")
	c.want("another digest", c.do(http.MethodPost, "/v2/b/blobs/uploads/?digest="+digest, strings.NewReader("x")), http.StatusBadRequest, "DIGEST_INVALID")
	at = c.begin("a")
	c.want("another digest at the end", c.do(http.MethodPut, at+"?digest="+digest, strings.NewReader("x")), http.StatusBadRequest, "DIGEST_INVALID")
	c.want("after another digest", c.do(http.MethodGet, at, nil), http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
	at = c.begin("a")
	c.want("giving up", c.do(http.MethodDelete, at, nil), http.StatusNoContent, "")
	c.want("a blob that is deleted", c.do(http.MethodDelete, blob, nil), http.StatusAccepted, "")
	c.want("a blob that was deleted", c.do(http.MethodDelete, blob, nil), http.StatusNotFound, "BLOB_UNKNOWN")
	c.want("a blob that is gone", c.do(http.MethodGet, blob, nil), http.StatusNotFound, "BLOB_UNKNOWN")
	c.want("a digest that is none", c.do(http.MethodGet, "/v2/a/blobs/sha256:0", nil), http.StatusBadRequest, "DIGEST_INVALID")
	c.want("another method", c.do(http.MethodPut, blob, nil), http.StatusMethodNotAllowed, "UNSUPPORTED")

	// What nobody goes on with is deleted by the next upload, and at the next start.
	old := filepath.Join(c.dir, "uploads", filepath.Base(c.begin("a")))
	long := time.Now().Add(-2 * uploadLife)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(c.dir, "uploads", filepath.Base(c.begin("a")))
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("an old upload: %v", err)
	}
	if _, err := New(c.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); !os.IsNotExist(err) {
		t.Errorf("an upload of the former process: %v", err)
	}
}

// TestTorn checks that a blob which a loss of power has torn counts as none.
func TestTorn(t *testing.T) {
	c := newClient(t)
	digest := digestOf([]byte("content"))
	file := filepath.Join(c.dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
	if err := os.WriteFile(file, []byte("con"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.want("a torn blob", c.do(http.MethodGet, "/v2/a/blobs/"+digest, nil), http.StatusNotFound, "BLOB_UNKNOWN")
	c.want("the blob again", c.do(http.MethodPost, "/v2/a/blobs/uploads/?digest="+digest, strings.NewReader("content")), http.StatusCreated, "")
	c.want("the blob", c.do(http.MethodGet, "/v2/a/blobs/"+digest, nil), http.StatusOK, "")
}

// zeros is an endless reader that counts what is read.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestMemory checks that a large upload takes no memory of its size.
func TestMemory(t *testing.T) {
	c := newClient(t)
	const size, part = 64 << 20, 16 << 20
	h := sha256.New()
	if _, err := io.CopyN(h, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	at := c.begin("a")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range size / part {
		c.want("a chunk", c.do(http.MethodPatch, at, io.LimitReader(zeros{}, part), "Content-Range", fmt.Sprintf("%d-%d", i*part, (i+1)*part-1)), http.StatusAccepted, "")
	}
	c.want("the end", c.do(http.MethodPut, at+"?digest=sha256:"+hex.EncodeToString(h.Sum(nil)), nil), http.StatusCreated, "")
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 {
		t.Errorf("%d bytes were allocated for an upload of %d", got, size)
	}
}

// TestNames pushes to and pulls from repositories with long names, which are still there
// after a restart, as are those that a former version has kept.
func TestNames(t *testing.T) {
	c := newClient(t)
	long := strings.Repeat("a23456789/", 25) + "12345" // 255
	tag := strings.Repeat("t", 128)
	body := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`)
	put := func(path string, b []byte) *http.Response {
		return c.do(http.MethodPut, path, bytes.NewReader(b), "Content-Type", "application/vnd.oci.image.manifest.v1+json")
	}
	path := "/v2/" + long + "/manifests/" + tag
	c.want("a long name", put(path, body), http.StatusCreated, "")
	for what, x := range map[string]struct {
		path, code string
		status     int
	}{
		"a name that is too long":     {"/v2/" + long + "a/manifests/x", "NAME_INVALID", http.StatusBadRequest},
		"a blob of such a name":       {"/v2/" + long + "a/blobs/" + digestOf(nil), "NAME_INVALID", http.StatusBadRequest},
		"a name in capitals":          {"/v2/A/manifests/x", "NAME_INVALID", http.StatusBadRequest},
		"a tag that is too long":      {"/v2/a/manifests/" + tag + "t", "MANIFEST_INVALID", http.StatusBadRequest},
		"the digest of another":       {"/v2/a/manifests/" + digestOf(nil), "DIGEST_INVALID", http.StatusBadRequest},
		"a manifest that is too long": {"/v2/a/manifests/large", "SIZE_INVALID", http.StatusRequestEntityTooLarge},
	} {
		b := body
		if x.status == http.StatusRequestEntityTooLarge {
			b = make([]byte, maxManifest+1)
		}
		c.want(what, put(x.path, b), x.status, x.code)
	}
	c.want("a manifest that is not there", c.do(http.MethodGet, "/v2/a/manifests/x", nil), http.StatusNotFound, "NAME_UNKNOWN")

	const old = "/v2/old/manifests/1"
	if err := statefile.Write(filepath.Join(c.dir, "manifests", "L3YyL29sZC9tYW5pZmVzdHMvMQ"), &manifest{old, "application/vnd.oci.image.manifest.v1+json", body}); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.r, err = New(c.dir); err != nil {
		t.Fatal(err)
	}
	c.want("a long name after a restart", c.do(http.MethodGet, path, nil), http.StatusOK, "")
	c.want("an image of a former version", c.do(http.MethodGet, old, nil), http.StatusOK, "")
	c.want("its end", c.do(http.MethodDelete, old, nil), http.StatusAccepted, "")
	if c.r, err = New(c.dir); err != nil {
		t.Fatal(err)
	}
	c.want("the image that was deleted", c.do(http.MethodGet, old, nil), http.StatusNotFound, "NAME_UNKNOWN")

	// As a client of the field does it.
	s := httptest.NewServer(c.r)
	defer s.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/" + strings.Repeat("a23456789/", 20) + "web:1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(1<<20, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := image.Digest()
	if d, err := got.Digest(); err != nil || d != want {
		t.Errorf("digest %v %v, want %v", d, err, want)
	}
}
