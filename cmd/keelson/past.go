package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/apiserver/history"
	"keelson.dev/keelson/internal/trace"
)

func diffCommand() *cobra.Command {
	var since, until, namespace string
	var brief bool
	c := &cobra.Command{
		Use:     "diff [TYPE[/NAME]]",
		Short:   "Show what changed in the cluster, who changed it, and because of what",
		Example: "  keelson diff --since 10m\n  keelson diff --since 1h --until 50m -n shop deploy/web",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cs, _, err := client()
			if err != nil {
				return err
			}
			r := cs.Discovery().RESTClient().Get().AbsPath(history.ChangesPath).Param("from", since)
			for name, value := range map[string]string{"to": until, "namespace": namespace} {
				if value != "" {
					r = r.Param(name, value)
				}
			}
			if len(args) == 1 {
				typ, name, _ := strings.Cut(args[0], "/")
				m, err := findType(typeMapper(cs), typ)
				if err != nil {
					return err
				}
				r = r.Param("resource", m.Resource.Resource).Param("group", m.Resource.Group).Param("name", name)
			}
			stream, err := r.Stream(c.Context())
			if err != nil {
				return err
			}
			defer stream.Close()
			return printChanges(c.OutOrStdout(), stream, brief)
		},
	}
	c.Flags().StringVar(&since, "since", "10m", "the moment after which the changes are shown: how long ago (10m), a time (2006-01-02T15:04:05Z) or a resourceVersion")
	c.Flags().StringVar(&until, "until", "", "the moment up to which (default: now)")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the objects (default: all, and objects in none)")
	c.Flags().BoolVarP(&brief, "brief", "s", false, "show who changed which objects, and not what")
	return c
}

// printChanges prints the objects that an API server has answered with.
func printChanges(w io.Writer, r io.Reader, brief bool) error {
	var objects []*history.Object
	uids := map[string]string{} // the object's name by its UID
	dec := json.NewDecoder(bufio.NewReader(r))
	for dec.More() {
		o := &history.Object{}
		if err := dec.Decode(o); err != nil {
			return fmt.Errorf("reading the server's answer: %w", err)
		}
		objects = append(objects, o)
		for _, u := range []*unstructured.Unstructured{o.Before, o.After} {
			if u != nil {
				uids[string(u.GetUID())] = strings.ToLower(u.GetKind()) + "/" + u.GetName()
			}
		}
	}
	if len(objects) == 0 {
		fmt.Fprintln(w, "nothing changed")
	}
	for i, o := range objects {
		if i > 0 && !brief {
			fmt.Fprintln(w)
		}
		name := schema.GroupResource{Group: o.Group, Resource: o.Resource}.String() + "/" + o.Name
		if o.Namespace != "" {
			name += " in " + o.Namespace
		}
		fmt.Fprintln(w, name)
		for _, c := range o.Changes {
			fmt.Fprintln(w, "  "+changeLine(&c, o, uids))
		}
		if brief {
			continue
		}
		if err := printDiff(w, o.Before, o.After); err != nil {
			return err
		}
	}
	return nil
}

// changeLine describes a write: when, what, by whom, with what, because of what.
func changeLine(c *history.Change, o *history.Object, uids map[string]string) string {
	line := c.Time.Local().Format("15:04:05.000") + " " + c.Verb
	if c.Subresource != "" {
		line += " " + c.Subresource
	}
	user := strings.TrimPrefix(c.User, "system:serviceaccount:kube-system:")
	if user == "" {
		user = "the API server"
	}
	line += " by " + user
	if client, _, _ := strings.Cut(c.Client, " "); client != "" && !strings.HasPrefix(client, user) {
		line += " with " + client
	}
	if cause, err := trace.ParseCause(c.Cause); err == nil {
		if of, ok := uids[string(cause.UID)]; ok && cause.UID != o.UID {
			line += ", because of " + of
		}
	}
	return line
}

// printDiff prints how an object's YAML changed.
func printDiff(w io.Writer, before, after *unstructured.Unstructured) error {
	text := func(u *unstructured.Unstructured) ([]string, error) {
		if u == nil {
			return nil, nil
		}
		b, err := yaml.Marshal(u.Object)
		return difflib.SplitLines(string(b)), err
	}
	a, err := text(before)
	if err != nil {
		return err
	}
	b, err := text(after)
	if err != nil {
		return err
	}
	return difflib.WriteUnifiedDiff(w, difflib.UnifiedDiff{A: a, B: b, FromFile: "before", ToFile: "after", Context: 2})
}

