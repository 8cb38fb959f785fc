package core

import (
	"encoding/json"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/api/row"
)

// maxDataSize bounds the data of a ConfigMap or Secret.
const maxDataSize = 1024 * 1024

func podTemplates() *api.Resource {
	r := api.Resource{Namespaced: true}
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Containers", "Names of each container in the template."),
		row.String("Images", "Images referenced by each container in the template."), row.String("Pod Labels", "The labels for the pod template.")}
	return row.New[v1.PodTemplateList](v1.SchemeGroupVersion, r, row.Kind[*v1.PodTemplate]{
		Generation: true,
		Spec:       func(t *v1.PodTemplate) any { return &t.Template },
		Default:    func(t *v1.PodTemplate) { podspec.SetDefaultsPodTemplate(&t.Template) },
		Validate: func(t *v1.PodTemplate) field.ErrorList {
			return podspec.ValidatePodTemplateSpec(&t.Template, field.NewPath("template"))
		},
		Cells: func(t *v1.PodTemplate, _ time.Time) []any {
			names, images := row.Containers(t.Template.Spec.Containers)
			return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
		},
	})
}

func replicationControllers() *api.Resource {
	r := api.Resource{ShortNames: []string{"rc"}, Namespaced: true, StoragePrefix: "controllers"}
	r.Categories = []string{"all"}
	r.OrphanByDefault = true
	doc := v1.ReplicationControllerSpec{}.SwaggerDoc()
	r.Columns = append([]metav1.TableColumnDefinition{row.Name(), row.Integer("Desired", doc["replicas"]),
		row.Integer("Current", v1.ReplicationControllerStatus{}.SwaggerDoc()["replicas"]),
		row.Integer("Ready", v1.ReplicationControllerStatus{}.SwaggerDoc()["readyReplicas"]), row.Age()},
		append(row.TemplateColumns(), row.Wide("Selector", doc["selector"]))...)
	r.FieldLabels = []string{"status.replicas"}
	validate := func(rc *v1.ReplicationController) field.ErrorList {
		at := field.NewPath("spec")
		var errs field.ErrorList
		if len(rc.Spec.Selector) == 0 {
			errs = append(errs, field.Required(at.Child("selector"), ""))
		}
		if rc.Spec.Template == nil {
			return append(errs, field.Required(at.Child("template"), ""))
		}
		if len(rc.Spec.Selector) > 0 && !labels.SelectorFromSet(rc.Spec.Selector).Matches(labels.Set(rc.Spec.Template.Labels)) {
			errs = append(errs, field.Invalid(at.Child("template", "metadata", "labels"), rc.Spec.Template.Labels, "`selector` does not match template `labels`"))
		}
		errs = append(errs, podspec.ValidatePodTemplateSpec(rc.Spec.Template, at.Child("template"))...)
		return append(errs, podspec.ValidateAlwaysRestart(&rc.Spec.Template.Spec, "ReplicationController", at.Child("template", "spec"))...)
	}
	return row.New[v1.ReplicationControllerList](v1.SchemeGroupVersion, r, row.Kind[*v1.ReplicationController]{
		Generation: true,
		Spec:       func(rc *v1.ReplicationController) any { return &rc.Spec },
		Status:     func(rc *v1.ReplicationController) any { return &rc.Status },
		Scale: func(rc *v1.ReplicationController) row.Scale {
			return row.Scale{Replicas: &rc.Spec.Replicas, Current: rc.Status.Replicas, Selector: labels.SelectorFromSet(rc.Spec.Selector).String()}
		},
		Default: func(rc *v1.ReplicationController) {
			if rc.Spec.Replicas == nil {
				rc.Spec.Replicas = ptr.To[int32](1)
			}
			if rc.Spec.Template == nil {
				return
			}
			if len(rc.Spec.Selector) == 0 {
				rc.Spec.Selector = rc.Spec.Template.Labels
			}
			if len(rc.Labels) == 0 {
				rc.Labels = rc.Spec.Template.Labels
			}
			podspec.SetDefaultsPodTemplate(rc.Spec.Template)
		},
		Validate:             validate,
		ValidateStatusUpdate: func(rc, _ *v1.ReplicationController) field.ErrorList { return validateControllerStatus(&rc.Status) },
		Fields: func(rc *v1.ReplicationController) fields.Set {
			return fields.Set{"status.replicas": fmt.Sprint(rc.Status.Replicas)}
		},
		Cells: func(rc *v1.ReplicationController, now time.Time) []any {
			var names, images string
			if rc.Spec.Template != nil {
				names, images = row.Containers(rc.Spec.Template.Spec.Containers)
			}
			return []any{rc.Name, int64(ptr.Deref(rc.Spec.Replicas, 0)), int64(rc.Status.Replicas), int64(rc.Status.ReadyReplicas),
				row.Created(rc, now), names, images, labels.FormatLabels(rc.Spec.Selector)}
		},
	})
}

