package core

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

func endpoints() *api.Resource {
	r := api.Resource{ShortNames: []string{"ep"}, Namespaced: true, StoragePrefix: "services/endpoints"}
	r.AllowCreateOnUpdate = true
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Endpoints", v1.Endpoints{}.SwaggerDoc()["subsets"]), row.Age()}
	return row.New[v1.EndpointsList](v1.SchemeGroupVersion, r, row.Kind[*v1.Endpoints]{
		Default: func(e *v1.Endpoints) {
			for i := range e.Subsets {
				for j := range e.Subsets[i].Ports {
					if p := &e.Subsets[i].Ports[j]; p.Protocol == "" {
						p.Protocol = v1.ProtocolTCP
					}
				}
			}
		},
		Validate: validateEndpoints,
		Warnings: endpointsWarnings,
		Cells: func(e *v1.Endpoints, now time.Time) []any {
			return []any{e.Name, formatEndpoints(e), row.Created(e, now)}
		},
	})
}

func validateEndpoints(e *v1.Endpoints) (errs field.ErrorList) {
	for i := range e.Subsets {
		s, at := &e.Subsets[i], field.NewPath("subsets").Index(i)
		if len(s.Addresses)+len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(at, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range s.Addresses {
			errs = append(errs, validateEndpointAddress(&s.Addresses[j], at.Child("addresses").Index(j))...)
		}
		for j := range s.NotReadyAddresses {
			errs = append(errs, validateEndpointAddress(&s.NotReadyAddresses[j], at.Child("notReadyAddresses").Index(j))...)
		}
		for j := range s.Ports {
			p, at := &s.Ports[j], at.Child("ports").Index(j)
			if p.Name == "" && len(s.Ports) > 1 {
				errs = append(errs, field.Required(at.Child("name"), ""))
			} else if p.Name != "" {
				for _, msg := range validation.IsDNS1123Label(p.Name) {
					errs = append(errs, field.Invalid(at.Child("name"), p.Name, msg))
				}
			}
			for _, msg := range validation.IsValidPortNum(int(p.Port)) {
				errs = append(errs, field.Invalid(at.Child("port"), p.Port, msg))
			}
			errs = append(errs, supported(at.Child("protocol"), p.Protocol, protocols)...)
			if p.AppProtocol != nil {
				errs = append(errs, qualifiedName(*p.AppProtocol, at.Child("appProtocol"))...)
			}
		}
	}
	return errs
}

func validateEndpointAddress(a *v1.EndpointAddress, at *field.Path) field.ErrorList {
	errs := validation.IsValidIPForLegacyField(at.Child("ip"), a.IP, false, nil)
	if a.Hostname != "" {
		for _, msg := range validation.IsDNS1123Label(a.Hostname) {
			errs = append(errs, field.Invalid(at.Child("hostname"), a.Hostname, msg))
		}
	}
	if a.NodeName != nil {
		errs = append(errs, subdomain(*a.NodeName, at.Child("nodeName"))...)
	}
	return append(errs, ordinaryIP(a.IP, at.Child("ip"))...)
}

func endpointsWarnings(e *v1.Endpoints) (warnings []string) {
	for i := range e.Subsets {
		at := field.NewPath("subsets").Index(i)
		for j, a := range e.Subsets[i].Addresses {
			warnings = append(warnings, validation.GetWarningsForIP(at.Child("addresses").Index(j).Child("ip"), a.IP)...)
		}
		for j, a := range e.Subsets[i].NotReadyAddresses {
			warnings = append(warnings, validation.GetWarningsForIP(at.Child("notReadyAddresses").Index(j).Child("ip"), a.IP)...)
		}
	}
	return warnings
}

func formatEndpoints(e *v1.Endpoints) string {
	if len(e.Subsets) == 0 {
		return "<none>"
	}
	var list []string
	more := 0
	add := func(s string) {
		if len(list) == 3 {
			more++
			return
		}
		list = append(list, s)
	}
	for i := range e.Subsets {
		ss := &e.Subsets[i]
		if len(ss.Ports) == 0 {
			for _, a := range ss.Addresses {
				add(a.IP)
			}
		}
		for _, p := range ss.Ports {
			for _, a := range ss.Addresses {
				if ip, err := netip.ParseAddr(a.IP); err == nil {
					add(netip.AddrPortFrom(ip, uint16(p.Port)).String())
				}
			}
		}
	}
	out := strings.Join(list, ",")
	if more > 0 {
		return fmt.Sprintf("%s + %d more...", out, more)
	}
	if out == "" {
		return "<none>"
	}
	return out
}