func restoreCommand() *cobra.Command {
	var at, namespace string
	var dry bool
	c := &cobra.Command{
		Use:     "restore TYPE/NAME --at MOMENT",
		Short:   "Bring an object back to what it was at a moment, or back where it was deleted",
		Example: "  keelson restore deploy/web --at 10m",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if at == "" {
				return errors.New("--at: give the moment: how long ago (10m), a time (2006-01-02T15:04:05Z) or a resourceVersion")
			}
			cs, cfg, err := adminClient()
			if err != nil {
				return err
			}
			o, err := findObject(cs, args[0], namespace)
			if err != nil {
				return err
			}
			present, err := dynamic.NewForConfig(cfg)
			if err != nil {
				return err
			}
			past, err := dynamic.NewForConfig(atMoment(cfg, at))
			if err != nil {
				return err
			}
			r := restorer{present: present, past: past, object: o, out: c.OutOrStdout(), dry: dry}
			return r.restore(c.Context())
		},
	}
	c.Flags().StringVar(&at, "at", "", "the moment: how long ago (10m), a time (2006-01-02T15:04:05Z) or a resourceVersion")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the object")
	c.Flags().BoolVar(&dry, "dry-run", false, "show what would change, and change nothing")
	return c
}

// restorer writes objects of the past into the present.
type restorer struct {
	present, past dynamic.Interface
	object        *object
	out           io.Writer
	dry           bool
}

func (r *restorer) restore(ctx context.Context) error {
	o := r.object
	was, err := o.in(r.past).Get(ctx, o.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s %q did not exist then", o.resource(), o.name)
	}
	if err != nil {
		return err
	}
	client := o.in(r.present)
	is, err := client.Get(ctx, o.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		is, err = nil, nil
	}
	if err != nil {
		return err
	}
	next := was.DeepCopy()
	next.SetManagedFields(nil)
	next.SetDeletionTimestamp(nil)
	next.SetDeletionGracePeriodSeconds(nil)
	if is == nil {
		unstructured.RemoveNestedField(next.Object, "metadata", "uid")
		unstructured.RemoveNestedField(next.Object, "metadata", "creationTimestamp")
		next.SetResourceVersion("")
		next.SetGeneration(0)
		if err := r.dropOwners(ctx, next); err != nil {
			return err
		}
	} else {
		next.SetUID(is.GetUID())
		next.SetResourceVersion(is.GetResourceVersion())
	}
	var dry []string
	if r.dry {
		dry = []string{metav1.DryRunAll}
	}
	const manager = "keelson-restore"
	var got *unstructured.Unstructured
	verb := "restored"
	if is == nil {
		verb = "created again"
		got, err = client.Create(ctx, next, metav1.CreateOptions{FieldManager: manager, DryRun: dry})
	} else {
		got, err = client.Update(ctx, next, metav1.UpdateOptions{FieldManager: manager, DryRun: dry})
	}
	if err != nil {
		return err
	}
	for _, u := range []*unstructured.Unstructured{is, got} {
		if u != nil {
			u.SetManagedFields(nil)
			u.SetResourceVersion("")
		}
	}
	if o.resource() != (schema.GroupResource{Resource: "secrets"}) {
		if err := printDiff(r.out, is, got); err != nil {
			return err
		}
	}
	suffix := ""
	if r.dry {
		suffix = " (dry run)"
	}
	fmt.Fprintf(r.out, "%s/%s %s%s\n", o.resource(), o.name, verb, suffix)
	return nil
}

// dropOwners removes the owners that do not exist any more, because of which the garbage
// collector would delete the object.
func (r *restorer) dropOwners(ctx context.Context, u *unstructured.Unstructured) error {
	var kept []metav1.OwnerReference
	for _, o := range u.GetOwnerReferences() {
		gvk := schema.FromAPIVersionAndKind(o.APIVersion, o.Kind)
		m, err := r.object.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			return err
		}
		owner := object{mapping: m, namespace: namespaceOf(m, u.GetNamespace()), name: o.Name}
		is, err := owner.in(r.present).Get(ctx, o.Name, metav1.GetOptions{})
		switch {
		case err == nil && is.GetUID() == o.UID:
			kept = append(kept, o)
		case err == nil || apierrors.IsNotFound(err):
			fmt.Fprintf(os.Stderr, "its owner %s %s does not exist any more: it has none now\n", o.Kind, o.Name)
		default:
			return err
		}
	}
	u.SetOwnerReferences(kept)
	return nil
}
