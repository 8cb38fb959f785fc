package controlplane

import (
	"go.opentelemetry.io/otel/trace/noop"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/conversion"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/metadata"

	"keelson.dev/keelson/internal/apiserver/answer"
	"keelson.dev/keelson/internal/apiserver/customresource"
	"keelson.dev/keelson/internal/apiserver/inprocess"
)

// startCustomResources serves what CustomResourceDefinitions define.
func (c *Instance) startCustomResources() error {
	cfg := c.Config(inprocess.APIServer)
	client, err := apiextensions.NewForConfig(cfg)
	if err != nil {
		return err
	}
	meta, err := metadata.NewForConfig(metadata.ConfigFor(cfg))
	if err != nil {
		return err
	}
	resolver, err := c.serviceResolver()
	if err != nil {
		return err
	}
	reach := webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, cfg, noop.NewTracerProvider())
	converters, err := conversion.NewCRConverterFactory(resolver, func(d webhook.AuthenticationInfoResolver) webhook.AuthenticationInfoResolver {
		return answer.Webhooks(reach(d))
	})
	if err != nil {
		return err
	}
	run, err := customresource.New(customresource.Options{
		Client: client, Metadata: meta, Informers: c.Informers, Catalogue: c.Catalogue, Converters: converters, Clock: c.Clock,
	})
	if err != nil {
		return err
	}
	c.Process.Go(func() { run(c.Process.Ctx) })
	return nil
}
