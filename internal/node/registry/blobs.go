package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// uploadLife is how long an upload may lie before it is deleted.
const uploadLife = 24 * time.Hour

// Names, tags, digests and uploads, as the distribution specification has them
// (https://github.com/opencontainers/distribution-spec/blob/main/spec.md).
var (
	namePattern   = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	digestPattern = regexp.MustCompile(`^sha256:[a-f0-9]{64}$`)
	uploadPattern = regexp.MustCompile(`^[a-f0-9]{32}$`)
)

// maxName bounds the name of a repository, in bytes, as clients do.
const maxName = 255

// problem is an error of the distribution specification.
type problem struct {
	status        int
	code, message string
}

func (p *problem) Error() string { return p.code + ": " + p.message }

var (
	blobUnknown   = &problem{http.StatusNotFound, "BLOB_UNKNOWN", "the blob is not known to the registry"}
	uploadUnknown = &problem{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "the upload is not known to the registry"}
	unsupported   = &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported"}
)

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	var p *problem
	if !errors.As(err, &p) {
		klog.Background().Error(err, "The registry cannot keep what it gets")
		p = &problem{http.StatusInternalServerError, "UNKNOWN", err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.status)
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	_ = json.NewEncoder(w).Encode(map[string][]item{"errors": {{p.code, p.message}}}) // the client may have gone
}

// blobs keeps blobs and uploads in files. An upload is a file from its first byte, so that
// images of any size take no memory.
type blobs struct {
	dir, uploads string

	mu sync.Mutex
	// busy are the uploads that a request writes, and whole the blobs that have been found to
	// have their digest, since a loss of power may tear a file.
	busy, whole map[string]bool
}

func newBlobs(dir string) (*blobs, error) {
	b := &blobs{dir: filepath.Join(dir, "blobs"), uploads: filepath.Join(dir, "uploads"), busy: map[string]bool{}, whole: map[string]bool{}}
	// No client goes on with an upload to a former process.
	if err := os.RemoveAll(b.uploads); err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(b.dir, "upload-*")) // of a former version
	if err != nil {
		return nil, err
	}
	for _, f := range left {
		if err := os.Remove(f); err != nil {
			return nil, err
		}
	}
	return b, errors.Join(os.MkdirAll(b.uploads, 0o700), os.MkdirAll(filepath.Join(b.dir, "sha256"), 0o700))
}

func (b *blobs) file(digest string) string {
	return filepath.Join(b.dir, "sha256", strings.TrimPrefix(digest, "sha256:"))
}

// serve answers a request for /v2/<name>/blobs/<target>, or uploads/<target> below that.
func (b *blobs) serve(w http.ResponseWriter, req *http.Request, name, target string) error {
	if target == "uploads" || target == "uploads/" {
		if req.Method != http.MethodPost {
			return unsupported
		}
		return b.begin(w, req, name)
	}
	if id, is := strings.CutPrefix(target, "uploads/"); is {
		return b.upload(w, req, name, id)
	}
	if !digestPattern.MatchString(target) {
		return &problem{http.StatusBadRequest, "DIGEST_INVALID", "the digest is none of sha256"}
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		return b.get(w, req, target)
	case http.MethodDelete:
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.whole, target)
		if err := os.Remove(b.file(target)); errors.Is(err, fs.ErrNotExist) {
			return blobUnknown
		} else if err != nil {
			return err
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	return unsupported
}

// open opens a blob that has its digest.
func (b *blobs) open(digest string) (*os.File, error) {
	f, err := os.Open(b.file(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, blobUnknown
	}
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	whole := b.whole[digest]
	b.mu.Unlock()
	if whole {
		return f, nil
	}
	sum, err := sumOf(f)
	if err != nil || sum != digest {
		f.Close()
		if err == nil {
			err = blobUnknown // it is to be pushed again
		}
		return nil, err
	}
	b.mu.Lock()
	b.whole[digest] = true
	b.mu.Unlock()
	return f, nil
}

// sumOf returns the digest of a file's content.
func sumOf(f *os.File) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<63-1))
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), err
}

func (b *blobs) get(w http.ResponseWriter, req *http.Request, digest string) error {
	f, err := b.open(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("ETag", `"`+digest+`"`)
	http.ServeContent(w, req, "", time.Time{}, f)
	return nil
}

// begin begins an upload, or takes a whole blob, or one that is here already.
func (b *blobs) begin(w http.ResponseWriter, req *http.Request, name string) error {
	q := req.URL.Query()
	if mount := q.Get("mount"); digestPattern.MatchString(mount) {
		if f, err := b.open(mount); err == nil {
			f.Close()
			created(w, name, mount)
			return nil
		}
	}
	b.expire()
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	text := hex.EncodeToString(id)
	f, err := os.OpenFile(filepath.Join(b.uploads, text), os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if q.Has("digest") {
		err := b.upload(w, req, name, text)
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(f.Name()))) // nobody knows its name
		}
		return err
	}
	told(w, name, text, 0)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// expire deletes uploads that lie.
