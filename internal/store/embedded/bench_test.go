package embedded

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/storetest"
)

func engines(b *testing.B, f func(b *testing.B, s *Store)) {
	b.Run("memory", func(b *testing.B) {
		s := open(b, "", nil)
		defer s.Close()
		f(b, s)
	})
	for name, o := range map[string]PastOptions{"disk": {}, "disk and history": {Age: time.Hour}} {
		b.Run(name, func(b *testing.B) {
			s, err := Open(Options{Dir: b.TempDir(), Codec: storetest.Codec(), Indexers: storetest.Indexers(), Past: o})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			f(b, s)
		})
	}
}

func fill(b *testing.B, s *Store, n int) {
	b.Helper()
	for i := range n {
		name := strconv.Itoa(i)
		if _, err := s.Create(b.Context(), storetest.Key(name), storetest.Pod(name, ""), 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	engines(b, func(b *testing.B, s *Store) {
		var n atomic.Int64
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				name := strconv.FormatInt(n.Add(1), 10)
				if _, err := s.Create(context.Background(), storetest.Key(name), storetest.Pod(name, ""), 0); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkUpdate(b *testing.B) {
	engines(b, func(b *testing.B, s *Store) {
		var n atomic.Int64
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			name := "w" + strconv.FormatInt(n.Add(1), 10)
			e, err := s.Create(context.Background(), storetest.Key(name), storetest.Pod(name, ""), 0)
			for pb.Next() && err == nil {
				e, err = s.Update(context.Background(), storetest.Key(name), e.ModRevision, storetest.Pod(name, ""), 0)
			}
			if err != nil {
				b.Error(err)
			}
		})
	})
}

func BenchmarkGet(b *testing.B) {
	s := open(b, "", nil)
	defer s.Close()
	fill(b, s, 10_000)
	b.RunParallel(func(pb *testing.PB) {
		i := 0
		for pb.Next() {
			i++
			if e, _ := s.Get(context.Background(), storetest.Key(strconv.Itoa(i%10_000))); e == nil {
				b.Error("absent")
			}
		}
	})
}

func BenchmarkList10000(b *testing.B) {
	s := open(b, "", nil)
	defer s.Close()
	fill(b, s, 10_000)
	for b.Loop() {
		if r, err := s.List(b.Context(), "/registry/pods/", store.ListOptions{}); err != nil || len(r.Entries) != 10_000 {
			b.Fatal(err)
		}
	}
}

// BenchmarkWatchFanOut measures the delivery of an event to 1,000 watchers.
func BenchmarkWatchFanOut(b *testing.B) {
	s := open(b, "", nil)
	defer s.Close()
	var got atomic.Int64
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for range 1000 {
		w, err := s.Watch("/registry/pods/", store.WatchOptions{})
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			defer w.Stop()
			for {
				evs, err := w.Next(ctx)
				if err != nil {
					return
				}
				got.Add(int64(len(evs)))
			}
		}()
	}
	e, err := s.Create(ctx, storetest.Key("a"), storetest.Pod("a", ""), 0)
	if err != nil {
		b.Fatal(err)
	}
	want := int64(1000)
	for b.Loop() {
		if e, err = s.Update(ctx, storetest.Key("a"), e.ModRevision, storetest.Pod("a", ""), 0); err != nil {
			b.Fatal(err)
		}
		want += 1000
	}
	for got.Load() < want {
	}
}