func validateControllerStatus(s *v1.ReplicationControllerStatus) (errs field.ErrorList) {
	at := field.NewPath("status")
	for _, f := range []struct {
		name   string
		number int64
		of     bool // it counts some of the replicas
	}{{"replicas", int64(s.Replicas), false}, {"fullyLabeledReplicas", int64(s.FullyLabeledReplicas), true}, {"readyReplicas", int64(s.ReadyReplicas), true},
		{"availableReplicas", int64(s.AvailableReplicas), true}, {"observedGeneration", s.ObservedGeneration, false}} {
		errs = append(errs, apivalidation.ValidateNonnegativeField(f.number, at.Child(f.name))...)
		if f.of && f.number > int64(s.Replicas) {
			errs = append(errs, field.Invalid(at.Child(f.name), f.number, "cannot be greater than status.replicas"))
		}
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(at.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	return errs
}

func configMaps() *api.Resource {
	r := api.Resource{ShortNames: []string{"cm"}, Namespaced: true, Columns: []metav1.TableColumnDefinition{row.Name(), row.String("Data", v1.ConfigMap{}.SwaggerDoc()["data"]), row.Age()}}
	validate := func(c *v1.ConfigMap) (errs field.ErrorList) {
		size := 0
		for k, v := range c.Data {
			errs = append(errs, dataKey(field.NewPath("data").Key(k), k)...)
			if _, ok := c.BinaryData[k]; ok {
				errs = append(errs, field.Invalid(field.NewPath("data").Key(k), k, "duplicate of key present in binaryData"))
			}
			size += len(v)
		}
		for k, v := range c.BinaryData {
			errs = append(errs, dataKey(field.NewPath("binaryData").Key(k), k)...)
			size += len(v)
		}
		if size > maxDataSize {
			errs = append(errs, field.TooLong(field.NewPath(""), "", maxDataSize))
		}
		return errs
	}
	return row.New[v1.ConfigMapList](v1.SchemeGroupVersion, r, row.Kind[*v1.ConfigMap]{
		Validate: validate,
		ValidateUpdate: func(c, old *v1.ConfigMap) field.ErrorList {
			var errs field.ErrorList
			if ptr.Deref(old.Immutable, false) {
				if !ptr.Deref(c.Immutable, false) {
					errs = append(errs, field.Forbidden(field.NewPath("immutable"), "field is immutable when `immutable` is set"))
				}
				if !sameStrings(c.Data, old.Data) {
					errs = append(errs, field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set"))
				}
				if !sameBytes(c.BinaryData, old.BinaryData) {
					errs = append(errs, field.Forbidden(field.NewPath("binaryData"), "field is immutable when `immutable` is set"))
				}
			}
			return append(errs, validate(c)...)
		},
		Cells: func(c *v1.ConfigMap, now time.Time) []any {
			return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), row.Created(c, now)}
		},
	})
}

func dataKey(at *field.Path, key string) (errs field.ErrorList) {
	for _, msg := range validation.IsConfigMapKey(key) {
		errs = append(errs, field.Invalid(at, key, msg))
	}
	return errs
}

func sameStrings(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

func sameBytes(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || string(v) != string(w) {
			return false
		}
	}
	return true
}

func secrets() *api.Resource {
	r := api.Resource{Namespaced: true}
	doc := v1.Secret{}.SwaggerDoc()
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Type", doc["type"]), row.String("Data", doc["data"]), row.Age()}
	r.FieldLabels = []string{"type"}
	validate := func(s *v1.Secret) (errs field.ErrorList) {
		size := 0
		data := field.NewPath("data")
		for k, v := range s.Data {
			errs = append(errs, dataKey(data.Key(k), k)...)
			size += len(v)
		}
		if size > v1.MaxSecretSize {
			errs = append(errs, field.TooLong(data, "", v1.MaxSecretSize))
		}
		need := func(keys ...string) {
			for _, k := range keys {
				if _, ok := s.Data[k]; !ok {
					errs = append(errs, field.Required(data.Key(k), ""))
				}
			}
		}
		switch s.Type {
		case v1.SecretTypeServiceAccountToken:
			if s.Annotations[v1.ServiceAccountNameKey] == "" {
				errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(v1.ServiceAccountNameKey), ""))
			}
		case v1.SecretTypeDockercfg:
			need(v1.DockerConfigKey)
			errs = append(errs, jsonObject(s.Data[v1.DockerConfigKey], data.Key(v1.DockerConfigKey))...)
		case v1.SecretTypeDockerConfigJson:
			need(v1.DockerConfigJsonKey)
			errs = append(errs, jsonObject(s.Data[v1.DockerConfigJsonKey], data.Key(v1.DockerConfigJsonKey))...)
		case v1.SecretTypeBasicAuth:
			_, user := s.Data[v1.BasicAuthUsernameKey]
			_, pass := s.Data[v1.BasicAuthPasswordKey]
			if !user && !pass {
				need(v1.BasicAuthUsernameKey, v1.BasicAuthPasswordKey)
			}
		case v1.SecretTypeSSHAuth:
			if len(s.Data[v1.SSHAuthPrivateKey]) == 0 {
				errs = append(errs, field.Required(data.Key(v1.SSHAuthPrivateKey), ""))
			}
		case v1.SecretTypeTLS:
			need(v1.TLSCertKey, v1.TLSPrivateKeyKey)
		}
		return errs
	}
	return row.New[v1.SecretList](v1.SchemeGroupVersion, r, row.Kind[*v1.Secret]{
		Default: func(s *v1.Secret) {
			if s.Type == "" {
				s.Type = v1.SecretTypeOpaque
			}
			for k, v := range s.StringData {
				if s.Data == nil {
					s.Data = map[string][]byte{}
				}
				s.Data[k] = []byte(v)
			}
			s.StringData = nil
		},
		Validate: validate,
		ValidateUpdate: func(s, old *v1.Secret) field.ErrorList {
			errs := apivalidation.ValidateImmutableField(s.Type, old.Type, field.NewPath("type"))
			if ptr.Deref(old.Immutable, false) {
				if !ptr.Deref(s.Immutable, false) {
					errs = append(errs, field.Forbidden(field.NewPath("immutable"), "field is immutable when `immutable` is set"))
				}
				if !sameBytes(s.Data, old.Data) {
					errs = append(errs, field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set"))
				}
			}
			return append(errs, validate(s)...)
		},
		Fields: func(s *v1.Secret) fields.Set { return fields.Set{"type": string(s.Type)} },
		Cells: func(s *v1.Secret, now time.Time) []any {
			return []any{s.Name, string(s.Type), int64(len(s.Data)), row.Created(s, now)}
		},
	})
}

