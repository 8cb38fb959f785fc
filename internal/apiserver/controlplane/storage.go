package controlplane

import (
	"net"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/live"
	"keelson.dev/keelson/internal/apiserver/tracing"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/store/encryption"
	"keelson.dev/keelson/internal/store/etcd"
)

func (c *Instance) openStore() error {
	indexers := live.Indexers()
	codec := store.NewCodec(catalogue.Scheme)
	if o := c.Encryption; o.File != "" {
		o.Resource, o.Server = c.resourceAt, component.Hostname()
		var err error
		if c.encryption, err = encryption.New(c.Process.Ctx, codec, o); err != nil {
			return err
		}
		codec = c.encryption
	}
	c.codec = codec
	if c.Etcd != nil {
		o := *c.Etcd
		o.Codec, o.Clock, o.Indexers = codec, c.Clock, indexers
		if c.TraceMemory >= 0 {
			c.shared = tracing.NewShared(c.Trace)
			o.Observed, o.Posted = c.shared.Observed, c.shared.Posted
		}
		s, err := etcd.Open(o)
		if err != nil {
			return err
		}
		c.Store = s
		if c.shared != nil {
			c.Process.Go(func() { c.shared.Take(c.Process.Ctx) })
			c.Process.Go(func() { c.shared.Run(c.Process.Ctx, s.Post, etcd.MostPosted) })
		}
		return nil
	}
	o := embedded.Options{Codec: codec, Clock: c.Clock, Indexers: indexers, NoSync: c.NoSync, Past: c.Past, From: c.From}
	if c.DataDir != "" {
		o.Dir = filepath.Join(c.DataDir, "store")
	}
	s, err := embedded.Open(o)
	if err != nil {
		return err
	}
	c.Store = s
	c.Process.Go(func() {
		select {
		case <-s.Failed():
			klog.FromContext(c.Process.Ctx).Error(s.Err(), "The store has failed; stopping")
			c.Process.End()
		case <-c.Process.Ctx.Done():
		}
	})
	return nil
}

// resourceAt returns the resource of the object at a key of the store. Custom resources
// are stored at GROUP/RESOURCE, before their definitions have been read too.
func (c *Instance) resourceAt(key string) schema.GroupResource {
	if row, _, _ := c.Catalogue.ForKey(key); row != nil {
		return row.GroupVersionResource.GroupResource()
	}
	group, rest, _ := strings.Cut(strings.TrimPrefix(key, "/registry/"), "/")
	resource, _, _ := strings.Cut(rest, "/")
	return schema.GroupResource{Group: group, Resource: resource}
}

func (c *Instance) ensureCerts() (err error) {
	dir := ""
	if c.DataDir != "" {
		dir = filepath.Join(c.DataDir, "pki")
	}
	first := c.ServiceCIDR.Masked().Addr().Next()
	sans := []string{"localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", first.String()}
	if c.Advertise.IsValid() {
		sans = append(sans, c.Advertise.String())
	}
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && host != "" && host != "0.0.0.0" && host != "::" {
		sans = append(sans, host)
	}
	sans = append(sans, component.Hostname())
	if name, _, err := net.SplitHostPort(c.API.ExternalHostname); err == nil {
		sans = append(sans, name)
	} else {
		sans = append(sans, c.API.ExternalHostname)
	}
	c.Certs, err = certs.Ensure(dir, certs.Options{SANs: sans, Clock: c.Clock})
	return err
}
