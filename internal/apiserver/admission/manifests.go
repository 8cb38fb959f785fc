package admission

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/manifest"
	"sigs.k8s.io/yaml"
)

// static reports whether the plug-in's configuration names a folder of manifests
// (KEP-5793), which it is made with as the server starts.
func (e *Environment) static(name string) (bool, error) {
	r, err := e.Configuration.ConfigFor(name)
	if err != nil || r == nil {
		return false, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return false, err
	}
	var config struct {
		Dir string `json:"staticManifestsDir"`
	}
	err = yaml.Unmarshal(data, &config)
	return config.Dir != "", err
}

// loaders read manifests with the catalogue's defaults and rules.
func (e *Environment) loaders() *initializer.ManifestLoaders {
	return &initializer.ManifestLoaders{
		LoadValidatingWebhookManifests: func(dir string) ([]*v1.ValidatingWebhookConfiguration, string, error) {
			m, err := e.manifests(dir, "ValidatingWebhookConfiguration")
			return of[*v1.ValidatingWebhookConfiguration](m), m.hash, err
		},
		LoadMutatingWebhookManifests: func(dir string) ([]*v1.MutatingWebhookConfiguration, string, error) {
			m, err := e.manifests(dir, "MutatingWebhookConfiguration")
			return of[*v1.MutatingWebhookConfiguration](m), m.hash, err
		},
		LoadValidatingPolicyManifests: func(dir string) ([]*v1.ValidatingAdmissionPolicy, []*v1.ValidatingAdmissionPolicyBinding, string, error) {
			m, err := e.manifests(dir, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
			return of[*v1.ValidatingAdmissionPolicy](m), of[*v1.ValidatingAdmissionPolicyBinding](m), m.hash, err
		},
		LoadMutatingPolicyManifests: func(dir string) ([]*v1.MutatingAdmissionPolicy, []*v1.MutatingAdmissionPolicyBinding, string, error) {
			m, err := e.manifests(dir, "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding")
			return of[*v1.MutatingAdmissionPolicy](m), of[*v1.MutatingAdmissionPolicyBinding](m), m.hash, err
		},
	}
}

// manifests are the objects in the files of a folder, and a hash of those.
type manifests struct {
	objects []runtime.Object
	hash    string
}

func of[T runtime.Object](m manifests) (out []T) {
	for _, o := range m.objects {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}

// manifests reads the folder, in which only objects of kinds may be. Nothing of it
// counts where something is wrong.
func (e *Environment) manifests(dir string, kinds ...string) (manifests, error) {
	docs, hash, err := manifest.LoadFiles(dir)
	if err != nil {
		return manifests{}, err
	}
	m := manifests{hash: hash}
	seen := map[string]map[string]string{}
	policies := map[string]bool{}
	for _, d := range docs {
		var t metav1.TypeMeta
		data, err := yaml.YAMLToJSONStrict(d.Doc)
		if err == nil {
			err = json.Unmarshal(data, &t)
		}
		if err != nil {
			return manifests{}, fmt.Errorf("file %q: %w", d.FilePath, err)
		}
		gvk := schema.FromAPIVersionAndKind(t.APIVersion, t.Kind)
		row := e.Catalogue.ForKind(gvk)
		if row == nil || gvk.Group != v1.GroupName || !slices.Contains(kinds, gvk.Kind) {
			return manifests{}, fmt.Errorf("file %q has an object of %s %q: want %s of %s", d.FilePath, t.APIVersion, t.Kind, strings.Join(kinds, " or "), v1.SchemeGroupVersion)
		}
		obj := row.New()
		if err := yaml.UnmarshalStrict(d.Doc, obj); err != nil {
			return manifests{}, fmt.Errorf("file %q: %w", d.FilePath, err)
		}
		acc, err := meta.Accessor(obj)
		if err != nil {
			return manifests{}, err
		}
		if seen[gvk.Kind] == nil {
			seen[gvk.Kind] = map[string]string{}
		}
		if err := manifest.ValidateManifestName(acc.GetName(), d.FilePath, seen[gvk.Kind]); err != nil {
			return manifests{}, err
		}
		if row.Default != nil {
			row.Default(obj)
		}
		if err := errors.Join(row.Validate(obj).ToAggregate(), alone(obj)); err != nil {
			return manifests{}, fmt.Errorf("%s %q in file %q: %w", gvk.Kind, acc.GetName(), d.FilePath, err)
		}
		if strings.HasSuffix(gvk.Kind, "Policy") {
			policies[acc.GetName()] = true
		}
		m.objects = append(m.objects, obj)
	}
	for _, o := range m.objects {
		name, policy := "", ""
		switch b := o.(type) {
		case *v1.ValidatingAdmissionPolicyBinding:
			name, policy = b.Name, b.Spec.PolicyName
		case *v1.MutatingAdmissionPolicyBinding:
			name, policy = b.Name, b.Spec.PolicyName
		default:
			continue
		}
		if !policies[policy] {
			return manifests{}, fmt.Errorf("binding %q is of policy %q, which is not in %q", name, policy, dir)
		}
	}
	return m, nil
}

// alone wants that an object needs no other one of the API to work.
func alone(obj runtime.Object) error {
	service := func(name string, c *v1.WebhookClientConfig) error {
		if c.Service != nil {
			return fmt.Errorf("webhook %q: clientConfig.service is not allowed in a static manifest: use clientConfig.url", name)
		}
		return nil
	}
	var errs []error
	switch o := obj.(type) {
	case *v1.ValidatingWebhookConfiguration:
		for i := range o.Webhooks {
			errs = append(errs, service(o.Webhooks[i].Name, &o.Webhooks[i].ClientConfig))
		}
	case *v1.MutatingWebhookConfiguration:
		for i := range o.Webhooks {
			errs = append(errs, service(o.Webhooks[i].Name, &o.Webhooks[i].ClientConfig))
		}
	case *v1.ValidatingAdmissionPolicy:
		if o.Spec.ParamKind != nil {
			return errors.New("spec.paramKind is not allowed in a static manifest")
		}
	case *v1.MutatingAdmissionPolicy:
		if o.Spec.ParamKind != nil {
			return errors.New("spec.paramKind is not allowed in a static manifest")
		}
	case *v1.ValidatingAdmissionPolicyBinding:
		if o.Spec.ParamRef != nil {
			return errors.New("spec.paramRef is not allowed in a static manifest")
		}
	case *v1.MutatingAdmissionPolicyBinding:
		if o.Spec.ParamRef != nil {
			return errors.New("spec.paramRef is not allowed in a static manifest")
		}
	}
	return errors.Join(errs...)
}

// starter is a plug-in that is made as the server starts.
type starter interface{ begin() error }

// begin makes the plug-in if it has manifests: a fault in them ends the server.
func (c *callout) begin() error {
	if !c.static {
		return nil
	}
	_, err := c.make()
	return err
}
