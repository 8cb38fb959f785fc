package network_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"text/template"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

// ingressPort is the port of the ingress controller's nginx.
const ingressPort = "8090"

// nginxIngress is an ingress controller that configures an nginx, as commonly
// installed ones do. It runs on the machine's network.
type nginxIngress struct {
	*env
	address string
	nginx   harness.Nginx
	lister  interface {
		List(labels.Selector) ([]*networkingv1.Ingress, error)
	}
}

var nginxConfig = template.Must(template.New("").Parse(`user root;
worker_processes 1;
pid {{.Dir}}/pid;
error_log {{.Dir}}/error.log;
events {}
http {
	access_log off;
	client_body_temp_path {{.Dir}}/body; proxy_temp_path {{.Dir}}/proxy; fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi; scgi_temp_path {{.Dir}}/scgi;
	server { listen {{.Listen}} default_server; return 404; }
{{range .Rules}}	server {
		listen {{$.Listen}};
		server_name {{.Host}};
		location / { proxy_pass http://{{.Backend}}; }
	}
{{end}}}
`))

// reconcile writes nginx's configuration, and the status of the Ingresses.
func (n *nginxIngress) reconcile(ctx context.Context) error {
	all, err := n.lister.List(labels.Everything())
	if err != nil {
		return err
	}
	type rule struct{ Host, Backend string }
	var rules []rule
	for _, i := range all {
		if i.Spec.IngressClassName == nil || *i.Spec.IngressClassName != n.ns {
			continue // of another controller
		}
		for _, r := range i.Spec.Rules {
			to := r.HTTP.Paths[0].Backend.Service
			s, err := n.client.CoreV1().Services(i.Namespace).Get(ctx, to.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			rules = append(rules, rule{r.Host, fmt.Sprintf("%s:%d", s.Spec.ClusterIP, to.Port.Number)})
		}
	}
	var conf bytes.Buffer
	if err := nginxConfig.Execute(&conf, map[string]any{"Dir": n.nginx.Dir, "Listen": n.address + ":" + ingressPort, "Rules": rules}); err != nil {
		return err
	}
	if err := n.nginx.Serve(ctx, conf.Bytes()); err != nil {
		return err
	}
	for _, i := range all {
		if len(i.Status.LoadBalancer.Ingress) > 0 {
			continue
		}
		i = i.DeepCopy()
		i.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: n.address}}
		if _, err := n.client.NetworkingV1().Ingresses(i.Namespace).UpdateStatus(ctx, i, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// run reconciles at each change until ctx ends.
func (n *nginxIngress) run(ctx context.Context) error {
	f := informers.NewSharedInformerFactoryWithOptions(n.client, 0, informers.WithNamespace(n.ns))
	ingresses := f.Networking().V1().Ingresses()
	n.lister = ingresses.Lister()
	wake := make(chan struct{}, 1)
	poke := func(any) {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	if _, err := ingresses.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: poke, UpdateFunc: func(_, i any) { poke(i) }, DeleteFunc: poke}); err != nil {
		return err
	}
	f.StartWithContext(ctx)
	defer f.Shutdown()
	defer func() { _ = n.nginx.Stop() }() // its exit status tells whether that worked
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
		if err := n.reconcile(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// ingress checks that Services are reached by the hosts of Ingresses, through a
// controller that a user would install.
func (e *env) ingress() {
	if _, err := exec.LookPath("nginx"); err != nil {
		e.Fatalf("%v: this test runs Debian's nginx: install it (make test does)", err)
	}
	node := e.start("one", "a")[0].Status.HostIP
	e.start("two", "b")
	e.expose("one", "one")
	e.expose("two", "two")
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: e.ns}, Spec: networkingv1.IngressClassSpec{Controller: "example.com/nginx"}}
	if _, err := e.client.NetworkingV1().IngressClasses().Create(e.Context(), class, metav1.CreateOptions{}); err != nil {
		e.Fatal(err)
	}
	n := &nginxIngress{env: e, address: node, nginx: harness.Nginx{Dir: e.TempDir()}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.run(ctx) }()
	e.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			e.Error(err)
		}
		if err := e.client.NetworkingV1().IngressClasses().Delete(context.Background(), class.Name, metav1.DeleteOptions{}); err != nil {
			e.Error(err)
		}
	})

	ingresses := e.client.NetworkingV1().Ingresses(e.ns)
	rule := func(host, service string) networkingv1.IngressRule {
		return networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
			Path: "/", PathType: ptr.To(networkingv1.PathTypePrefix), Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
				Name: service, Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}
	}
	i, err := ingresses.Create(e.Context(), &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: networkingv1.IngressSpec{
		IngressClassName: &class.Name, Rules: []networkingv1.IngressRule{rule("one.example", "one"), rule("two.example", "two")}}}, metav1.CreateOptions{})
	if err != nil {
		e.Fatal(err)
	}
	harness.Succeeds(e, "the Ingress's address", func() (err error) {
		if i, err = ingresses.Get(e.Context(), "web", metav1.GetOptions{}); err == nil && len(i.Status.LoadBalancer.Ingress) == 0 {
			err = errors.New("none")
		}
		return err
	})
	at := i.Status.LoadBalancer.Ingress[0].IP
	get := func(host string) func() (string, error) {
		return func() (string, error) {
			req, err := http.NewRequestWithContext(e.Context(), http.MethodGet, "http://"+at+":"+ingressPort+"/", nil)
			if err != nil {
				return "", err
			}
			req.Host = host
			resp, err := (&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				return "", err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(b)))
			}
			return string(b), err
		}
	}
	e.reaches("the first host", get("one.example"), "a")
	e.reaches("the second host", get("two.example"), "b")
	i.Spec.Rules[1] = rule("two.example", "one")
	if i, err = ingresses.Update(e.Context(), i, metav1.UpdateOptions{}); err != nil {
		e.Fatal(err)
	}
	e.reaches("the second host's other Service", get("two.example"), "a")
	if err := ingresses.Delete(e.Context(), i.Name, metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}
	harness.Succeeds(e, "no answer of a Service", func() error {
		if out, err := get("one.example")(); err == nil || !strings.Contains(err.Error(), "404") {
			return fmt.Errorf("%q, %w", out, err)
		}
		return nil
	})
}
