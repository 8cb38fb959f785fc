package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/pflag"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	generatedopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// servePeer runs upstream's generic API server for custom resources on an etcd,
// without authentication and authorization. It prints its URL.
func servePeer(ctx context.Context, etcd, address, certFile, keyFile string) error {
	s := options.NewCustomResourceDefinitionsServerOptions(os.Stdout, os.Stderr)
	r := s.RecommendedOptions
	r.Etcd.StorageConfig.Transport.ServerList = []string{etcd}
	r.Authentication, r.Authorization, r.CoreAPI, r.Admission = nil, nil, nil, nil
	r.Features.EnablePriorityAndFairness = false
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	r.SecureServing.Listener, r.SecureServing.BindPort = l, l.Addr().(*net.TCPAddr).Port
	r.SecureServing.ServerCert.CertKey.CertFile, r.SecureServing.ServerCert.CertKey.KeyFile = certFile, keyFile
	if err := s.Complete(); err != nil {
		return err
	}
	generic := genericapiserver.NewRecommendedConfig(apiserver.Codecs)
	// Nothing asks this client: webhooks and policies are of no use here.
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "https://127.0.0.1:1"})
	if err != nil {
		return err
	}
	generic.SharedInformerFactory = informers.NewSharedInformerFactory(client, 0)
	if err := s.ServerRunOptions.ApplyTo(&generic.Config); err != nil {
		return err
	}
	if err := r.ApplyTo(generic); err != nil {
		return err
	}
	if err := s.APIEnablement.ApplyTo(&generic.Config, apiserver.DefaultAPIResourceConfigSource(), apiserver.Scheme); err != nil {
		return err
	}
	namer := openapinamer.NewDefinitionNamer(apiserver.Scheme, scheme.Scheme)
	generic.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(generatedopenapi.GetOpenAPIDefinitions, namer)
	generic.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(generatedopenapi.GetOpenAPIDefinitions, namer)
	config := &apiserver.Config{GenericConfig: generic, ExtraConfig: apiserver.ExtraConfig{
		CRDRESTOptionsGetter: options.NewCRDRESTOptionsGetter(*r.Etcd, generic.ResourceTransformers, generic.StorageObjectCountTracker),
		ServiceResolver:      noServices{},
		AuthResolverWrapper:  webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, generic.LoopbackClientConfig, nil),
	}}
	server, err := config.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return err
	}
	fmt.Println("https://" + l.Addr().String())
	return server.GenericAPIServer.PrepareRun().RunWithContext(ctx)
}

// asAPIServer is the peer as envtest starts it, by upstream's name and flags.
func asAPIServer(args []string) int {
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	etcd, dir := flags.String("etcd-servers", "", "etcd"), flags.String("cert-dir", "", "folder of the certificate")
	address, port := flags.String("bind-address", "127.0.0.1", "address"), flags.String("secure-port", "", "port")
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := servePeer(ctx, *etcd, net.JoinHostPort(*address, *port), filepath.Join(*dir, "apiserver.crt"), filepath.Join(*dir, "apiserver.key")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type noServices struct{}

func (noServices) ResolveEndpoint(namespace, name string, _ int32) (*url.URL, error) {
	return nil, fmt.Errorf("there is no service %s/%s", namespace, name)
}

// keyPair writes a certificate and its key to dir.
func keyPair(dir string) error {
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)
}
