// Command demo is a small web server to try a cluster with. It also has a few
// commands, for kubectl exec.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	case "fail":
		return errors.New("as you wish")
	default:
		return fmt.Errorf("no command %q: there are echo, env, cat, ls, sleep, get, fail", name)
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

func serve() error {
	host, _ := os.Hostname()
	h := http.NewServeMux()
	h.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from %s\n%s %s\n", host, r.Method, r.URL.Path)
		fmt.Printf("%s %s from %s\n", r.Method, r.URL.Path, r.RemoteAddr)
	})
	h.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	errs := make(chan error, 2)
	for _, addr := range []string{":80", ":8080"} {
		s := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 10 * time.Second}
		go func() { errs <- s.ListenAndServe() }()
	}
	fmt.Println("serving on :80 and :8080 as " + host)
	select {
	case err := <-errs:
		return err
	case <-ctx.Done():
		return nil
	}
}
