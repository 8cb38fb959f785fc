package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/machine/containerd"
)

func logFile(dataDir string) string { return filepath.Join(dataDir, "keelson.log") }

func upCommand() *cobra.Command {
	var f serverFlags
	c := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster in the background",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return up(c, &f) },
	}
	f.add(c)
	return c
}

// given returns the flags that have been set, as arguments.
func given(flags *pflag.FlagSet) (args []string) {
	flags.Visit(func(fl *pflag.Flag) {
		value := fl.Value.String()
		if list, ok := fl.Value.(pflag.SliceValue); ok && fl.Value.Type() == "stringArray" {
			for _, value := range list.GetSlice() {
				args = append(args, "--"+fl.Name+"="+value)
			}
			return
		}
		if list, ok := fl.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		} else if fl.Value.Type() == "stringToString" {
			value = strings.Trim(value, "[]")
		}
		args = append(args, "--"+fl.Name+"="+value)
	})
	return args
}

func up(c *cobra.Command, f *serverFlags) error {
	if f.DataDir == "" {
		return errors.New("up needs a --data-dir: a cluster in memory runs in the foreground, with keelson server")
	}
	var err error
	if f.DataDir, err = filepath.Abs(f.DataDir); err != nil {
		return err
	}
	pid, err := serverInstance.running(f.DataDir)
	if err != nil {
		return err
	}
	if pid != 0 {
		if err := f.answers(c.Context()); err != nil {
			return fmt.Errorf("process %d runs, but not all of its parts do: %w: see %s, or stop it with keelson down", pid, err, logFile(f.DataDir))
		}
		fmt.Printf("already running (process %d)\n", pid)
		return merge(f.DataDir)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	lock, err := serverInstance.lock(f.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	log, err := os.OpenFile(logFile(f.DataDir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	if err := c.Flags().Set("data-dir", f.DataDir); err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{"server"}, given(c.Flags())...)...)
	cmd.Stdout, cmd.Stderr = in, log
	// The child keeps the lock through its copy of the file.
	cmd.ExtraFiles = []*os.File{lock}
	cmd.Env = append(os.Environ(), lockEnv+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	in.Close()
	if err := write(lock, cmd.Process.Pid); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	ready := false
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fmt.Println(lines.Text())
		if strings.HasPrefix(lines.Text(), "ready ") {
			ready = true
			break
		}
	}
	if !ready {
		_ = cmd.Wait()
		return fmt.Errorf("the cluster did not start: %s (the whole log is in %s)", lastLine(logFile(f.DataDir)), logFile(f.DataDir))
	}
	return merge(f.DataDir)
}

// answers waits until the parts of a cluster that runs already answer: the API
// server, and where it has a node, the container runtime and the node agent.
func (f *serverFlags) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cfg, err := clientcmd.BuildConfigFromFlags("", adminKubeconfig(f.DataDir))
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	type part struct {
		name  string
		ready func() error
	}
	parts := []part{{"API server", func() error { return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() }}}
	m, err := f.node.machine(f.DataDir)
	if err != nil {
		return err
	}
	if m != nil {
		if _, err := os.Stat(m.Dir()); err == nil {
			o, err := f.node.options(f.DataDir)
			if err != nil {
				return err
			}
			name := o.NodeName()
			parts = append(parts, part{"container runtime", func() error { return m.Answers(ctx) }},
				part{"node " + name, func() error { return nodeReady(ctx, client, name) }})
		}
	}
	for _, p := range parts {
		if err := await(ctx, p.name, p.ready); err != nil {
			return err
		}
	}
	return nil
}

// await asks until a part is ready, and says so while that takes long.
func await(ctx context.Context, what string, ready func() error) error {
	begun, told := time.Now(), time.Now()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if time.Since(told) > 3*time.Second {
			told = time.Now()
			fmt.Printf("waiting for %s, %s: %v\n", what, time.Since(begun).Round(time.Second), err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

func nodeReady(ctx context.Context, client kubernetes.Interface, name string) error {
	n, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == v1.NodeReady && c.Status != v1.ConditionTrue {
			return fmt.Errorf("not ready: %s", c.Message)
		}
	}
	return nil
}

func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "keelson: ")
}

// merge puts the cluster into the user's kubeconfig.
func merge(dataDir string) error {
	cfg, err := clientcmd.LoadFromFile(adminKubeconfig(dataDir))
	if err != nil {
		return err
	}
	path, err := certs.Merge(cfg)
	if err != nil {
		return err
	}
	keelson, kubectl := spoken(os.Args[0], exec.LookPath)
	fmt.Printf("kubeconfig       context %q in %s\n\nTry:\n  %[3]s get nodes\n  %[3]s create deployment web --image=keelson.local/demo --replicas=3\n  %[3]s get pods -o wide -w\n  %[4]s trace deploy/web\n", contextName, path, kubectl, keelson)
	return nil
}

// spoken returns the words by which the user calls keelson, which is program here, and
// kubectl: the built-in one where there is no other.
func spoken(program string, lookPath func(string) (string, error)) (keelson, kubectl string) {
	keelson, kubectl = "keelson", "kubectl"
	if _, err := lookPath(keelson); err != nil {
		keelson = program
	}
	if _, err := lookPath(kubectl); err != nil {
		kubectl = keelson + " kubectl"
	}
	return keelson, kubectl
}

// downFlags holds the flags of down and reset.
type downFlags struct {
	dataDir string
	grace   time.Duration
}

func (f *downFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.dataDir, "data-dir", defaultDataDir, "the cluster's folder")
	flags.DurationVar(&f.grace, "grace-period", -1, "the most that a pod is given to end, however long its own grace period is; negative is no such limit")
}