// jsonObject wants well-formed JSON, if there is anything.
func jsonObject(b []byte, at *field.Path) field.ErrorList {
	if b == nil {
		return nil
	}
	if err := json.Unmarshal(b, &map[string]any{}); err != nil {
		return field.ErrorList{field.Invalid(at, "<secret contents redacted>", err.Error())}
	}
	return nil
}

func serviceAccounts() *api.Resource {
	r := api.Resource{ShortNames: []string{"sa"}, Namespaced: true}
	r.DeleteReturnsObject = true
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Secrets", v1.ServiceAccount{}.SwaggerDoc()["secrets"]), row.Age()}
	r.Subresources = []api.Subresource{created("token", schemaTokenRequest)}
	return row.New[v1.ServiceAccountList](v1.SchemeGroupVersion, r, row.Kind[*v1.ServiceAccount]{
		Warnings:       func(s *v1.ServiceAccount) []string { return mountableSecretsWarnings(s, &v1.ServiceAccount{}) },
		UpdateWarnings: mountableSecretsWarnings,
		Cells: func(s *v1.ServiceAccount, now time.Time) []any {
			return []any{s.Name, int64(len(s.Secrets)), row.Created(s, now)}
		},
	})
}

// mountableSecretsWarnings warn of a deprecated annotation that an account did not
// have before.
func mountableSecretsWarnings(s, old *v1.ServiceAccount) []string {
	const annotation = "kubernetes.io/enforce-mountable-secrets"
	_, is := s.Annotations[annotation]
	if _, was := old.Annotations[annotation]; !is || was {
		return nil
	}
	return []string{fmt.Sprintf("metadata.annotations[%s]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets", annotation)}
}

func bindings() *api.Resource {
	return row.NewComputed(v1.SchemeGroupVersion, api.Resource{Namespaced: true}, row.Kind[*v1.Binding]{})
}

