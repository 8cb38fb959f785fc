package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/dash/page"
	"keelson.dev/keelson/internal/dash/proxy"
	"keelson.dev/keelson/internal/version"
)

// dashOptions are the flags of keelson dash.
type dashOptions struct {
	kubeconfig, context string
	port                uint16
	noOpen              bool
}

func dashCommand() *cobra.Command {
	var o dashOptions
	c := &cobra.Command{
		Use:   "dash",
		Short: "Open a page that shows the cluster as it is, as it changes and as it was",
		Long: "Open a page that shows the cluster as it is, as it changes and as it was. The page comes from the API server, with the\n" +
			"rights of the kubeconfig's user; this command passes its requests on, for as long as it runs. It listens on loopback,\n" +
			"and the URL that it prints is good once: for another browser it prints another.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr()) },
	}
	c.Flags().StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: that of KUBECONFIG, or ~/.kube/config)")
	c.Flags().StringVar(&o.context, "context", "", "context of the kubeconfig (default: the current one)")
	c.Flags().Uint16Var(&o.port, "port", 0, "port to listen on; 0 is any that is free")
	c.Flags().BoolVar(&o.noOpen, "no-open", false, "do not open a browser")
	return c
}

// run serves the page until ctx is done.
func (o *dashOptions) run(ctx context.Context, out, errs io.Writer) error {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.context}).ClientConfig()
	if err != nil {
		return noCluster(err)
	}
	if err := hasPage(ctx, cfg); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(o.port))))
	if err != nil {
		return fmt.Errorf("--port: %w", err)
	}
	p, err := proxy.New(proxy.Config{Client: cfg, Listener: l, Renewed: func(url string) { fmt.Fprintln(out, "for another browser: "+url) }})
	if err != nil {
		l.Close()
		return err
	}
	url := p.URL()
	fmt.Fprintf(out, "%s as seen by its user is at %s until you press Ctrl-C\n", cfg.Host, url)
	if !o.noOpen && (os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "") {
		go func() {
			if err := exec.CommandContext(ctx, "xdg-open", url).Run(); err != nil && ctx.Err() == nil {
				fmt.Fprintf(errs, "opening a browser: %v: open the page yourself\n", err)
			}
		}()
	}
	return p.Serve(ctx)
}

// hasPage returns why a server's page cannot be opened.
func hasPage(ctx context.Context, cfg *rest.Config) error {
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return err
	}
	base, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(page.Prefix).String(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return noCluster(err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized:
		return fmt.Errorf("%s does not take the kubeconfig's credentials", cfg.Host)
	case http.StatusNotFound, http.StatusForbidden:
		// Another API server forbids what it does not know to all but administrators.
		cs, err := kubernetes.NewForConfigAndClient(cfg, client)
		if err != nil {
			return err
		}
		v, err := cs.Discovery().ServerVersion()
		if err != nil {
			return err
		}
		if !strings.HasSuffix(v.GitVersion, version.Build) {
			return fmt.Errorf("%s has no page: it is no Keelson, but Kubernetes %s", cfg.Host, v.GitVersion)
		}
		if resp.StatusCode == http.StatusNotFound {
			return fmt.Errorf("%s has no page: it is of a version before keelson dash", cfg.Host)
		}
		return fmt.Errorf("%s does not let the kubeconfig's user get the page: bind the ClusterRole keelson:dash to the user", cfg.Host)
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
	return fmt.Errorf("%s answers %s: %s", cfg.Host, resp.Status, strings.TrimSpace(string(text)))
}
