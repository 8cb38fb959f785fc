// Package podtest has what tests of pods in real containers share.
package podtest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"keelson.dev/keelson/test/harness"
)

// Exec runs a command as kubectl exec does, over WebSocket, in a container of a pod (the
// only one if container is empty), and returns its standard output. An error has what
// the command wrote to its standard error. It fails after harness.Patience.
func Exec(ctx context.Context, cfg *rest.Config, namespace, pod, container, stdin string, command ...string) (string, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return "", err
	}
	req := client.CoreV1().RESTClient().Get().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&v1.PodExecOptions{Container: container, Command: command, Stdin: stdin != "", Stdout: true, Stderr: true}, scheme.ParameterCodec)
	x, err := remotecommand.NewWebSocketExecutor(cfg, "GET", req.URL().String())
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	var out, errOut bytes.Buffer
	o := remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut}
	if stdin != "" {
		o.Stdin = strings.NewReader(stdin)
	}
	if err := x.StreamWithContext(ctx, o); err != nil {
		return "", fmt.Errorf("%v: %w: %s", command, err, errOut.String())
	}
	return out.String(), nil
}

// Ready reports whether a pod is Ready.
func Ready(p *v1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.PodReady && c.Status == v1.ConditionTrue })
}