func componentStatuses() *api.Resource {
	return row.New[v1.ComponentStatusList](v1.SchemeGroupVersion, api.Resource{
		ShortNames: []string{"cs"}, Verbs: []string{"get", "list"}, NotStored: true,
		Columns: []metav1.TableColumnDefinition{row.Name(), row.String("Status", "Status of the component conditions"),
			row.String("Message", "Message of the component conditions"), row.String("Error", "Error of the component conditions")},
	}, row.Kind[*v1.ComponentStatus]{Cells: func(cs *v1.ComponentStatus, _ time.Time) []any {
		status, message, err := "Unknown", "", ""
		for _, c := range cs.Conditions {
			if c.Type == v1.ComponentHealthy {
				if status = "Unhealthy"; c.Status == v1.ConditionTrue {
					status = "Healthy"
				}
				message, err = c.Message, c.Error
			}
		}
		return []any{cs.Name, status, message, err}
	}})
}

// validateFinalizer wants a finalizer's name; without a domain, one of
// Kubernetes'.
func validateFinalizer(f v1.FinalizerName, at *field.Path) field.ErrorList {
	return append(qualifiedName(string(f), at), api.ValidateFinalizer(string(f), at)...)
}

func namespaces() *api.Resource {
	r := api.Resource{ShortNames: []string{"ns"}}
	r.Verbs = []string{"create", "delete", "get", "list", "patch", "update", "watch"}
	r.IsNamespace = true
	r.ValidateName = apivalidation.ValidateNamespaceName
	r.FieldLabels = []string{"status.phase"}
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Status", "The status of the namespace"), row.Age()}
	return row.New[v1.NamespaceList](v1.SchemeGroupVersion, r, row.Kind[*v1.Namespace]{
		Spec:   func(n *v1.Namespace) any { return &n.Spec },
		Status: func(n *v1.Namespace) any { return &n.Status },
		Updates: map[string]row.Update[*v1.Namespace]{"finalize": {
			Prepare: func(n, old *v1.Namespace) {
				finalizers, version := n.Spec.Finalizers, n.ResourceVersion
				old.DeepCopyInto(n)
				n.ResourceVersion, n.Spec.Finalizers = version, finalizers
			},
			Validate: func(n, _ *v1.Namespace) (errs field.ErrorList) {
				for i, f := range n.Spec.Finalizers {
					errs = append(errs, validateFinalizer(f, field.NewPath("spec", "finalizers").Index(i))...)
				}
				return errs
			},
		}},
		BeforeDelete: func(n *v1.Namespace) { n.Status.Phase = v1.NamespaceTerminating },
		Finalizing:   func(n *v1.Namespace) bool { return len(n.Spec.Finalizers) > 0 },
		Default: func(n *v1.Namespace) {
			if n.Name == "" {
				return
			}
			if n.Labels == nil {
				n.Labels = map[string]string{}
			}
			n.Labels[v1.LabelMetadataName] = n.Name
		},
		PrepareForCreate: func(n *v1.Namespace) {
			n.Status = v1.NamespaceStatus{Phase: v1.NamespaceActive}
			if n.Name != "" {
				if n.Labels == nil {
					n.Labels = map[string]string{}
				}
				n.Labels[v1.LabelMetadataName] = n.Name
			}
			for _, f := range n.Spec.Finalizers {
				if f == v1.FinalizerKubernetes {
					return
				}
			}
			n.Spec.Finalizers = append(n.Spec.Finalizers, v1.FinalizerKubernetes)
		},
		PrepareForUpdate: func(n, old *v1.Namespace) { n.Spec.Finalizers = old.Spec.Finalizers },
		Validate: func(n *v1.Namespace) (errs field.ErrorList) {
			for _, f := range n.Spec.Finalizers {
				errs = append(errs, validateFinalizer(f, field.NewPath("spec", "finalizers"))...)
			}
			return errs
		},
		ValidateUpdate: func(_, _ *v1.Namespace) field.ErrorList { return nil },
		ValidateStatusUpdate: func(n, old *v1.Namespace) (errs field.ErrorList) {
			if n.DeletionTimestamp.IsZero() {
				if n.Status.Phase != v1.NamespaceActive {
					errs = append(errs, field.Invalid(field.NewPath("status", "Phase"), n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty"))
				}
			} else if n.Status.Phase != v1.NamespaceTerminating {
				errs = append(errs, field.Invalid(field.NewPath("status", "Phase"), n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))
			}
			return errs
		},
		Fields: func(n *v1.Namespace) fields.Set { return fields.Set{"status.phase": string(n.Status.Phase)} },
		Cells: func(n *v1.Namespace, now time.Time) []any {
			return []any{n.Name, string(n.Status.Phase), row.Created(n, now)}
		},
	})
}
