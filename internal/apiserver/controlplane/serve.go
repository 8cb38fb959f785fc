package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/auditing"
	"keelson.dev/keelson/internal/apiserver/authn"
	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/apiserver/features"
	"keelson.dev/keelson/internal/apiserver/history"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/apiserver/kubelet"
	"keelson.dev/keelson/internal/apiserver/kubernetesservice"
	"keelson.dev/keelson/internal/apiserver/live"
	"keelson.dev/keelson/internal/apiserver/peer"
	"keelson.dev/keelson/internal/apiserver/priority"
	"keelson.dev/keelson/internal/apiserver/serviceip"
	"keelson.dev/keelson/internal/apiserver/serving"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/apiserver/tracing"
	"keelson.dev/keelson/internal/apiserver/zpages"
	"keelson.dev/keelson/internal/dash"
	dashpage "keelson.dev/keelson/internal/dash/page"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/remote"
	"keelson.dev/keelson/internal/version"
)

func (c *Instance) serve(listener net.Listener) error {
	c.Informers = inprocess.NewInformers(c.Store, c.Catalogue)
	rbac, err := authz.NewRBAC(c.Informers.Rbac().V1())
	if err != nil {
		return err
	}
	reader := &live.Reader{Store: c.Store, Catalogue: c.Catalogue, DefaultAccounts: c.DefaultAccounts}
	tokens, err := token.New(c.Certs.TokenKey, c.Tokens, reader, c.Clock)
	if err != nil {
		return err
	}
	c.tokens = tokens
	c.Process.Go(func() { tokens.Run(c.Process.Ctx) })
	c.addresses, err = serviceip.NewKeeper(c.Process.Ctx, serviceip.Config{Store: c.Store, Catalogue: c.Catalogue, Clock: c.Clock,
		Client: func() kubernetes.Interface { return c.Client(inprocess.APIServer) },
		Ranges: c.ServiceRanges(), Ports: c.API.nodePorts(), Shared: c.Etcd != nil})
	if err != nil {
		return err
	}
	c.nodes = kubelet.New(&c.API.Kubelet, c.Certs, c.own)
	modes, err := authz.New(c.Authorization, authz.NewNode(reader), rbac, c.Config(inprocess.APIServer))
	if err != nil {
		return err
	}
	chain, objects, err := c.admission(rbac, modes, reader)
	if err != nil {
		return err
	}
	others, err := c.aggregation()
	if err != nil {
		return err
	}
	authenticator, err := authn.New(c.Process.Ctx, authn.Config{
		Selection: c.Authentication, ClientCA: c.Certs.Pool(), ProxyCA: c.Certs.FrontProxy.Pool(), ProxyNames: []string{frontProxyClient},
		Tokens: tokens, Audiences: tokens.Audiences(), Secrets: reader, Clock: c.Clock,
	})
	if err != nil {
		return err
	}
	if c.auditor, err = auditing.New(c.Audit); err != nil {
		return err
	}
	if c.auditor != nil {
		if err := c.auditor.Run(c.Process.Ctx.Done()); err != nil {
			return err
		}
	}
	paths, err := tokens.Discovery(c.externalURL)
	if err != nil {
		return err
	}
	waiting := priority.Config{Selection: c.Fairness, Informers: c.Informers, Client: c.Client(inprocess.APIServer).FlowcontrolV1(), Patience: c.API.RequestTimeout / 4, Catalogue: c.Catalogue}
	var fair flowcontrol.Interface
	var exempt func() (schema, level types.UID)
	levels := priority.New(c.Process.Ctx, &c.Process.WaitGroup, waiting)
	if levels != nil {
		fair, exempt = levels, levels.Exempt
	}
	reads, writes := c.Fairness.InFlight, c.Fairness.MutatingInFlight // without it
	ready := map[string]func() error{"informer-sync": c.synced}
	var form func(string) int64
	if c.encryption != nil {
		form = c.encryption.Form
		ready["kms-providers"] = c.encryption.Check
	}
	c.Meter = c.newMeter(reader)
	steps := &tracing.Recorder{Trace: c.Trace, Store: c.Store, Catalogue: c.Catalogue, Authorizer: modes}
	paths[tracing.Path] = steps
	registry := prometheus.NewRegistry()
	registry.MustRegister(steps)
	var tracer apiserver.Tracer = steps
	if c.TraceMemory < 0 {
		tracer = nil
	}
	paths[remote.Path] = &tracing.Reports{Trace: c.Trace, Store: c.Store, Catalogue: c.Catalogue}
	moment := func(m string) (int64, error) { return c.Server.Moment(m) }
	paths[history.ChangesPath] = &history.Changes{Store: c.Store, Catalogue: c.Catalogue, Authorizer: modes, Moment: moment}
	var note func(context.Context, apiserver.Write) string
	if c.shared != nil {
		note = c.shared.Note
	}
	if s, ok := c.Store.(*embedded.Store); ok {
		note = tracing.Note
		paths[history.SnapshotPath] = &history.Snapshot{Store: s, Codec: c.codec, Moment: moment, Version: version.Info.GitVersion, Clock: c.Clock, Authorizer: modes}
	}
	paths[dashpage.Prefix] = dashpage.Handler()
	paths[dash.Path] = &dash.Stream{Store: c.Store, Catalogue: c.Catalogue, Trace: c.Trace, Authorizer: modes, Moment: moment, Since: authz.Since,
		Watches: func() int64 { return c.Server.Streams() }}
	zpages.Add(paths, c.Features, version.Info.GitVersion, c.Flags)
	c.Server = apiserver.New(apiserver.Config{
		Aggregation: others, Computed: computed(c.Meter),
		Views: map[string]map[schema.GroupResource]*apiserver.View{peer.View: {{Resource: "pods"}: {Reduce: peer.Reduce}}},
		Store: c.Store, Catalogue: c.Catalogue, Scheme: catalogue.Scheme, Types: builtinTypes, Clock: c.Clock, Version: version.Info,
		Authenticator: authenticator, TokenAuthenticator: authenticator, LegacyImpersonation: !c.Features.Enabled(features.ConstrainedImpersonation),
		NoUnsafeDeletion: !c.Features.Enabled(features.AllowUnsafeMalformedObjectDeletion),
		Authorizer:       modes, RuleResolver: modes, Admission: chain, Objects: objects, Tokens: tokens, Nodes: c.nodes, Own: c.own,
		Reservations: map[schema.GroupResource]apiserver.Reservation{{Resource: "services"}: c.addresses},
		Tracer:       tracer,
		Note:         note,
		Audit:        c.auditor,
		Fairness:     fair,
		Exempt:       exempt,
		Form:         form,
		TTL:          c.API.EventTTL, MinRequestTimeout: c.API.MinRequestTimeout, RequestTimeout: c.API.RequestTimeout,
		MaxReads: reads, MaxWrites: writes, StallLimit: c.stallLimit, SendRetryAfter: c.Serving.SendRetryAfter,
		NoProfiling: c.API.NoProfiling, NoLogs: c.API.NoLogs, HiddenMetrics: c.API.HiddenMetrics,
		Readiness: ready,
		Paths:     paths,
		Metrics:   registry,
	})
	if levels != nil {
		levels.Keep()
	}
	if err := c.startAggregation(); err != nil {
		return err
	}
	c.yieldMetrics()
	if err := c.startCustomResources(); err != nil {
		return err
	}
	c.Informers.StartWithContext(c.Process.Ctx)
	if res := c.Informers.WaitForCacheSyncWithContext(c.Process.Ctx); res.Err != nil {
		return res.Err
	}
	c.Process.Go(func() { tokens.Track(c.Process.Ctx, c.Client(inprocess.APIServer)) })
	if err := c.addresses.Start(c.Process); err != nil {
		return err
	}
	if c.API.DebugSocket != "" {
		if err := serving.DebugSocket(c.Process.Ctx, c.API.DebugSocket); err != nil {
			return err
		}
	}
	if listener == nil {
		return nil
	}
	port, err := portOf(c.Address)
	if err != nil {
		return err
	}
	secure := &tls.Config{
		ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
	}
	if c.Authentication.ClientCAFile == "" {
		// Clients are told whose certificates are taken, where that does not change.
		secure.ClientCAs = c.Certs.Pool()
	}
	if err := c.Serving.Certificates(c.Process.Ctx, c.Certs.Serving.Certificate, secure); err != nil {
		return err
	}
	if c.http, err = c.Serving.NewServer(trace.Handler(c.Server), secure, log.New(io.Discard, "", 0)); err != nil {
		return err
	}
	c.Process.Go(func() {
		if err := c.http.ServeTLS(listener, "", ""); err != nil && !errors.Is(err, http.ErrServerClosed) {
			klog.FromContext(c.Process.Ctx).Error(err, "Serving the API failed; stopping")
			c.Process.End()
		}
	})
	config := c.Config(inprocess.Admin)
	config.UserAgent = inprocess.UserAgent(inprocess.APIServer)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	self := &kubernetesservice.Publisher{Client: client, Address: c.advertised, Port: port, ClusterIP: c.ServiceCIDR.Masked().Addr().Next(),
		NodePort: c.API.NodePort, Shared: c.Etcd != nil, Store: c.Store, Clock: c.Clock}
	c.Process.Go(func() { self.Run(c.Process.Ctx) })
	return nil
}

func portOf(address string) (int, error) {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(p)
}

func (c *Instance) synced() error {
	if r := c.Informers.WaitForCacheSyncWithContext(c.Process.Ctx); r.Err != nil {
		return r.Err
	}
	return nil
}
