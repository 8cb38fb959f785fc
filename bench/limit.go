package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// serveLimit answers every request with the bytes that were PUT to its path. It
// prints its URL.
func serveLimit(ctx context.Context) error {
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var answers sync.Map // path → []byte
	s := &http.Server{TLSConfig: serverTLS(cert), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch r.Method {
		case http.MethodPut:
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			answers.Store(r.URL.Path, b)
		case http.MethodPost:
			_, _ = io.Copy(io.Discard, r.Body)
			fallthrough
		default:
			b, ok := answers.Load(r.URL.Path)
			if !ok {
				http.NotFound(w, r)
				return
			}
			h.Set("Content-Type", "application/json")
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusCreated)
			}
			_, _ = w.Write(b.([]byte))
		}
	})}
	fmt.Println("https://" + l.Addr().String())
	context.AfterFunc(ctx, func() { s.Close() })
	if err := s.ServeTLS(l, "", ""); err != http.ErrServerClosed { //nolint:errorlint // as net/http says
		return err
	}
	return nil
}
