// Command demo is a small web server to try a cluster with. It also has a few
// commands, for kubectl exec.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		if err := command(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "demo: "+err.Error())
			os.Exit(1)
		}
		return
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "demo: "+err.Error())
		os.Exit(1)
	}
}

func command(name string, args []string) error {
	switch name {
	case "echo":
		fmt.Println(strings.Join(args, " "))
	case "env":
		env := os.Environ()
		sort.Strings(env)
		fmt.Println(strings.Join(env, "\n"))
	case "cat":
		if len(args) == 0 {
			_, err := io.Copy(os.Stdout, os.Stdin)
			return err
		}
		for _, a := range args {
			b, err := os.ReadFile(a)
			if err != nil {
				return err
			}
			os.Stdout.Write(b)
		}
	case "write":
		if len(args) != 2 {
			return errors.New("write FILE TEXT")
		}
		return os.WriteFile(args[0], []byte(args[1]), 0o644)
	case "ls":
		dir := "."
		if len(args) > 0 {
			dir = args[0]
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			fmt.Println(e.Name())
		}
	case "sleep":
		d := time.Duration(1<<63 - 1)
		if len(args) > 0 {
			var err error
			if d, err = time.ParseDuration(args[0] + "s"); err != nil {
				return err
			}
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	case "get":
		for _, url := range args {
			if err := get(url); err != nil {
				return err
			}
		}
	case "send":
		return send(args)
	case "resolve":
		return resolve(args)
	case "fail":
		return errors.New("as you wish")
	default:
		return fmt.Errorf("no command %q: there are echo, env, cat, write, ls, sleep, get, send, resolve, fail", name)
	}
	return nil
}

func get(url string) error {
	client := &http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

// send sends a datagram to each address (host:port) and prints the answer.
func send(addrs []string) error {
	for _, a := range addrs {
		c, err := net.DialTimeout("udp", a, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		if _, err := c.Write([]byte("hello\n")); err != nil {
			return err
		}
		b := make([]byte, 512)
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		os.Stdout.Write(b[:n])
	}
	return nil
}

// resolve prints what DNS has for each name, sorted: the addresses, or what
// TYPE=NAME asks for, with a type of srv, ptr, cname or txt.
func resolve(names []string) error {
	r, ctx := net.DefaultResolver, context.Background()
	for _, n := range names {
		kind, name, typed := strings.Cut(n, "=")
		if !typed {
			kind, name = "", n
		}
		var out []string
		var err error
		switch kind {
		case "srv":
			var all []*net.SRV
			_, all, err = r.LookupSRV(ctx, "", "", name)
			for _, s := range all {
				out = append(out, fmt.Sprintf("%s:%d", s.Target, s.Port))
			}
		case "ptr":
			out, err = r.LookupAddr(ctx, name)
		case "cname":
			var c string
			c, err = r.LookupCNAME(ctx, name)
			out = []string{c}
		case "txt":
			out, err = r.LookupTXT(ctx, name)
		default:
			out, err = r.LookupHost(ctx, name)
		}
		if err != nil {
			return err
		}
		sort.Strings(out)
		fmt.Println(strings.Join(out, " "))
	}
	return nil
}

func serve() error {
	host, _ := os.Hostname()
	h := http.NewServeMux()
	h.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from %s\n%s %s\n", host, r.Method, r.URL.Path)
		fmt.Printf("%s %s from %s\n", r.Method, r.URL.Path, r.RemoteAddr)
	})
	h.HandleFunc("/client", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })
	h.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	h.HandleFunc("POST /grpc.health.v1.Health/Check", serving)
	protocols := &http.Protocols{} // gRPC is HTTP/2
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	errs := make(chan error, 4)
	for _, addr := range []string{":80", ":8080"} {
		s := &http.Server{Addr: addr, Handler: h, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
		go func() { errs <- s.ListenAndServe() }()
		go func() { errs <- serveUDP(addr, host) }()
	}
	fmt.Println("serving on :80 and :8080 as " + host)
	select {
	case err := <-errs:
		return err
	case <-ctx.Done():
		return nil
	}
}

// serving answers gRPC's health checks (grpc.health.v1): all is well.
func serving(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<10))
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	// A message that is not compressed, of two bytes: status = SERVING.
	_, _ = w.Write([]byte{0, 0, 0, 0, 2, 1 << 3, 1})
	w.Header().Set("Grpc-Status", "0")
}

// serveUDP answers each datagram with the host's name.
func serveUDP(addr, host string) error {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	b := make([]byte, 512)
	for {
		_, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo([]byte("Hello from "+host+"\n"), from); err != nil {
			fmt.Println(err)
		}
	}
}