func downCommand() *cobra.Command {
	var f downFlags
	c := &cobra.Command{
		Use: "down", Short: "Stop the cluster, or the node that has joined one; its objects are kept", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return down(c.Context(), f) },
	}
	f.add(c.Flags())
	return c
}

// down asks the cluster's process, and the agent, to end, waits until they have, and
// stops what they leave on the machine.
func down(ctx context.Context, o downFlags) error {
	dataDir, err := filepath.Abs(o.dataDir)
	if err != nil {
		return err
	}
	said := "not running"
	for _, i := range []instance{agentInstance, serverInstance} {
		ended, err := i.end(ctx, dataDir)
		if err != nil {
			return err
		}
		if ended {
			said = i.again
		}
	}
	if err := clean(ctx, dataDir, o.grace); err != nil {
		return err
	}
	fmt.Println(said)
	return nil
}

// clean takes down what the cluster has on the machine: pods, runtime, network.
func clean(ctx context.Context, dataDir string, grace time.Duration) error {
	if os.Geteuid() != 0 {
		return nil // without root there is no node
	}
	m := machine.New(dataDir, machine.Options{})
	if _, err := os.Stat(m.Dir()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return m.Clean(ctx, containerd.StopOptions{MaxGrace: grace, Report: func(line string) { fmt.Println(line) }})
}

func resetCommand() *cobra.Command {
	var f downFlags
	c := &cobra.Command{
		Use: "reset", Short: "Stop the cluster, or the node that has joined one, and erase it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dataDir := f.dataDir
			if dataDir == "" || filepath.Clean(dataDir) == "/" {
				return fmt.Errorf("--data-dir %q: give the cluster's folder", dataDir)
			}
			if _, err := os.Stat(dataDir); errors.Is(err, os.ErrNotExist) {
				fmt.Println("nothing to erase")
				return certs.Remove(contextName)
			}
			if err := down(c.Context(), f); err != nil {
				return err
			}
			if err := machine.New(dataDir, machine.Options{}).Erase(); err != nil {
				return err
			}
			for _, name := range []string{"store", "pki", "admin.kubeconfig", "keelson.log", serverInstance.file, agentInstance.file, "node", "containerd"} {
				if err := os.RemoveAll(filepath.Join(dataDir, name)); err != nil {
					return err
				}
			}
			// What is not ours stays, and with it the folder.
			_ = os.Remove(dataDir)
			if err := certs.Remove(contextName); err != nil {
				return err
			}
			fmt.Println("erased")
			return nil
		},
	}
	f.add(c.Flags())
	return c
}

// client returns a client of the user's kubeconfig, with its namespace.
func client() (*kubernetes.Clientset, string, error) {
	loader := userKubeconfig()
	cfg, err := loader.ClientConfig()
	if err != nil {
		return nil, "", noCluster(err)
	}
	ns, _, err := loader.Namespace()
	if err != nil {
		return nil, "", err
	}
	cs, err := kubernetes.NewForConfig(cfg)
	return cs, ns, err
}

// adminClient returns a client of the user's kubeconfig, with its
// configuration.
func adminClient() (*kubernetes.Clientset, *rest.Config, error) {
	cfg, err := userKubeconfig().ClientConfig()
	if err != nil {
		return nil, nil, noCluster(err)
	}
	cs, err := kubernetes.NewForConfig(cfg)
	return cs, cfg, err
}

func userKubeconfig() clientcmd.ClientConfig {
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{})
}

func noCluster(err error) error {
	return fmt.Errorf("no cluster to ask: %w: start one with keelson up, or set KUBECONFIG", err)
}
