// Package snapshot writes and reads the whole content of a store at one revision: a
// stream that is compressed, and ends in a checksum of all before. It may import package
// store.
package snapshot

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"keelson.dev/keelson/internal/store"
)

// magic begins every snapshot.
const magic = "keelson snapshot 1\n"

// maxPart bounds a part of a snapshot in bytes: an object is smaller.
const maxPart = 64 << 20

// Header describes a snapshot.
type Header struct {
	Revision int64     `json:"revision"`
	Time     time.Time `json:"time"`
	// Version is the one of Kubernetes that the server had.
	Version string `json:"version"`
	Objects int    `json:"objects"`
	// Sealed reports whether the objects are as they are stored, encrypted where the
	// server encrypts them at rest. Else they can be read without its keys.
	Sealed bool `json:"sealed,omitempty"`
}

// Record is one object.
type Record struct {
	Key         string
	Create, Mod int64
	Expiry      time.Time // zero is never
	Value       []byte    // of store.Codec
}

// writer writes parts, each with its length before it, and keeps their checksum.
type writer struct {
	w   *bufio.Writer
	sum hash.Hash
	buf []byte
}

func (w *writer) part(b []byte) error {
	w.buf = binary.AppendUvarint(w.buf[:0], uint64(len(b)))
	for _, p := range [][]byte{w.buf, b} {
		if _, err := w.w.Write(p); err != nil {
			return err
		}
		w.sum.Write(p)
	}
	return nil
}

// Write writes the entries of a store at a revision, which h describes. The codec makes
// their bytes, sealed if h says so.
func Write(to io.Writer, h Header, entries []*store.Entry, expiry func(*store.Entry) time.Time, codec store.Codec) error {
	if _, err := io.WriteString(to, magic); err != nil {
		return err
	}
	z, err := zstd.NewWriter(to, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	w := &writer{w: bufio.NewWriter(z), sum: sha256.New()}
	h.Objects = len(entries)
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := w.part(head); err != nil {
		return err
	}
	var b []byte
	for _, e := range entries {
		value, err := codec.Encode(e.Object())
		if err == nil && h.Sealed {
			value, _, err = codec.Seal(e.Key, value)
		}
		if err != nil {
			return fmt.Errorf("encoding the object at %s: %w", e.Key, err)
		}
		b = binary.AppendVarint(binary.AppendVarint(b[:0], e.CreateRevision), e.ModRevision)
		at := int64(0)
		if x := expiry(e); !x.IsZero() {
			at = x.UnixNano()
		}
		b = binary.AppendVarint(b, at)
		b = append(binary.AppendUvarint(b, uint64(len(e.Key))), e.Key...)
		if err := w.part(append(b, value...)); err != nil {
			return err
		}
	}
	if err := w.part(nil); err != nil { // the end
		return err
	}
	if _, err := w.w.Write(w.sum.Sum(nil)); err != nil {
		return err
	}
	if err := w.w.Flush(); err != nil {
		return err
	}
	return z.Close()
}

// errDamaged is wrapped by the errors of Read about a stream that Write did not write.
var errDamaged = errors.New("the snapshot is damaged or cut off")

// Read calls f with each record of a snapshot, in order of keys; its Value is valid
// during the call. Only where it returns nil has the whole snapshot been read, and
// agrees with its checksum.
func Read(from io.Reader, f func(Record) error) (Header, error) {
	var h Header
	got := make([]byte, len(magic))
	if _, err := io.ReadFull(from, got); err != nil || string(got) != magic {
		return h, fmt.Errorf("this is no snapshot of a Keelson store: it does not begin with %q", magic)
	}
	z, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return h, err
	}
	defer z.Close()
	r, sum := bufio.NewReader(z), sha256.New()
	part := func() ([]byte, error) {
		n, err := binary.ReadUvarint(r)
		if err != nil || n > maxPart {
			return nil, errors.Join(errDamaged, err)
		}
		var b bytes.Buffer
		if _, err := io.CopyN(&b, r, int64(n)); err != nil {
			return nil, errors.Join(errDamaged, err)
		}
		sum.Write(binary.AppendUvarint(nil, n))
		sum.Write(b.Bytes())
		return b.Bytes(), nil
	}
	head, err := part()
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return h, errors.Join(errDamaged, err)
	}
	n := 0
	for {
		b, err := part()
		if err != nil {
			return h, err
		}
		if len(b) == 0 {
			break
		}
		rec, err := parse(b)
		if err != nil {
			return h, err
		}
		if err := f(rec); err != nil {
			return h, err
		}
		n++
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(r, want); err != nil {
		return h, errors.Join(errDamaged, err)
	}
	if !bytes.Equal(want, sum.Sum(nil)) || n != h.Objects {
		return h, fmt.Errorf("%w: its checksum is another", errDamaged)
	}
	return h, nil
}

// parse reads a record's part.
func parse(b []byte) (r Record, err error) {
	var expiry int64
	for _, p := range []*int64{&r.Create, &r.Mod, &expiry} {
		n, size := binary.Varint(b)
		if size <= 0 {
			return r, errDamaged
		}
		*p, b = n, b[size:]
	}
	if expiry != 0 {
		r.Expiry = time.Unix(0, expiry)
	}
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return r, errDamaged
	}
	r.Key, r.Value = string(b[size:size+int(n)]), b[size+int(n):]
	return r, nil
}
