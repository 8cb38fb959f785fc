package controlplane

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/api/catalogue"
	kadmission "keelson.dev/keelson/internal/apiserver/admission"
	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/apiserver/live"
)

// admission makes the chain of the selected plug-ins.
func (c *Instance) admission(rbac *authz.RBAC, modes authorizer.Authorizer, reader *live.Reader) (admission.Interface, admission.ObjectInterfaces, error) {
	services, err := c.serviceResolver()
	if err != nil {
		return nil, nil, err
	}
	chain, err := kadmission.New(kadmission.Environment{
		Store: c.Store, Catalogue: c.Catalogue, Informers: c.Informers,
		Client: func() kubernetes.Interface { return c.Client(inprocess.APIServer) },
		Dynamic: func() dynamic.Interface {
			return dynamic.NewForConfigOrDie(dynamic.ConfigFor(c.Config(inprocess.APIServer)))
		},
		RESTMapper: kadmission.NewRESTMapper(c.Catalogue),
		Authorizer: modes, Services: services, Namespaces: reader.Namespace, Accounts: reader, Pods: reader, Grants: rbac, Done: c.Process.Ctx.Done(),
		Types: func(gvk schema.GroupVersionKind) managedfields.TypeConverter { return c.Server.TypesOf(gvk) },
	}, c.Admission)
	if err != nil {
		return nil, nil, err
	}
	return chain, kadmission.NewObjects(catalogue.Scheme, c.Catalogue), nil
}
