package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/storetest"
)

func entries(n int) []*store.Entry {
	var out []*store.Entry
	for i := range n {
		name := "p" + strconv.Itoa(1000+i)
		out = append(out, store.NewEntry(storetest.Key(name), int64(i+1), int64(2*i+1), store.Value{Object: storetest.Pod(name, "n")}))
	}
	return append(out, store.NewEntry("/registry/sea.example.com/boats/ns/x", 3, 4, store.Value{Object: storetest.Custom("x")}))
}

func write(t testing.TB, all []*store.Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	expiry := func(e *store.Entry) time.Time {
		if e == all[0] {
			return time.Unix(7, 0)
		}
		return time.Time{}
	}
	if err := Write(&b, Header{Revision: 900, Time: time.Unix(1, 0).UTC(), Version: "v1.37.2"}, all, expiry, storetest.Codec()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestSnapshot reads what was written.
func TestSnapshot(t *testing.T) {
	all := entries(300)
	var got []*store.Entry
	h, err := Read(bytes.NewReader(write(t, all)), func(r Record) error {
		e, err := store.Load(storetest.Codec(), r.Key, r.Create, r.Mod, r.Value)
		got = append(got, e)
		if want := len(got) == 1; want != r.Expiry.Equal(time.Unix(7, 0)) {
			t.Errorf("%s expires at %v", r.Key, r.Expiry)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Header{Revision: 900, Time: time.Unix(1, 0).UTC(), Version: "v1.37.2", Objects: len(all)}); h != want {
		t.Errorf("the header is %+v, want %+v", h, want)
	}
	if len(got) != len(all) {
		t.Fatalf("%d objects, want %d", len(got), len(all))
	}
	for i := range all {
		if got[i].Key != all[i].Key || got[i].CreateRevision != all[i].CreateRevision || got[i].ModRevision != all[i].ModRevision || !reflect.DeepEqual(got[i].Object(), all[i].Object()) {
			t.Errorf("read %+v, want %+v", got[i].Object(), all[i].Object())
		}
	}
}

// TestDamaged reads snapshots that are cut off at every place, or have a wrong byte at
// one of many.
func TestDamaged(t *testing.T) {
	good := write(t, entries(20))
	read := func(b []byte) error {
		_, err := Read(bytes.NewReader(b), func(Record) error { return nil })
		return err
	}
	for n := range good {
		if read(good[:n]) == nil {
			t.Errorf("cut off after %d of %d bytes, it was read", n, len(good))
		}
		bad := bytes.Clone(good)
		bad[n] ^= 0x10
		if read(bad) == nil {
			// zstd has bits without a meaning, as in the reserved part of its header.
			if !bytes.Equal(content(t, bad), content(t, good)) {
				t.Errorf("with a wrong byte at %d, it was read as something else", n)
			}
		}
	}
	if err := read([]byte("PK\x03\x04")); err == nil || errors.Is(err, errDamaged) {
		t.Errorf("no snapshot: %v", err)
	}
}

// content returns all that is read of a snapshot.
func content(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := Read(bytes.NewReader(b), func(r Record) error {
		out.WriteString(r.Key)
		out.Write(r.Value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// FuzzRead reads arbitrary parts, with a checksum that agrees, as a snapshot: what is read
// as a record is the same when it is written again.
func FuzzRead(f *testing.F) {
	z, err := zstd.NewReader(nil)
	if err != nil {
		f.Fatal(err)
	}
	defer z.Close()
	plain, err := z.DecodeAll(write(f, entries(2))[len(magic):], nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain[:len(plain)-sha256.Size], true)
	f.Add(plain, false)
	f.Add([]byte{2, '{', '}', 0}, true)
	f.Add([]byte{2, '{', '}', 5, 0, 0, 0, 0xff, 1, 0}, true)
	f.Add([]byte{0xff, 0xff, 0xff, 0x1f}, false)
	f.Fuzz(func(t *testing.T, parts []byte, sum bool) {
		if sum {
			s := sha256.Sum256(parts)
			parts = append(bytes.Clone(parts), s[:]...)
		}
		var b bytes.Buffer
		b.WriteString(magic)
		w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(parts); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		n := 0
		h, err := Read(&b, func(r Record) error {
			n++
			at := int64(0)
			if !r.Expiry.IsZero() {
				at = r.Expiry.UnixNano()
			}
			part := binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(nil, r.Create), r.Mod), at)
			part = append(append(binary.AppendUvarint(part, uint64(len(r.Key))), r.Key...), r.Value...)
			if again, err := parse(part); err != nil || !reflect.DeepEqual(again, r) {
				t.Errorf("%+v is read as %+v, %v", r, again, err)
			}
			return nil
		})
		switch {
		case err == nil && (n != h.Objects || !sum && len(parts) < sha256.Size):
			t.Errorf("%d records are taken for a whole snapshot of %d", n, h.Objects)
		case err != nil && !errors.Is(err, errDamaged):
			t.Errorf("it is not said that it is damaged: %v", err)
		}
	})
}
