package apiserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	machineryproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"keelson.dev/keelson/internal/api/core"
)

// NodeTransport reaches the HTTP server of a node's agent.
type NodeTransport interface {
	// Node returns the base URL of the node's server and the transport to it, which
	// with unverified does not check the server's certificate.
	Node(ctx context.Context, node *v1.Node, unverified bool) (*url.URL, http.RoundTripper, error)
}

var (
	nodes = v1.SchemeGroupVersion.WithResource("nodes")
	pods  = v1.SchemeGroupVersion.WithResource("pods")
)

// responder answers with the error of a proxy.
type responder struct{ r *call }

// Error implements proxy.ErrorResponder.
func (p responder) Error(_ http.ResponseWriter, _ *http.Request, err error) {
	if _, ok := err.(apierrors.APIStatus); !ok { //nolint:errorlint // as upstream
		err = apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach service: %v", err))
	}
	p.r.fail(err)
}

// proxied is a request that is passed on, to a pod, a service or a node.
type proxied struct{ *call }

// node returns the URL of the named node's agent and the transport to it.
func (r proxied) node(name string, unverified bool) (*url.URL, http.RoundTripper, error) {
	obj, err := r.Object(nodes, "", name)
	if err != nil {
		return nil, nil, r.storeError(err, name)
	}
	node := obj.(*v1.Node)
	if core.Simulated(node) {
		return nil, nil, badRequest("node %q is simulated: it has no agent, and its pods run nowhere", name)
	}
	if r.s.Nodes == nil {
		return nil, nil, apierrors.NewServiceUnavailable("this server has no way to the nodes")
	}
	return r.s.Nodes.Node(r.ctx(), node, unverified)
}

// simulated reports whether the pod is on a simulated node, where nothing runs and no
// machine has the pod's address.
func (r proxied) simulated(pod *v1.Pod) bool {
	if pod.Spec.NodeName == "" {
		return false
	}
	node, err := r.Object(nodes, "", pod.Spec.NodeName)
	return err == nil && core.Simulated(node.(*v1.Node))
}

func (r proxied) pod() (*v1.Pod, error) {
	e, err := r.entry()
	if err != nil {
		return nil, err
	}
	return e.Object().(*v1.Pod), nil
}

// container checks or picks the container that a request is about.
func container(pod *v1.Pod, name string) (string, error) {
	var names, inits, ephemeral []string
	for i := range pod.Spec.Containers {
		names = append(names, pod.Spec.Containers[i].Name)
	}
	for i := range pod.Spec.InitContainers {
		inits = append(inits, pod.Spec.InitContainers[i].Name)
	}
	for i := range pod.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, pod.Spec.EphemeralContainers[i].Name)
	}
	if name != "" {
		if slices.Contains(names, name) || slices.Contains(inits, name) || slices.Contains(ephemeral, name) {
			return name, nil
		}
		return "", badRequest("container %s is not valid for pod %s", name, pod.Name)
	}
	if len(names) == 1 {
		return names[0], nil
	}
	msg := fmt.Sprintf("a container name must be specified for pod %s, choose one of: %v", pod.Name, names)
	if len(inits) > 0 {
		msg += fmt.Sprintf(" or one of the init containers: %v", inits)
	}
	return "", apierrors.NewBadRequest(msg)
}

