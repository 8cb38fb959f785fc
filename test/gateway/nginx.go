package gateway

import (
	"bytes"
	"context"
	"text/template"

	"keelson.dev/keelson/test/harness"
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

// nginx serves a site.
type nginx struct {
	harness.Nginx
	current []byte
}

// serve has nginx serve the site, and returns when its configuration is in force for new
// connections.
func (n *nginx) serve(ctx context.Context, s *site) error {
	var b bytes.Buffer
	if err := config.Execute(&b, map[string]any{"Dir": n.Dir, "Site": s}); err != nil {
		return err
	}
	if bytes.Equal(b.Bytes(), n.current) {
		return nil
	}
	if err := n.Serve(ctx, b.Bytes()); err != nil {
		return err
	}
	n.current = b.Bytes()
	return nil
}
