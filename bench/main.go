// Command bench compares Keelson's API server with a peer and with a limit, all
// on the same disk, with the same client, in the same run. The peer is upstream's
// generic API server, from the published k8s.io/apiextensions-apiserver, without
// authentication, on etcd. The limit is a Go net/http TLS server that answers
// every request with constant bytes: the cost of the protocol alone.
//
//	bench -keelson ../bin/keelson -etcd etcd compare
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if filepath.Base(os.Args[0]) == "kube-apiserver" {
		os.Exit(asAPIServer(os.Args[1:]))
	}
	o := settings{}
	flag.StringVar(&o.keelson, "keelson", "../bin/keelson", "Keelson's binary")
	flag.StringVar(&o.etcd, "etcd", "etcd", "etcd's binary, for the peer")
	flag.StringVar(&o.dir, "dir", "", "folder on the disk to measure on (default: a temporary one)")
	flag.IntVar(&o.clients, "clients", 64, "number of clients")
	flag.IntVar(&o.objects, "objects", 10_000, "number of objects that lists have")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each measurement; the median counts")
	flag.DurationVar(&o.window, "window", 2*time.Second, "length of one measurement of a rate")
	flag.IntVar(&o.watchers, "watchers", 1000, "number of watchers")
	flag.IntVar(&o.events, "events", 1000, "events a second that are watched")
	flag.StringVar(&o.only, "only", "", "comma-separated figures to measure (default all): "+allFigures)
	flag.StringVar(&o.profile, "profile", "", "folder for CPU profiles of Keelson, one a figure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch flag.Arg(0) {
	case "compare":
		err = compare(ctx, o)
	case "peer":
		dir := flag.Arg(2)
		if err = keyPair(dir); err == nil {
			err = servePeer(ctx, flag.Arg(1), "127.0.0.1:0", filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
		}
	case "limit":
		err = serveLimit(ctx)
	default:
		err = fmt.Errorf("%q: want compare, peer or limit", flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}

type settings struct {
	keelson, etcd, dir, only, profile string
	clients, objects, rounds          int
	watchers, events                  int
	window                            time.Duration
}