// podLog streams a container's log.
func (r proxied) podLog() error {
	if r.info.Verb != "get" {
		return r.methodNotSupported()
	}
	q := r.req.URL.Query()
	opts, err := logOptions(q)
	if err != nil {
		return err
	}
	var errs field.ErrorList
	if opts.TailLines != nil && *opts.TailLines < 0 {
		errs = append(errs, field.Invalid(field.NewPath("tailLines"), *opts.TailLines, "must be greater than or equal to 0"))
	}
	if opts.LimitBytes != nil && *opts.LimitBytes < 1 {
		errs = append(errs, field.Invalid(field.NewPath("limitBytes"), *opts.LimitBytes, "must be greater than 0"))
	}
	if opts.SinceSeconds != nil && *opts.SinceSeconds < 1 {
		errs = append(errs, field.Invalid(field.NewPath("sinceSeconds"), *opts.SinceSeconds, "must be greater than 0"))
	}
	if opts.SinceSeconds != nil && opts.SinceTime != nil {
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	}
	if s := opts.Stream; s != nil {
		if all := []string{v1.LogStreamAll, v1.LogStreamStderr, v1.LogStreamStdout}; !slices.Contains(all, *s) {
			errs = append(errs, field.NotSupported(field.NewPath("stream"), *s, all))
		}
		if *s != v1.LogStreamAll && opts.TailLines != nil {
			errs = append(errs, field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now"))
		}
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(v1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), r.info.Name, errs)
	}
	pod, err := r.pod()
	if err != nil {
		return err
	}
	name, err := container(pod, opts.Container)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		return r.write(http.StatusOK, "text/plain")
	}
	if r.simulated(pod) {
		return r.write(http.StatusOK, "text/plain", fmt.Appendf(nil, "pod %s is simulated: node %s runs no containers, so there are no logs\n", pod.Name, pod.Spec.NodeName))
	}
	base, transport, err := r.node(pod.Spec.NodeName, opts.InsecureSkipTLSVerifyBackend)
	if err != nil {
		return err
	}
	loc := base.JoinPath("containerLogs", pod.Namespace, pod.Name, name)
	q.Del("container")
	q.Del("insecureSkipTLSVerifyBackend")
	loc.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(r.ctx(), http.MethodGet, loc.String(), nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("Get %q: %w", loc.String(), err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 10_000))
		text := strings.TrimSpace(string(body))
		if resp.StatusCode == http.StatusBadRequest {
			return apierrors.NewBadRequest(text)
		}
		if text == "" {
			return apierrors.NewGenericServerResponse(resp.StatusCode, "get", r.groupResource(), r.info.Name, text, 0, true)
		}
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: int32(resp.StatusCode), Reason: metav1.StatusReasonUnknown, Message: text}}
	}
	if wsstream.IsWebSocketRequest(r.req) {
		r.code = http.StatusSwitchingProtocols
		// The reader drops data that comes together with the end of the stream; a bufio.Reader
		// returns the two one after the other.
		return wsstream.NewReader(bufio.NewReader(resp.Body), true, wsstream.NewDefaultReaderProtocols()).Copy(r.w, r.req)
	}
	h := r.w.Header()
	h.Set("Content-Type", "text/plain")
	r.warnings.write(h)
	r.code = http.StatusOK
	r.w.WriteHeader(http.StatusOK)
	flush(r.w)
	buf := make([]byte, 32*1024)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if _, werr := r.w.Write(buf[:n]); werr != nil {
				return nil //nolint:nilerr // the client has gone
			}
			if opts.Follow {
				flush(r.w)
			}
		}
		if err != nil {
			return nil //nolint:nilerr // the end of the log, or of its reader
		}
	}
}

// query reads typed query parameters; the first that is wrong is kept.
type query struct {
	url.Values
	err error
}

func (q *query) flag(name string) bool {
	v := q.Get(name)
	switch {
	case !q.Has(name):
		return false
	case v == "": // ?follow
		return true
	}
	on, err := strconv.ParseBool(v)
	q.keep(err)
	return on
}

func (q *query) number(name string) *int64 {
	if q.Get(name) == "" {
		return nil
	}
	n, err := strconv.ParseInt(q.Get(name), 10, 64)
	q.keep(err)
	return &n
}

func (q *query) keep(err error) {
	if err != nil && q.err == nil {
		q.err = apierrors.NewBadRequest(err.Error())
	}
}

func logOptions(values url.Values) (*v1.PodLogOptions, error) {
	q := &query{Values: values}
	o := &v1.PodLogOptions{Container: q.Get("container"), Follow: q.flag("follow"), Previous: q.flag("previous"), Timestamps: q.flag("timestamps"),
		SinceSeconds: q.number("sinceSeconds"), TailLines: q.number("tailLines"), LimitBytes: q.number("limitBytes"),
		InsecureSkipTLSVerifyBackend: q.flag("insecureSkipTLSVerifyBackend")}
	if v := q.Get("sinceTime"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		q.keep(err)
		o.SinceTime = &metav1.Time{Time: t}
	}
	if v := q.Get("stream"); v != "" {
		o.Stream = &v
	}
	return o, q.err
}

