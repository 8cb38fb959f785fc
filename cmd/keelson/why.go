package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/history"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/timeline"
	"keelson.dev/keelson/internal/why"
)

func whyCommand() *cobra.Command {
	var namespace string
	c := &cobra.Command{
		Use:     "why TYPE/NAME",
		Short:   "Say why an object is as it is, in a few sentences, also of one that does not exist any more",
		Example: "  keelson why pod/web-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := facts(c.Context(), args[0], namespace)
			if err != nil {
				return err
			}
			for _, s := range why.Explain(*f) {
				fmt.Fprintln(c.OutOrStdout(), printers.EscapeTerminal(s)) // others wrote the messages
			}
			return nil
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the object")
	return c
}

// facts gets what is known of the object that arg names.
func facts(ctx context.Context, arg, namespace string) (*why.Facts, error) {
	cs, cfg, err := adminClient()
	if err != nil {
		return nil, err
	}
	o, err := findObject(cs, arg, namespace)
	if err != nil {
		return nil, err
	}
	f := &why.Facts{Now: time.Now()}
	if f.Changes, err = remembered(ctx, cs, o.namespace); err != nil {
		return nil, err
	}
	d, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	f.Object, err = o.in(d).Get(ctx, o.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		last := int64(0) // the revision of its end
		for _, c := range f.Changes {
			if c.Resource == o.resource().Resource && c.Group == o.resource().Group && c.Name == o.name && c.Namespace == o.namespace {
				last = c.Changes[len(c.Changes)-1].Revision
			}
		}
		if last == 0 {
			return nil, fmt.Errorf("%s %q does not exist, and the history has nothing of it", o.resource(), o.name)
		}
		if d, err = dynamic.NewForConfig(atMoment(cfg, strconv.FormatInt(last-1, 10))); err != nil {
			return nil, err
		}
		f.Gone = true
		f.Object, err = o.in(d).Get(ctx, o.name, metav1.GetOptions{})
	}
	if err != nil {
		return nil, err
	}
	events, err := cs.CoreV1().Events(o.namespace).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(f.Object.GetUID())).String()})
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, err
	}
	if events != nil {
		f.Events = events.Items
	}
	f.Way = wayOf(ctx, cs, o)
	return f, nil
}

// wayOf returns the trace of an object, nil where there is none: the server may be
// another, or may have been restarted.
func wayOf(ctx context.Context, cs *kubernetes.Clientset, o *object) *timeline.Timeline {
	data, err := cs.Discovery().RESTClient().Get().AbsPath(trace.Path).
		Param("resource", o.resource().Resource).Param("group", o.resource().Group).Param("namespace", o.namespace).Param("name", o.name).DoRaw(ctx)
	if err != nil {
		return nil
	}
	t := &timeline.Timeline{}
	if json.Unmarshal(data, t) != nil {
		return nil
	}
	return t
}

// remembered returns all changes in a namespace, or of objects in none, that the server
// remembers; none where it remembers nothing.
func remembered(ctx context.Context, cs *kubernetes.Clientset, namespace string) (out []*history.Object, err error) {
	r := cs.Discovery().RESTClient().Get().AbsPath(history.ChangesPath).Param("from", apiserver.Oldest).Param("brief", "true")
	if namespace != "" {
		r = r.Param("namespace", namespace)
	}
	stream, err := r.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for dec := json.NewDecoder(stream); dec.More(); {
		o := &history.Object{}
		if err := dec.Decode(o); err != nil {
			return nil, fmt.Errorf("reading the server's answer: %w", err)
		}
		out = append(out, o)
	}
	return out, nil
}