func (b *blobs) expire() {
	all, err := os.ReadDir(b.uploads)
	if err != nil {
		return
	}
	for _, e := range all {
		if i, err := e.Info(); err == nil && time.Since(i.ModTime()) > uploadLife && b.take(e.Name()) {
			_ = os.Remove(filepath.Join(b.uploads, e.Name())) // tried again
			b.release(e.Name())
		}
	}
}

// take has one request at a time write an upload.
func (b *blobs) take(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy[id] {
		return false
	}
	b.busy[id] = true
	return true
}

func (b *blobs) release(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.busy, id)
}

// told tells where an upload goes on.
func told(w http.ResponseWriter, name, id string, size int64) {
	w.Header().Set("Location", "/v2/"+name+"/blobs/uploads/"+id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
	w.Header().Set("Docker-Upload-UUID", id)
}

func created(w http.ResponseWriter, name, digest string) {
	w.Header().Set("Location", "/v2/"+name+"/blobs/"+digest)
	w.Header().Set("Docker-Content-Digest", digest)
	w.WriteHeader(http.StatusCreated)
}

// upload tells how far an upload is, goes on with it, ends it or gives it up. A POST with a
// digest is all of it.
func (b *blobs) upload(w http.ResponseWriter, req *http.Request, name, id string) error {
	if !uploadPattern.MatchString(id) {
		return uploadUnknown
	}
	if !b.take(id) {
		return &problem{http.StatusConflict, "BLOB_UPLOAD_INVALID", "another request writes the upload"}
	}
	defer b.release(id)
	f, err := os.OpenFile(filepath.Join(b.uploads, id), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return uploadUnknown
	}
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		told(w, name, id, size)
		w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodDelete:
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodPatch:
		if size, err = chunk(f, size, req); err != nil {
			told(w, name, id, size)
			return err
		}
		told(w, name, id, size)
		w.WriteHeader(http.StatusAccepted)
		return nil
	case http.MethodPut, http.MethodPost:
		digest := req.URL.Query().Get("digest")
		if !digestPattern.MatchString(digest) {
			return &problem{http.StatusBadRequest, "DIGEST_INVALID", "the digest is none of sha256"}
		}
		if _, err := chunk(f, size, req); err != nil {
			return err
		}
		return b.end(w, f, name, digest)
	}
	return unsupported
}

// chunk appends a request's body to an upload, which has size bytes, and returns the size
// after it. A chunk that is not what the request says leaves the upload as it was.
func chunk(f *os.File, size int64, req *http.Request) (int64, error) {
	first, last := size, int64(-1)
	if text := req.Header.Get("Content-Range"); text != "" {
		if _, err := fmt.Sscanf(strings.TrimPrefix(text, "bytes "), "%d-%d", &first, &last); err != nil || last < first-1 {
			return size, &problem{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the Content-Range is not first-last"}
		}
		if first != size {
			return size, &problem{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", fmt.Sprintf("the chunk begins at %d, and the upload has %d bytes", first, size)}
		}
	}
	n, err := io.Copy(f, req.Body)
	switch {
	case err != nil:
		err = &problem{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", fmt.Sprintf("reading or keeping the chunk: %v", err)}
	case last >= 0 && n != last-first+1:
		err = &problem{http.StatusBadRequest, "SIZE_INVALID", fmt.Sprintf("the chunk has %d bytes, and its Content-Range %d", n, last-first+1)}
	default:
		return size + n, nil
	}
	return size, errors.Join(err, f.Truncate(size))
}

// end makes a blob of an upload that has its digest; of another nothing is left.
func (b *blobs) end(w http.ResponseWriter, f *os.File, name, digest string) error {
	sum, err := sumOf(f)
	if err != nil {
		return err
	}
	if sum != digest {
		return errors.Join(&problem{http.StatusBadRequest, "DIGEST_INVALID", "the content has the digest " + sum}, os.Remove(f.Name()))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), b.file(digest)); err != nil {
		return err
	}
	b.mu.Lock()
	b.whole[digest] = true
	b.mu.Unlock()
	created(w, name, digest)
	return nil
}