func execOptions(values url.Values) (*v1.PodExecOptions, error) {
	q := &query{Values: values}
	o := &v1.PodExecOptions{Container: q.Get("container"), Command: values["command"], Stdin: q.flag("stdin"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr"), TTY: q.flag("tty")}
	return o, q.err
}

// mayUpgrade checks that the user may create the subresource as well as get it, if the
// request is for a connection: a WebSocket is opened by a GET, though it runs commands
// (KEP-4006).
func (r proxied) mayUpgrade() error {
	if r.info.Verb == "create" || !httpstream.IsUpgradeRequest(r.req) {
		return nil
	}
	a := r.Attributes()
	a.Verb = "create"
	return r.Allowed(a)
}

// podStream serves exec and attach, over SPDY or WebSocket.
func (r proxied) podStream() error {
	sub := r.info.Subresource
	if err := r.mayUpgrade(); err != nil {
		return err
	}
	pod, err := r.pod()
	if err != nil {
		return err
	}
	q := r.req.URL.Query()
	opts, err := execOptions(q)
	if err != nil {
		return err
	}
	if sub == "attach" {
		// Attach's streams are on where they are not mentioned.
		for p, on := range map[string]*bool{"stdout": &opts.Stdout, "stderr": &opts.Stderr} {
			*on = !q.Has(p) || *on
		}
	}
	if sub == "exec" && len(opts.Command) == 0 {
		return badRequest("you must specify at least 1 command for the container")
	}
	if !opts.Stdin && !opts.Stdout && !opts.Stderr {
		return badRequest("you must specify at least 1 of stdin, stdout, stderr")
	}
	var connect runtime.Object = opts
	if sub == "attach" {
		connect = &v1.PodAttachOptions{Container: opts.Container, Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, TTY: opts.TTY}
	}
	if err := r.connect(connect); err != nil {
		return err
	}
	if a, ok := connect.(*v1.PodAttachOptions); ok {
		opts.Container, opts.Stdin, opts.Stdout, opts.Stderr, opts.TTY = a.Container, a.Stdin, a.Stdout, a.Stderr, a.TTY
	}
	name, err := container(pod, opts.Container)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		return badRequest("pod %s does not have a host assigned", pod.Name)
	}
	base, transport, err := r.node(pod.Spec.NodeName, false)
	if err != nil {
		return err
	}
	loc := base.JoinPath(sub, pod.Namespace, pod.Name, name)
	p := url.Values{}
	set := func(k string, on bool) {
		if on {
			p.Set(k, "1")
		}
	}
	set("input", opts.Stdin)
	set("output", opts.Stdout)
	set("error", opts.Stderr && !opts.TTY)
	set("tty", opts.TTY)
	p["command"] = opts.Command
	loc.RawQuery = p.Encode()
	up := machineryproxy.NewUpgradeAwareHandler(loc, transport, false, true, responder{r.call})
	translator := proxy.NewStreamTranslatorHandler(loc, transport, 0, proxy.Options{Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr && !opts.TTY, Tty: opts.TTY})
	r.code = http.StatusSwitchingProtocols
	proxy.NewTranslatingHandler(up, translator, wsstream.IsWebSocketRequestWithStreamCloseProtocol).ServeHTTP(r.w, r.req)
	return nil
}

// podPortForward serves portforward, over SPDY or tunnelled through WebSocket.
func (r proxied) podPortForward() error {
	if err := r.mayUpgrade(); err != nil {
		return err
	}
	pod, err := r.pod()
	if err != nil {
		return err
	}
	opts := portForwardOptions(r.req.URL.Query())
	if err := r.connect(opts); err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		return badRequest("pod %s does not have a host assigned", pod.Name)
	}
	base, transport, err := r.node(pod.Spec.NodeName, false)
	if err != nil {
		return err
	}
	loc := base.JoinPath("portForward", pod.Namespace, pod.Name)
	// Only the ports that admission has seen are passed on.
	if len(opts.Ports) > 0 {
		ports := make([]string, len(opts.Ports))
		for i, p := range opts.Ports {
			ports[i] = strconv.Itoa(int(p))
		}
		loc.RawQuery = url.Values{"port": {strings.Join(ports, ",")}}.Encode()
	}
	up := machineryproxy.NewUpgradeAwareHandler(loc, transport, false, true, responder{r.call})
	r.code = http.StatusSwitchingProtocols
	proxy.NewTranslatingHandler(up, proxy.NewTunnelingHandler(up), wsstream.IsWebSocketRequestWithTunnelingProtocol).ServeHTTP(r.w, r.req)
	return nil
}

func portForwardOptions(values url.Values) *v1.PodPortForwardOptions {
	o := &v1.PodPortForwardOptions{}
	for _, list := range values["ports"] {
		for p := range strings.SplitSeq(list, ",") {
			if n, err := strconv.ParseInt(p, 10, 32); err == nil {
				o.Ports = append(o.Ports, int32(n))
			}
		}
	}
	return o
}

// connect calls admission for a connection, which options describe.
func (r proxied) connect(options runtime.Object) error {
	kinds, _, err := r.s.Scheme.ObjectKinds(options)
	if err != nil {
		return err
	}
	attrs := admission.NewAttributesRecord(options, nil, kinds[0], r.info.Namespace, r.info.Name, r.row.GroupVersionResource,
		r.info.Subresource, admission.Connect, nil, false, r.user)
	if err := r.mutate(attrs); err != nil {
		return err
	}
	return r.validate(attrs)
}
