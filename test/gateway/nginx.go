package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"text/template"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// site is what nginx serves.
type site struct {
	// Listen are the addresses with ports that have a listener.
	Listen []string
	Hosts  []host
}

// host is what is served for a host name, or a pattern like *.example, at some addresses.
type host struct {
	Listen    []string
	Name      string
	Locations []location
}

// location is a path, in nginx's form, and its backends; none answer 500.
type location struct {
	Path     string
	Backends []backend
	Set      [][2]string // headers of requests
}

// backend is an endpoint, and its share of the requests.
type backend struct {
	Address string
	Weight  int32
}

var config = template.Must(template.New("").Parse(`user root;
worker_processes 1;
pid {{.Dir}}/pid;
error_log {{.Dir}}/error.log;
events {}
http {
	access_log off;
	server_names_hash_bucket_size 128;
	client_body_temp_path {{.Dir}}/body; proxy_temp_path {{.Dir}}/proxy; fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi; scgi_temp_path {{.Dir}}/scgi;
{{range .Site.Listen}}	server { listen {{.}} default_server; return 404; }
{{end}}{{range $i, $h := .Site.Hosts}}{{range $j, $l := .Locations}}{{if .Backends}}	upstream u{{$i}}-{{$j}} {
{{range .Backends}}		server {{.Address}} weight={{.Weight}};
{{end}}	}
{{end}}{{end}}	server {
{{range .Listen}}		listen {{.}};
{{end}}		server_name {{.Name}};
{{range $j, $l := .Locations}}		location {{.Path}} {
			proxy_set_header Host $host;
{{range .Set}}			proxy_set_header {{index . 0}} "{{index . 1}}";
{{end}}			{{if .Backends}}proxy_pass http://u{{$i}}-{{$j}};{{else}}return 500;{{end}}
		}
{{end}}	}
{{end}}}
`))

// nginx is Debian's, on the machine's network.
type nginx struct {
	dir     string
	process *exec.Cmd
	current []byte
}

// serve has nginx serve the site, and returns when its configuration is in force for new
// connections.
func (n *nginx) serve(ctx context.Context, s *site) error {
	var b bytes.Buffer
	if err := config.Execute(&b, map[string]any{"Dir": n.dir, "Site": s}); err != nil {
		return err
	}
	if bytes.Equal(b.Bytes(), n.current) {
		return nil
	}
	file := filepath.Join(n.dir, "nginx.conf")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "nginx", "-t", "-p", n.dir, "-c", file).CombinedOutput(); err != nil {
		return fmt.Errorf("nginx: %w: %s", err, out)
	}
	if n.process == nil {
		n.process = exec.Command("nginx", "-p", n.dir, "-c", file, "-g", "daemon off;")
		if err := n.process.Start(); err != nil {
			return err
		}
		// nginx handles signals only once it has written this file.
		if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
			_, err := os.Stat(filepath.Join(n.dir, "pid"))
			return err == nil, nil
		}); err != nil {
			return fmt.Errorf("nginx does not start: %w", err)
		}
	} else if err := n.process.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	n.current = b.Bytes()
	return nil
}

// stop ends it.
func (n *nginx) stop() error {
	if n.process == nil {
		return nil
	}
	return errors.Join(n.process.Process.Signal(syscall.SIGQUIT), n.process.Wait())
}
